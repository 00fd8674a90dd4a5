// Catalog: what has been deleted and can still be had back. To everybody else it does not exist; it keeps its
// volume, its bindings and what is known of it, and goes with all of them when its time has come.
#include <fmt/core.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>

#include "base/limits.h"
#include "base/log.h"
#include "catalog/catalog.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

// The system's clock may be set: who waits for an instant looks again so often.
constexpr auto kLongestWait = std::chrono::minutes(10);
constexpr auto kShortestWait = std::chrono::seconds(1);

// Whom the operations that end a time in the trash name.
v1::TrashedResource trashed_view(const Entry& entry) {
  v1::TrashedResource shown;
  shown.set_kind(word_for(entry.kind));
  shown.set_id(entry.id());
  shown.set_folder_id(entry.folder());
  shown.set_name(entry.name());
  shown.set_size(int64_t(entry.size_bytes()));
  *shown.mutable_created_at() = entry.created_at();
  *shown.mutable_deleted_at() = entry.record.deleted_at();
  shown.set_deleted_by(entry.record.deleted_by());
  *shown.mutable_purge_at() = entry.record.purge_at();
  return shown;
}

}  // namespace

Answer<v1::ListTrashResponse> Catalog::list_trash(const Caller& caller,
                                                  const v1::ListTrashRequest& request) const {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  const auto page_size = rules::page_size(request.page_size());
  if (!page_size)
    return std::unexpected(page_size.error());
  const auto before = rules::page_position(request.page_token(), INT64_MAX);
  if (!before)
    return std::unexpected(before.error());
  v1::ListTrashResponse response;
  unsigned looked = 0;
  int64_t last = 0;
  index_.each_trashed(*folder, *before == 0 ? INT64_MAX : int64_t(*before), [&](const EntryRef& entry) {
    if (response.resources_size() == int(*page_size) || looked++ == limits::kMaxListLooks) {
      response.set_next_page_token(std::to_string(last));
      return false;
    }
    last = to_nanoseconds(entry->record.deleted_at());
    if (rights_of(*caller.subject, *entry).has(Right::see))
      *response.add_resources() = trashed_view(*entry);
    return true;
  });
  return response;
}

Answer<EntryRef> Catalog::find_trashed(const Caller& caller, const std::string& folder_id,
                                       const std::string& resource) const {
  const auto folder = folder_of(*caller.subject, folder_id);
  if (!folder)
    return std::unexpected(folder.error());
  if (resource.empty())
    return refuse(ErrorCode::invalid_argument, "resource_id",
                  "name a disk/NAME, snapshot/NAME, image/NAME in the trash, or an id");
  const auto sees = [&](const Entry& entry) { return rights_of(*caller.subject, entry).has(Right::see); };
  EntryRef found;
  const size_t slash = resource.find('/');
  if (is_id(resource)) {
    found = index_.find_trashed(resource);
  } else if (const auto kind = volume_kind_from_word(resource.substr(0, slash));
             kind && slash != std::string::npos) {
    index_.each_trashed(*folder, INT64_MAX, [&](const EntryRef& entry) {
      if (entry->kind == *kind && entry->name() == resource.substr(slash + 1) && sees(*entry))
        found = entry;
      return !found;
    });
  }
  if (!found || !sees(*found))
    return refuse(
        ErrorCode::not_found, "resource_id",
        fmt::format("there is no {} in the trash{}; name a disk/NAME, snapshot/NAME, image/NAME, or an id",
                    resource.substr(0, 2 * limits::kMaxNameLength), in_folder(*folder)));
  if (const auto allowed = check_right(*caller.subject, Right::change, *found, "resource_id"); !allowed)
    return std::unexpected(allowed.error());
  if (found->busy)
    return refuse(ErrorCode::failed_precondition, "resource_id",
                  fmt::format("{} is being changed by another call; try again", found->title()));
  return found;
}

Answer<Catalog::Plan> Catalog::plan_trash(const Caller& caller, const EntryRef& entry, int64_t seconds) {
  Plan plan;
  plan.operation =
      operations_.begin(caller, fmt::format("Move {} to the trash", entry->title()), {entry->id()});
  v1::ResourceRecord after = entry->record;
  *after.mutable_deleted_at() = clock_.next();
  after.set_deleted_by(caller.subject->name);
  *after.mutable_purge_at() =
      to_timestamp(to_nanoseconds(after.deleted_at()) + seconds * kNanosecondsPerSecond);
  entry->deleting = true;
  reserve_change(plan, entry, std::move(after));
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_restore(const Caller& caller, const v1::RestoreRequest& request) {
  const auto entry = find_trashed(caller, request.folder_id(), request.resource_id());
  if (!entry)
    return std::unexpected(entry.error());
  if (const auto legal = rules::check_name(request.name()); !legal)
    return std::unexpected(legal.error());
  const std::string name = request.name().empty() ? (*entry)->name() : request.name();
  const std::string folder = (*entry)->folder();
  if (index_.is_taken((*entry)->kind, folder, name))
    return refuse(ErrorCode::already_exists, "name",
                  fmt::format("there is already a {} {}{}; restore it under another name",
                              word_for((*entry)->kind), name, in_folder(folder)));
  v1::ResourceRecord after = (*entry)->record;
  after.clear_deleted_at();
  after.clear_deleted_by();
  after.clear_purge_at();
  visit_resource(after, [&](auto& resource) { resource.set_name(name); });
  Plan plan;
  plan.operation = operations_.begin(caller, fmt::format("Restore {} from the trash", (*entry)->title()),
                                     {(*entry)->id()});
  reserve_change(plan, *entry, std::move(after));
  if (!name.empty()) {
    plan.changed.back().new_name = name;
    index_.reserve((*entry)->kind, folder, name);
  }
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_purge(const Caller& caller, const v1::PurgeRequest& request) {
  const auto entry = find_trashed(caller, request.folder_id(), request.resource_id());
  if (!entry)
    return std::unexpected(entry.error());
  return plan_removal(caller, *entry, fmt::format("Delete {} from the trash", (*entry)->title()));
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::restore(Caller caller, v1::RestoreRequest request) {
  return run(plan_restore(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::purge(Caller caller, v1::PurgeRequest request) {
  return run(plan_purge(caller, request));
}

boost::asio::awaitable<bool> Catalog::purge_expired(google::protobuf::Timestamp now) {
  for (;;) {
    const EntryRef entry = index_.first_to_purge();
    if (stopping_ || !entry || entry->busy || to_nanoseconds(entry->record.purge_at()) > to_nanoseconds(now))
      co_return true;
    const auto purged = co_await run(plan_removal(daemon_caller("TrashService.Expire"), entry,
                                                  fmt::format("Delete {} from the trash", entry->title())));
    if (!purged || (*purged)->message.has_error())
      co_return false;  // the operation has the reason
  }
}

boost::asio::awaitable<void> Catalog::keep_trash() {
  while (!stopping_) {
    const bool good = co_await purge_expired(clock_.next());
    const EntryRef next = good ? index_.first_to_purge() : nullptr;
    std::chrono::nanoseconds wait = kLongestWait;
    if (next)
      wait = std::min(wait, std::chrono::nanoseconds(to_nanoseconds(next->record.purge_at()) -
                                                     to_nanoseconds(clock_.next())));
    purge_timer_.expires_after(std::max<std::chrono::nanoseconds>(wait, kShortestWait));
    if (!stopping_)
      co_await purge_timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }
  end_background();
}

}  // namespace obraz
