// Facts: what filters and orders of list calls know of a resource, whatever its kind.
//
// Invariant: views of strings that somebody else owns and keeps for as long as the facts are used. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace obraz {

// The labels of one resource.
class Labels {
 public:
  virtual const std::string* find(const std::string& key) const = 0;  // null: there is no such label

 protected:
  ~Labels() = default;
};

// Those of a map from strings to strings, the standard library's or protobuf's.
template <typename Map>
class LabelsOf final : public Labels {
 public:
  explicit LabelsOf(const Map& map) : map_(map) {}
  const std::string* find(const std::string& key) const override {
    const auto found = map_.find(key);
    return found == map_.end() ? nullptr : &found->second;
  }

 private:
  const Map& map_;
};

struct Facts {
  std::string_view id = {};
  std::string_view name = {};      // empty: it has none
  std::string_view family = {};    // the same
  std::string_view status = {};    // READY
  std::string_view os_type = {};   // LINUX; empty: nobody has said
  int64_t created_at = 0;          // nanoseconds since 1970
  const Labels* labels = nullptr;  // null: none
};

}  // namespace obraz
