// The kinds of resources, and how they are named: as words, in ids and in export names. Disks, snapshots and
// images stand on a volume.
//
// An id is 20 characters: a digit that tells the kind, then 19 random ones of 0-9 a-z without i, l, o and u
// (95 bits). A name begins with a letter, so nothing is ever both. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace obraz {

enum class Kind : uint8_t { disk = 1, snapshot = 2, image = 3, folder = 4, schedule = 5 };
inline constexpr size_t kKindEnd = 6;
inline constexpr std::array kVolumeKinds = {Kind::disk, Kind::snapshot, Kind::image};

constexpr bool has_volume(Kind kind) {
  return kind == Kind::disk || kind == Kind::snapshot || kind == Kind::image;
}

const char* word_for(Kind kind);  // "disk"
std::optional<Kind> volume_kind_from_word(std::string_view word);

std::string new_resource_id(Kind kind);
std::string new_operation_id();
// Whether it has the form of an id; a name never does.
bool is_id(std::string_view text);

// Id and name of the folder that is always there.
constexpr std::string_view kDefaultFolder = "default";

}  // namespace obraz
