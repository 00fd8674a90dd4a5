#include "catalog/catalog.h"

#include <fmt/core.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <unordered_map>

#include "base/log.h"
#include "catalog/codes.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

constexpr auto kBetweenDisconnects = std::chrono::milliseconds(10);

PutResource put(const Entry& entry, v1::ResourceRecord record, v1::ResourceStatus status) {
  visit_resource(record, [&](auto& resource) { resource.set_status(status); });
  return PutResource{entry.key(), record.SerializeAsString()};
}

void remove(const Entry& entry, Transaction& transaction) {
  transaction.push_back(RemoveResource{entry.key()});
  if (entry.has_content())
    transaction.push_back(RemoveResource{entry.content_key()});
  if (!entry.access.empty())
    transaction.push_back(RemoveResource{entry.access_key()});
}

void put_access(const Entry& entry, const Bindings& bindings, Transaction& transaction) {
  if (bindings.empty()) {
    if (!entry.access.empty())
      transaction.push_back(RemoveResource{entry.access_key()});
    return;
  }
  v1::ResourceRecord record;
  record.mutable_access()->set_resource_id(entry.id());
  *record.mutable_access()->mutable_access_bindings() = bindings;
  transaction.push_back(PutResource{entry.access_key(), record.SerializeAsString()});
}

}  // namespace

Catalog::Catalog(boost::asio::any_io_executor executor, StoreAccess& store, Clock clock)
    : executor_(executor),
      store_(store),
      clock_(std::move(clock)),
      operations_(executor, clock_),
      purge_timer_(executor),
      usage_timer_(executor),
      schedule_timer_(executor),
      background_ended_(executor) {}

// --- start
// --------------------------------------------------------------------------------------------------------
boost::asio::awaitable<Answer<void>> Catalog::load() {
  Result<StoreAccess::Resources> resources = co_await store_.resources();
  if (!resources)
    co_return std::unexpected(refusal_of(resources.error(), "reading the resources"));
  Result<std::vector<VolumeInfo>> volumes = co_await store_.volumes();
  if (!volumes)
    co_return std::unexpected(refusal_of(volumes.error(), "reading the volumes"));
  std::unordered_map<uint64_t, bool> damaged;  // by volume
  for (const VolumeInfo& volume : *volumes)
    damaged.emplace(volume.id.value, volume.damaged);

  std::vector<EntryRef> half_made;
  std::unordered_map<std::string, v1::ImageContent> contents;  // by image
  std::unordered_map<std::string, Bindings> access;            // by resource
  for (const auto& [key, value] : *resources) {
    v1::ResourceRecord record;
    if (!record.ParseFromString(value) || record.resource_case() == v1::ResourceRecord::RESOURCE_NOT_SET) {
      log::error("catalog: the resource {} cannot be read and is left alone", key);
      continue;
    }
    if (record.resource_case() == v1::ResourceRecord::kOperation) {
      operations_.restore(record);
      continue;
    }
    if (record.has_content()) {
      contents[record.content().image_id()] = std::move(*record.mutable_content());
      continue;
    }
    if (record.has_access()) {
      access[record.access().resource_id()] = std::move(*record.mutable_access()->mutable_access_bindings());
      continue;
    }
    if (record.has_usage()) {
      load_usage(record.usage());
      continue;
    }
    auto entry = std::make_shared<Entry>();
    entry->kind = record.has_disk()       ? Kind::disk
                  : record.has_snapshot() ? Kind::snapshot
                  : record.has_image()    ? Kind::image
                  : record.has_schedule() ? Kind::schedule
                                          : Kind::folder;
    entry->record = std::move(record);
    clock_.advance_past(entry->created_at());
    clock_.advance_past(entry->record.deleted_at());
    const auto volume = damaged.find(entry->volume().value);
    if (entry->status() == v1::CREATING) {
      if (volume == damaged.end())
        entry->record.set_volume_id(0);
      half_made.push_back(std::move(entry));
      continue;
    }
    if (index_.find_id(entry->id()) || index_.find_trashed(entry->id()) ||
        (!entry->in_trash() && index_.find_name(entry->kind, entry->folder(), entry->name()))) {
      log::error("catalog: {} is there twice; {} is left alone", entry->title(), key);
      continue;
    }
    if (!has_volume(entry->kind)) {
      index_.insert(std::move(entry));
      continue;
    }
    entry->set_status(volume != damaged.end() && !volume->second ? v1::READY : v1::ERROR);
    if (volume == damaged.end()) {
      log::error("catalog: the volume of {} is missing", entry->title());
      entry->record.set_volume_id(0);
    }
    entry->measured = entry->kind == Kind::image && entry->record.image().storage_size() > 0;
    index_.insert(std::move(entry));
  }

  if (!index_.find_id(kDefaultFolder))
    insert_default_folder();
  for (const EntryRef& entry : index_.all()) {
    if (const auto bindings = access.find(entry->id()); bindings != access.end())
      index_.set_access(entry, std::move(bindings->second));
    if (const auto content = contents.find(entry->id()); content != contents.end())
      entry->content = std::move(content->second);
    look_later(entry);
  }

  const Refusal interrupted{ErrorCode::unavailable, "", "interrupted by a restart of the daemon"};
  const auto remove_half_made = [](const Entry& entry, Transaction& transaction) {
    log::info("catalog: {} was being made when the daemon ended; it is removed", entry.title());
    if (entry.volume())
      transaction.push_back(DeleteVolume{entry.volume()});
    transaction.push_back(RemoveResource{entry.key()});
  };
  const std::vector<OperationRef> unfinished = operations_.unfinished();
  for (const OperationRef& operation : unfinished) {
    Transaction transaction;
    std::erase_if(half_made, [&](const EntryRef& entry) {
      const bool ours = entry->id() == operation->message.metadata().resource_id();
      if (ours)
        remove_half_made(*entry, transaction);
      return ours;
    });
    operations_.append_finished(*operation, &interrupted, transaction);
    Status status = co_await store_.commit(std::move(transaction));
    if (!status)
      co_return std::unexpected(refusal_of(status.error(), "ending an interrupted operation"));
    operations_.finish(operation, &interrupted);
  }
  for (const EntryRef& entry : half_made) {
    Transaction transaction;
    remove_half_made(*entry, transaction);
    Status status = co_await store_.commit(std::move(transaction));
    if (!status)
      co_return std::unexpected(refusal_of(status.error(), "removing what was half-made"));
  }
  if (const auto forgotten = co_await forget_usage(); !forgotten)
    co_return forgotten;
  begin_background(keep_trash());
  begin_background(keep_usage());
  begin_background(keep_schedules());
  co_return Answer<void>();
}

