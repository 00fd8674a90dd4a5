// Access: subjects, roles, and the rights that bindings of a role to a subject give on a resource.
// docs/resources.md has the table.
//
// Pure; any thread.
#pragma once

#include <google/protobuf/repeated_field.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_identity.h"
#include "base/refusal.h"
#include "catalog/kind.h"
#include "obraz/v1/access.pb.h"

namespace obraz {

// Who calls, as the system knows it.
struct Subject {
  std::string name;                 // user:NAME
  std::vector<std::string> groups;  // group:NAME
  bool superuser = false;           // may do everything: root, and the user that runs the daemon
  // Whose files are opened for it. Null: ours, for a superuser; for others none can be.
  FileIdentityRef files = nullptr;
};
using SubjectRef = std::shared_ptr<const Subject>;

// Everybody whom the system knows.
constexpr std::string_view kEverybody = "allAuthenticatedUsers";

enum class Right : uint8_t {
  see,         // that it is there, and what it says of itself
  use,         // read its bytes, make others from it
  change,      // change it, write to it, delete it; of a folder: make things in it
  administer,  // say who may do what with it
};

// A set of rights.
class Rights {
 public:
  constexpr Rights() = default;
  static constexpr Rights all() { return Rights(0b1111); }
  static constexpr Rights up_to(Right right) { return Rights(uint8_t((2u << unsigned(right)) - 1)); }
  constexpr bool has(Right right) const { return (bits_ >> unsigned(right) & 1) != 0; }
  constexpr bool any() const { return bits_ != 0; }
  constexpr Rights& operator|=(Rights other) {
    bits_ |= other.bits_;
    return *this;
  }

 private:
  explicit constexpr Rights(uint8_t bits) : bits_(bits) {}
  uint8_t bits_ = 0;
};

using Bindings = google::protobuf::RepeatedPtrField<v1::AccessBinding>;

// What bindings give a subject on a resource of the kind, whether they are bound on it or on its folder.
Rights rights_from(const Bindings& bindings, const Subject& subject, Kind kind);

// Those of a request: known roles, well-formed subjects, not too many; each once, sorted by role and subject.
Answer<Bindings> checked_bindings(const Bindings& bindings, std::string_view field);
// Those that are there, after the deltas, one after the other.
Answer<Bindings> changed_bindings(Bindings bindings,
                                  const google::protobuf::RepeatedPtrField<v1::AccessBindingDelta>& deltas);

// The least role that gives the right, for sentences.
std::string_view role_for(Right right, Kind kind);

}  // namespace obraz
