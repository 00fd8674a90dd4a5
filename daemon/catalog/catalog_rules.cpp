// Catalog: steps of deciding that several calls share.
#include <fmt/core.h>

#include "base/limits.h"
#include "catalog/catalog.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

// How a folder appears in a sentence: not at all when it is the default one.
std::string in_folder(std::string_view folder) {
  return folder == kDefaultFolder ? "" : fmt::format(" in folder {}", folder);
}

}  // namespace

Answer<std::string> Catalog::folder_of(const std::string& folder_id) const {
  if (folder_id.empty() || folder_id == kDefaultFolder)
    return std::string(kDefaultFolder);
  if (const auto legal = rules::check_name(folder_id, "folder_id"); !legal && !is_id(folder_id))
    return std::unexpected(legal.error());
  return refuse(ErrorCode::not_found, "folder_id",
                fmt::format("there is no folder {}", folder_id.substr(0, limits::kMaxNameLength)));
}

Answer<EntryRef> Catalog::find(Kind kind, const std::string& folder, const std::string& id_or_name,
                               std::string_view field) const {
  if (id_or_name.empty())
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("the name or id of the {} is missing", word_for(kind)));
  if (const EntryRef entry = index_.find(kind, folder, id_or_name))
    return entry;
  if (!is_id(id_or_name)) {
    if (const auto legal = rules::check_name(id_or_name, field); !legal)
      return std::unexpected(legal.error());
  }
  return refuse(ErrorCode::not_found, std::string(field),
                fmt::format("there is no {} {}{}", word_for(kind),
                            id_or_name.substr(0, limits::kMaxNameLength), in_folder(folder)));
}

// A resource to make others from: it must be whole, and stay as it is until the store has been asked.
Answer<EntryRef> Catalog::find_source(Kind kind, const std::string& folder, const std::string& id_or_name,
                                      std::string_view field) const {
  Answer<EntryRef> entry = find(kind, folder, id_or_name, field);
  if (!entry)
    return entry;
  if (const auto idle = check_idle(**entry, field); !idle)
    return std::unexpected(idle.error());
  return entry;
}

Answer<void> Catalog::check_free(Kind kind, const std::string& folder, const std::string& name,
                                 std::string_view field) const {
  if (!index_.find_name(kind, folder, name))
    return {};
  return refuse(ErrorCode::already_exists, std::string(field),
                fmt::format("there is already a {} {}{}", word_for(kind), name, in_folder(folder)));
}

Answer<void> Catalog::check_idle(const Entry& entry, std::string_view field) const {
  const auto refused = [&](std::string_view why) {
    return refuse(ErrorCode::failed_precondition, std::string(field),
                  fmt::format("{} {}", entry.title(), why));
  };
  if (entry.status() == v1::CREATING)
    return refused("is still being created");
  if (entry.status() == v1::DELETING)
    return refused("is being deleted");
  if (entry.busy)
    return refused("is being changed by another call; try again");
  if (entry.status() == v1::ERROR && !entry.volume())
    return refused("is damaged: its volume is missing");
  return {};
}

Answer<void> Catalog::check_unused(const Entry& entry, std::string_view verb, std::string_view field) const {
  if (!entry.attachments.empty())
    return refuse(
        ErrorCode::failed_precondition, std::string(field),
        fmt::format(
            "{} is attached by {}{}; detach it before it is {}", entry.title(),
            entry.attachments.begin()->second.client,
            entry.attachments.size() > 1 ? fmt::format(" and {} more", entry.attachments.size() - 1) : "",
            verb));
  if (entry.readers > 0)
    return refuse(ErrorCode::failed_precondition, std::string(field),
                  fmt::format("{} is being exported; wait, or cancel that operation, before it is {}",
                              entry.title(), verb));
  return {};
}

Answer<void> Catalog::check_room(size_t more) const {
  if (index_.count(Kind::disk) + index_.count(Kind::snapshot) + index_.count(Kind::image) + more >
      limits::kMaxVolumes)
    return refuse(ErrorCode::resource_exhausted, "",
                  fmt::format("the store has its {} volumes; delete some first", limits::kMaxVolumes));
  return {};
}

}  // namespace obraz