// --- changing
// -----------------------------------------------------------------------------------------------------
boost::asio::awaitable<Status> Catalog::commit(OperationRef operation, Transaction transaction) {
  Status status = co_await store_.commit(std::move(transaction));
  if (status)
    operation->stored = true;
  co_return status;
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::run(Answer<Plan> planned) {
  if (!planned)
    co_return std::unexpected(planned.error());
  Plan plan = std::move(*planned);
  // Also when there is nothing to take: every call crosses as often, so that their changes reach the store in
  // the order in which they were decided, and a source is still there when its clone is made.
  const size_t volumes = plan.volumes ? plan.created.size() : 0;
  Result<std::vector<VolumeId>> ids = co_await store_.new_volume_ids(volumes);
  Status status;
  if (ids) {
    Transaction transaction;
    for (size_t i = 0; i < volumes; ++i)
      plan.created[i]->record.set_volume_id((*ids)[i].value);
    if (plan.volumes)
      plan.volumes(plan.created, transaction);
    append_usage(plan, transaction);
    for (const EntryRef& entry : plan.created) {
      transaction.push_back(put(*entry, entry->record, v1::READY));
      if (entry->has_content())
        transaction.push_back(content_of(*entry, entry->content));
    }
    for (const Plan::Changed& change : plan.changed)
      if (change.access)
        put_access(*change.entry, *change.access, transaction);
      else
        transaction.push_back(put(*change.entry, change.after, v1::READY));
    for (const EntryRef& entry : plan.removed)
      remove(*entry, transaction);
    operations_.append_finished(*plan.operation, nullptr, transaction);
    status = co_await commit(plan.operation, std::move(transaction));
  } else {
    status = Failure(ids.error());
  }
  settle(plan, status.has_value());
  if (status) {
    operations_.finish(plan.operation, nullptr);
  } else {
    const Refusal refusal = refusal_of(status.error(), plan.operation->message.description());
    operations_.finish(plan.operation, &refusal);
  }
  co_return plan.operation;
}

// Memory follows the store.
void Catalog::settle(const Plan& plan, bool done) {
  for (const EntryRef& entry : plan.created) {
    if (done) {
      entry->set_status(v1::READY);
      if (entry->kind == Kind::schedule)
        schedule_timer_.cancel();
      measure_later(entry);
      look_later(entry);
    } else {
      index_.erase(*entry);
    }
  }
  for (const Plan::Changed& change : plan.changed) {
    Entry& entry = *change.entry;
    entry.busy = entry.deleting = false;
    if (!change.new_name.empty())
      index_.release(entry.kind, entry.folder(), change.new_name);
    if (change.more_bytes != 0)
      index_.reserve_bytes(entry.folder(), -change.more_bytes);
    if (!done)
      continue;
    if (change.access) {
      index_.set_access(change.entry, *change.access);
      continue;
    }
    const v1::ResourceStatus status = entry.status();
    const bool was_in_trash = entry.in_trash();
    index_.change(change.entry, change.after);
    entry.set_status(status);
    if (entry.kind == Kind::schedule)
      schedule_timer_.cancel();  // it may be the next now
    if (entry.in_trash())
      purge_timer_.cancel();  // it may be the first now
    else if (was_in_trash)
      look_later(change.entry);
  }
  for (const EntryRef& entry : plan.removed) {
    if (done)
      index_.erase(*entry);
    else
      entry->busy = entry->deleting = false;
  }
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::create_image(Caller caller,
                                                                   v1::CreateImageRequest request) {
  return run(plan_create_image(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::create_disk(Caller caller,
                                                                  v1::CreateDiskRequest request) {
  return run(plan_create_disk(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::resize_disk(Caller caller,
                                                                  v1::ResizeDiskRequest request) {
  return run(plan_resize_disk(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::revert_disk(Caller caller,
                                                                  v1::RevertDiskRequest request) {
  return run(plan_revert_disk(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::create_snapshots(Caller caller,
                                                                       v1::CreateSnapshotsRequest request) {
  return run(plan_create_snapshots(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::delete_image(Caller caller,
                                                                   v1::DeleteImageRequest request) {
  return run(plan_delete(
      caller, {Kind::image, request.folder_id(), request.image_id(), "image_id", request.permanently()}));
}
Catalog::Deletion Catalog::of(const v1::DeleteDiskRequest& request) {
  return {Kind::disk, request.folder_id(), request.disk_id(), "disk_id", request.permanently()};
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::delete_disk(Caller caller,
                                                                  v1::DeleteDiskRequest request) {
  if (request.force())
    return delete_by_force(std::move(caller), std::move(request));
  return run(plan_delete(caller, of(request)));
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::delete_by_force(Caller caller,
                                                                      v1::DeleteDiskRequest request) {
  if (const auto detached = co_await detach_all(caller, request); !detached)
    co_return std::unexpected(detached.error());
  // From here to the decision nothing else runs, so nobody has come back.
  co_return co_await run(plan_delete(caller, of(request)));
}

// Nobody may come while the others are sent away.
boost::asio::awaitable<Answer<void>> Catalog::detach_all(const Caller& caller,
                                                         const v1::DeleteDiskRequest& request) {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    co_return std::unexpected(folder.error());
  const auto found =
      find_source(*caller.subject, Right::change, Kind::disk, *folder, request.disk_id(), "disk_id");
  if (!found)
    co_return std::unexpected(found.error());
  if (const auto allowed = check_unprotected(**found, "disk_id"); !allowed)
    co_return std::unexpected(allowed.error());
  const EntryRef disk = *found;
  boost::asio::steady_timer timer(executor_);
  disk->busy = true;
  while (disconnect_ && !stopping_ && !disk->attachments.empty()) {
    co_await disconnect_(disk->volume());
    if (disk->attachments.empty())
      break;
    // One that has been let in is not served yet; it will be, or give up, and no event tells.
    timer.expires_after(kBetweenDisconnects);
    co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }
  disk->busy = false;
  co_return Answer<void>();
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::delete_snapshot(Caller caller,
                                                                      v1::DeleteSnapshotRequest request) {
  return run(plan_delete(caller, {Kind::snapshot, request.folder_id(), request.snapshot_id(), "snapshot_id",
                                  request.permanently()}));
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::update_image(Caller caller,
                                                                   v1::UpdateImageRequest request) {
  return run(plan_update_image(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::update_disk(Caller caller,
                                                                  v1::UpdateDiskRequest request) {
  return run(plan_update_disk(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::update_snapshot(Caller caller,
                                                                      v1::UpdateSnapshotRequest request) {
  return run(plan_update_snapshot(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::create_folder(Caller caller,
                                                                    v1::CreateFolderRequest request) {
  return run(plan_create_folder(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::update_folder(Caller caller,
                                                                    v1::UpdateFolderRequest request) {
  return run(plan_update_folder(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::delete_folder(Caller caller,
                                                                    v1::DeleteFolderRequest request) {
  return run(plan_delete_folder(caller, request));
}

// --- import and export
// --------------------------------------------------------------------------------------------
boost::asio::awaitable<Answer<void>> Catalog::start_import(ImportTicket& ticket, uint64_t size_bytes,
                                                           std::string format) {
  if (size_bytes > limits::kMaxVolumeSize)
    co_return refuse(
        ErrorCode::invalid_argument, "source",
        fmt::format("the source has {} bytes; an image has at most {}", size_bytes, limits::kMaxVolumeSize));
  if (size_bytes == 0)
    co_return refuse(ErrorCode::invalid_argument, "source", "the source is empty");
  const uint64_t size = round_up(size_bytes, limits::kVolumeSizeUnit);
  const auto min_disk_size = rules::min_disk_size(ticket.min_disk_size, size);
  if (!min_disk_size)
    co_return std::unexpected(min_disk_size.error());

  Result<std::vector<VolumeId>> ids = co_await store_.new_volume_ids(1);
  if (!ids)
    co_return std::unexpected(refusal_of(ids.error(), "making a volume"));
  if (const auto quota = check_quota(ticket.image->folder(), Kind::image, 0, size); !quota)
    co_return std::unexpected(quota.error());
  v1::ResourceRecord record = ticket.image->record;
  v1::Image& image = *record.mutable_image();
  image.set_size(int64_t(size));
  image.set_min_disk_size(int64_t(*min_disk_size));
  image.mutable_source()->set_format(std::move(format));
  record.set_volume_id((*ids)[0].value);
  index_.change(ticket.image, std::move(record));
  Transaction transaction;
  transaction.push_back(CreateVolume{(*ids)[0], size});
  transaction.push_back(put(*ticket.image, ticket.image->record, v1::CREATING));
  operations_.append_running(*ticket.operation, transaction);
  Status status = co_await commit(ticket.operation, std::move(transaction));
  if (!status)
    co_return std::unexpected(refusal_of(status.error(), "making a volume"));
  ticket.started = true;
  co_return Answer<void>();
}

boost::asio::awaitable<Answer<void>> Catalog::finish_import(ImportTicket& ticket,
                                                            std::optional<v1::Layout> layout) {
  const VolumeId work = ticket.work_volume();
  Result<Store::Usage> usage = co_await store_.usage(work);
  Result<std::vector<VolumeId>> ids = co_await store_.new_volume_ids(1);
  if (!ids)
    co_return std::unexpected(refusal_of(ids.error(), "making the image"));
  v1::ResourceRecord record = ticket.image->record;
  record.set_volume_id((*ids)[0].value);
  if (usage)
    record.mutable_image()->set_storage_size(int64_t(usage->mapped_bytes));
  Transaction transaction;
  transaction.push_back(CloneVolume{(*ids)[0], work, VolumeKind::frozen, uint64_t(record.image().size())});
  transaction.push_back(DeleteVolume{work});
  transaction.push_back(put(*ticket.image, record, v1::READY));
  v1::ImageContent content;
  if (layout) {
    content.set_image_id(ticket.image->id());
    *content.mutable_layout() = std::move(*layout);
    transaction.push_back(content_of(*ticket.image, content));
  }
  operations_.append_finished(*ticket.operation, nullptr, transaction);
  Status status = co_await commit(ticket.operation, std::move(transaction));
  if (!status)
    co_return std::unexpected(refusal_of(status.error(), "making the image"));
  index_.change(ticket.image, std::move(record));
  ticket.image->set_status(v1::READY);
  ticket.image->measured = usage.has_value();
  ticket.image->content = std::move(content);
  look_later(ticket.image);
  operations_.finish(ticket.operation, nullptr);
  co_return Answer<void>();
}

boost::asio::awaitable<void> Catalog::fail_import(ImportTicket ticket, Refusal refusal) {
  Transaction transaction;
  if (ticket.started) {
    transaction.push_back(DeleteVolume{ticket.work_volume()});
    transaction.push_back(RemoveResource{ticket.image->key()});
  }
  operations_.append_finished(*ticket.operation, &refusal, transaction);
  Status status = co_await commit(ticket.operation, std::move(transaction));
  if (!status)
    log::warning("catalog: removing {}: {}; the next start will do it", ticket.image->title(),
                 describe(status.error()));
  index_.erase(*ticket.image);
  operations_.finish(ticket.operation, &refusal);
}

boost::asio::awaitable<void> Catalog::end_read(ReadTicket ticket, Answer<void> outcome) {
  const Refusal* refusal = outcome ? nullptr : &outcome.error();
  Transaction transaction;
  operations_.append_finished(*ticket.operation, refusal, transaction);
  Status status = co_await commit(ticket.operation, std::move(transaction));
  if (!status)
    log::warning("catalog: recording the end of an operation: {}", describe(status.error()));
  OBRAZ_CHECK(ticket.image->readers > 0);
  --ticket.image->readers;
  operations_.finish(ticket.operation, refusal);
}

// --- what is on images
// ------------------------------------------------------------------------------------------------
PutResource Catalog::content_of(const Entry& image, v1::ImageContent& content) {
  v1::Layout& layout = *content.mutable_layout();
  while (content.ByteSizeLong() > limits::kMaxContentSize) {  // some dozens of partitions fit
    layout.mutable_partitions()->RemoveLast();
    layout.set_incomplete(true);
  }
  v1::ResourceRecord record;
  *record.mutable_content() = content;
  return PutResource{image.content_key(), record.SerializeAsString()};
}

void Catalog::look_later(const EntryRef& entry) {
  if (entry->kind != Kind::image || entry->status() != v1::READY || entry->in_trash())
    return;
  if (!entry->content.has_layout())
    to_examine_.push_back(entry);
  if (entry->content.digest().empty())
    to_digest_.push_back(entry);
}

EntryRef Catalog::next_unexamined() {
  return next_of(to_examine_, [](const v1::ImageContent& content) { return !content.has_layout(); });
}

EntryRef Catalog::next_undigested() {
  return next_of(to_digest_, [](const v1::ImageContent& content) { return content.digest().empty(); });
}

EntryRef Catalog::next_of(std::deque<EntryRef>& queue, bool (*wanted)(const v1::ImageContent&)) {
  while (!queue.empty()) {
    EntryRef image = std::move(queue.front());
    queue.pop_front();
    if (wanted(image->content) && image->status() == v1::READY)
      return image;
  }
  return nullptr;
}

boost::asio::awaitable<void> Catalog::keep_layout(EntryRef image, v1::Layout layout) {
  return keep_content(std::move(image), [layout = std::move(layout)](v1::ImageContent& content) {
    *content.mutable_layout() = layout;
  });
}

boost::asio::awaitable<void> Catalog::keep_digest(EntryRef image, std::string digest) {
  return keep_content(std::move(image), [digest = std::move(digest)](v1::ImageContent& content) {
    if (content.digest().empty())  // whoever was first is what later ones are compared with
      content.set_digest(digest);
  });
}

// A deletion that is decided from here on takes it away again: commits reach the store in the order of their
// decisions.
boost::asio::awaitable<void> Catalog::keep_content(EntryRef image,
                                                   std::function<void(v1::ImageContent&)> change) {
  if (image->status() != v1::READY || index_.find_id(image->id()) != image)
    co_return;
  image->content.set_image_id(image->id());
  change(image->content);
  Transaction transaction;
  transaction.push_back(content_of(*image, image->content));
  const Status status = co_await store_.commit(std::move(transaction));
  if (!status)
    log::warning("catalog: keeping what was found out about {}: {}", image->title(),
                 describe(status.error()));
}

// --- exports by NBD
// ---------------------------------------------------------------------------------------------------
namespace {

// To be a client of it.
Right right_to_attach(Kind kind) {
  return kind == Kind::disk ? Right::change : Right::use;
}

}  // namespace

Answer<ExportInfo> Catalog::find_export(const Subject& subject, std::string_view name) const {
  const EntryRef entry = index_.find_export(name);
  if (!entry || !rights_of(subject, *entry).has(Right::see))
    return refuse(ErrorCode::not_found, "", fmt::format("there is no export {}", name));
  if (const auto allowed = check_right(subject, right_to_attach(entry->kind), *entry, ""); !allowed)
    return std::unexpected(allowed.error());
  if (const auto idle = check_idle(*entry, ""); !idle)
    return std::unexpected(idle.error());
  return ExportInfo{entry->id(),     std::string(name),   entry->title(),
                    entry->volume(), entry->size_bytes(), entry->kind != Kind::disk};
}

std::vector<ExportInfo> Catalog::list_exports(const Subject& subject, size_t limit) const {
  std::vector<ExportInfo> exports;
  const auto list_folder = [&](const Entry& folder) {
    if (!may_enter(subject, folder))
      return;
    const std::string within = folder.id() == kDefaultFolder ? "" : folder.name() + "/";
    const auto list = [&](const EntryRef& entry) {
      if (check_idle(*entry, "") && rights_of(subject, *entry).has(right_to_attach(entry->kind)))
        exports.push_back({entry->id(),
                           entry->name().empty()
                               ? entry->id()
                               : fmt::format("{}/{}{}", word_for(entry->kind), within, entry->name()),
                           entry->title(), entry->volume(), entry->size_bytes(), entry->kind != Kind::disk});
      return exports.size() < limit;
    };
    for (const Kind kind : kVolumeKinds)
      if (exports.size() < limit)
        index_.each(kind, folder.id(), list);
  };
  list_folder(*index_.find_id(kDefaultFolder));
  index_.each(Kind::folder, "", [&](const EntryRef& folder) {
    if (folder->id() != kDefaultFolder)
      list_folder(*folder);
    return exports.size() < limit;
  });
  return exports;
}

Answer<void> Catalog::attach(std::string_view resource_id, uint64_t session, Attachment attachment) {
  const EntryRef entry = index_.find_id(resource_id);
  if (!entry)
    return refuse(ErrorCode::not_found, "", fmt::format("there is no resource {}", resource_id));
  if (const auto idle = check_idle(*entry, ""); !idle)
    return std::unexpected(idle.error());
  attachment.since = clock_.next();
  const auto [at, is_new] = entry->attachments.emplace(session, std::move(attachment));
  OBRAZ_CHECK(is_new);
  ++attachments_;
  if (on_attach_)
    on_attach_(*entry, at->second, true);
  return {};
}

void Catalog::detach(std::string_view resource_id, uint64_t session) {
  const EntryRef entry = index_.find_id(resource_id);
  OBRAZ_CHECK(entry);  // what is attached is not deleted
  const auto at = entry->attachments.find(session);
  OBRAZ_CHECK(at != entry->attachments.end());
  if (on_attach_)
    on_attach_(*entry, at->second, false);
  entry->attachments.erase(at);
  --attachments_;
}

// --- counting space
// ---------------------------------------------------------------------------------------------------
void Catalog::measure_later(const EntryRef& entry) {
  if (stopping_ || (entry->kind != Kind::snapshot && entry->kind != Kind::image) || entry->measured ||
      to_measure_.size() >= limits::kMaxMeasurements)
    return;
  to_measure_.push_back(entry);
  if (measuring_)
    return;
  measuring_ = true;
  begin_background(measure_all());
}

boost::asio::awaitable<void> Catalog::measure_all() {
  while (!to_measure_.empty() && !stopping_) {
    EntryRef entry = std::move(to_measure_.front());
    to_measure_.pop_front();
    if (!entry->measured)
      co_await measure(std::move(entry));
  }
  measuring_ = false;
  end_background();
}

void Catalog::begin_background(awaitable<void> task) {
  ++background_;
  boost::asio::co_spawn(executor_, std::move(task), boost::asio::detached);
}

void Catalog::end_background() {
  --background_;
  background_ended_.notify_all();
}

boost::asio::awaitable<void> Catalog::stop() {
  stopping_ = true;
  purge_timer_.cancel();
  usage_timer_.cancel();
  schedule_timer_.cancel();
  while (background_ > 0)
    co_await background_ended_.wait();
}

boost::asio::awaitable<void> Catalog::measure(EntryRef entry) {
  if (!entry->volume() || entry->status() == v1::CREATING)
    co_return;
  const VolumeId volume = entry->volume();
  Result<Store::Usage> usage = co_await store_.usage(volume);
  if (!usage)
    co_return;  // deleted meanwhile, damaged, or the daemon stops
  if (entry->kind == Kind::image)
    entry->record.mutable_image()->set_storage_size(int64_t(usage->mapped_bytes));
  else
    entry->record.mutable_snapshot()->set_storage_size(int64_t(usage->exclusive_bytes));
  entry->measured = true;
}

}  // namespace obraz
