// Catalog: steps of deciding that several calls share.
#include <fmt/core.h>

#include "base/limits.h"
#include "base/size.h"
#include "catalog/catalog.h"
#include "catalog/rules.h"

namespace obraz {

Caller Catalog::daemon_caller(std::string method) {
  static const SubjectRef kDaemon = std::make_shared<const Subject>(Subject{"obrazd", {}, true});
  return {kDaemon, "", 0, std::move(method)};
}

std::string Catalog::in_trash(const Index::Contents& contents) {
  return contents.trashed == 0 ? "" : fmt::format(", {} of them in the trash", contents.trashed);
}

// How a folder appears in a sentence: not at all when it is the default one.
std::string Catalog::in_folder(const std::string& folder) const {
  const EntryRef entry = folder == kDefaultFolder || folder.empty() ? nullptr : index_.find_id(folder);
  return entry ? fmt::format(" in {}", entry->title()) : "";
}

Answer<EntryRef> Catalog::find_folder(const Subject& subject, Right right, const std::string& id_or_name,
                                      std::string_view field) const {
  return find(subject, right, Kind::folder, "", id_or_name.empty() ? std::string(kDefaultFolder) : id_or_name,
              field);
}

// Where something is looked up. What the subject may see there is another question.
Answer<std::string> Catalog::folder_of(const Subject& subject, const std::string& folder_id,
                                       std::string_view field) const {
  const std::string& wanted = folder_id.empty() ? std::string(kDefaultFolder) : folder_id;
  if (const EntryRef folder = index_.find(Kind::folder, "", wanted); folder && may_enter(subject, *folder))
    return folder->id();
  const auto refused = find_folder(subject, Right::see, wanted, field);
  OBRAZ_CHECK(!refused);
  return std::unexpected(refused.error());
}

Answer<std::string> Catalog::source_folder(const Subject& subject, const std::string& folder,
                                           const std::string& source_folder_id) const {
  if (source_folder_id.empty())
    return folder;
  return folder_of(subject, source_folder_id, "source_folder_id");
}

Answer<void> Catalog::check_not_obsolete(const Subject& subject, const Entry& image) const {
  const v1::Deprecation& deprecation = image.record.image().deprecation();
  if (deprecation.state() != v1::Deprecation::OBSOLETE)
    return {};
  const EntryRef instead = index_.find_id(deprecation.replacement_id());
  const bool shown = instead && rights_of(subject, *instead).has(Right::see);
  return refuse(ErrorCode::failed_precondition, "image_id",
                fmt::format("{} is obsolete and makes no new disks{}", image.title(),
                            shown ? fmt::format("; use {}", instead->title()) : ""));
}

// The folder that new resources go into; it must stay until they are there.
Answer<std::string> Catalog::folder_for_new(const Subject& subject, const std::string& folder_id) const {
  // One that can be entered exists for the subject, so that it is told what it lacks.
  const auto entered = folder_of(subject, folder_id);
  if (!entered)
    return std::unexpected(entered.error());
  const EntryRef folder = index_.find_id(*entered);
  if (const auto allowed = check_right(subject, Right::change, *folder, "folder_id"); !allowed)
    return std::unexpected(allowed.error());
  if (folder->deleting)
    return refuse(ErrorCode::failed_precondition, "folder_id",
                  fmt::format("{} is being deleted", folder->title()));
  return folder->id();
}

Answer<EntryRef> Catalog::find(const Subject& subject, Right right, Kind kind, const std::string& folder,
                               const std::string& id_or_name, std::string_view field) const {
  if (id_or_name.empty())
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("the name or id of the {} is missing", word_for(kind)));
  const EntryRef entry = index_.find(kind, folder, id_or_name);
  if (entry && rights_of(subject, *entry).has(Right::see)) {
    if (const auto allowed = check_right(subject, right, *entry, field); !allowed)
      return std::unexpected(allowed.error());
    return entry;
  }
  if (!is_id(id_or_name)) {
    if (const auto legal = rules::check_name(id_or_name, field); !legal)
      return std::unexpected(legal.error());
  }
  return refuse(ErrorCode::not_found, std::string(field),
                fmt::format("there is no {} {}{}", word_for(kind),
                            id_or_name.substr(0, limits::kMaxNameLength), in_folder(folder)));
}

// A resource to make others from: it must be whole, and stay as it is until the store has been asked.
Answer<EntryRef> Catalog::find_source(const Subject& subject, Right right, Kind kind,
                                      const std::string& folder, const std::string& id_or_name,
                                      std::string_view field) const {
  Answer<EntryRef> entry = find(subject, right, kind, folder, id_or_name, field);
  if (!entry)
    return entry;
  if (const auto idle = check_idle(**entry, field); !idle)
    return std::unexpected(idle.error());
  return entry;
}

Answer<void> Catalog::check_free(Kind kind, const std::string& folder, const std::string& name,
                                 std::string_view field) const {
  if (name.empty() || !index_.is_taken(kind, folder, name))
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
    return refuse(
        ErrorCode::failed_precondition, std::string(field),
        fmt::format("{} is being exported or verified; wait, or cancel that operation, before it is {}",
                    entry.title(), verb));
  return {};
}

Answer<void> Catalog::check_unprotected(const Entry& entry, std::string_view field) const {
  if (!entry.is_protected())
    return {};
  return refuse(
      ErrorCode::failed_precondition, std::string(field),
      fmt::format("{} is protected from deletion; take its delete_protection away first", entry.title()));
}

Answer<void> Catalog::check_quota(const std::string& folder, Kind kind, size_t more, uint64_t bytes) const {
  const EntryRef entry = index_.find_id(folder);
  OBRAZ_CHECK(entry);
  const v1::Quota& quota = entry->record.folder().quota();
  const Index::Contents used = index_.contents(folder);
  const int64_t most = kind == Kind::disk       ? quota.disks()
                       : kind == Kind::snapshot ? quota.snapshots()
                                                : quota.images();
  if (more > 0 && most > 0 && used.counts[size_t(kind)] + more > uint64_t(most))
    return refuse(ErrorCode::resource_exhausted, "folder_id",
                  fmt::format("{} has {} of its {} {}s{}; delete some, or have its quota raised",
                              entry->title(), used.counts[size_t(kind)], most, word_for(kind),
                              used.trashed == 0 ? "" : ", the trash included"));
  if (bytes > 0 && quota.bytes() > 0 && uint64_t(used.bytes) + bytes > uint64_t(quota.bytes()))
    return refuse(
        ErrorCode::resource_exhausted, "folder_id",
        fmt::format("{} has {} of its {}, and {} more are needed; delete something, or have its quota "
                    "raised",
                    entry->title(), format_size(uint64_t(used.bytes)), format_size(uint64_t(quota.bytes())),
                    format_size(bytes)));
  return {};
}

Answer<void> Catalog::check_room(size_t more) const {
  if (index_.count(Kind::disk) + index_.count(Kind::snapshot) + index_.count(Kind::image) + index_.trashed() +
          more >
      limits::kMaxVolumes)
    return refuse(ErrorCode::resource_exhausted, "",
                  fmt::format("the store has its {} volumes; delete some first", limits::kMaxVolumes));
  return {};
}

}  // namespace obraz
