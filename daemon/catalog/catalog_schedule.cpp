// Catalog: schedules of snapshots. When one is due follows from its expression and from when it ran last,
// which is durable together with the snapshots of that run: so no run is done twice, and one that was missed
// while the daemon did not run is made up for once, at the start. A run is one call that makes snapshots like
// any other; what it no longer keeps is deleted after it, one by one, past the trash.
#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <ctime>

#include "base/limits.h"
#include "base/log.h"
#include "catalog/catalog.h"
#include "catalog/codes.h"
#include "catalog/cron.h"
#include "catalog/rules.h"
#include "catalog/update_fields.h"

namespace obraz {
namespace {

constexpr auto kLongestWait = std::chrono::minutes(10);  // the clock may be set meanwhile
constexpr auto kShortestWait = std::chrono::seconds(1);
// A disk that is being changed, say, is waited for; what still stands in the way then is told.
constexpr int64_t kPatience = 60 * kNanosecondsPerSecond;
constexpr size_t kNameRoom =
    44;  // of the schedule's name in those of its snapshots; the rest is for when and which

// daily-20261130-0300, or daily-20261130-0300-2 for the second of several disks.
std::string snapshot_name(const v1::SnapshotSchedule& schedule, const google::protobuf::Timestamp& now,
                          int disk) {
  std::string name = schedule.name().empty() ? "snapshot" : schedule.name().substr(0, kNameRoom);
  name += fmt::format("-{:%Y%m%d-%H%M}", fmt::gmtime(std::time_t(now.seconds())));
  return schedule.disk_ids_size() == 1 ? name : name + fmt::format("-{}", disk + 1);
}

}  // namespace

std::optional<int64_t> Catalog::next_run_of(const Entry& entry) {
  const v1::SnapshotSchedule& schedule = entry.record.schedule();
  if (schedule.disabled())
    return std::nullopt;
  const auto cron = Cron::parse(schedule.schedule_policy().expression(), "");
  if (!cron)
    return std::nullopt;  // no call wrote that
  const int64_t since =
      std::max({schedule.created_at().seconds(), schedule.last_run_at().seconds(),
                entry.record.armed_at().seconds(), schedule.schedule_policy().start_at().seconds() - 1});
  const auto next = cron->next_after(since);
  return next ? std::optional(*next * kNanosecondsPerSecond) : std::nullopt;
}

v1::SnapshotSchedule Catalog::schedule_view(const Entry& entry) const {
  v1::SnapshotSchedule schedule = entry.record.schedule();
  schedule.set_status(entry.status());
  if (const auto next = next_run_of(entry))
    *schedule.mutable_next_run_at() = to_timestamp(*next);
  return schedule;
}

Answer<v1::SnapshotSchedule> Catalog::get_schedule(const Caller& caller,
                                                   const v1::GetSnapshotScheduleRequest& request) const {
  const auto entry = find_schedule(caller, Right::see, request);
  if (!entry)
    return std::unexpected(entry.error());
  return schedule_view(**entry);
}

template <typename Request>
Answer<EntryRef> Catalog::find_schedule(const Caller& caller, Right right, const Request& request) const {
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  return find(*caller.subject, right, Kind::schedule, *folder, request.snapshot_schedule_id(),
              "snapshot_schedule_id");
}

// --- deciding
// -----------------------------------------------------------------------------------------------------
template <typename Request>
Answer<void> Catalog::take_schedule(const Subject& subject, const std::string& folder, const Fields& fields,
                                    const Request& request, v1::SnapshotSchedule& schedule) const {
  if (const auto taken = take_common(fields, request, schedule); !taken)
    return taken;
  if (fields.contains("schedule_policy")) {
    const v1::SchedulePolicy& policy = request.schedule_policy();
    if (const auto cron = Cron::parse(policy.expression(), "schedule_policy.expression"); !cron)
      return std::unexpected(cron.error());
    if (policy.start_at().seconds() < 0 || policy.start_at().seconds() > INT64_MAX / kNanosecondsPerSecond ||
        policy.start_at().nanos() != 0)
      return refuse(ErrorCode::invalid_argument, "schedule_policy.start_at",
                    "start_at must be a whole second between 1970 and 2262");
    *schedule.mutable_schedule_policy() = policy;
  }
  if (fields.contains("retention_policy")) {
    switch (request.retention_policy_case()) {
      case Request::kRetentionSeconds:
        if (request.retention_seconds() < limits::kMinRetentionSeconds ||
            request.retention_seconds() > limits::kMaxRetentionSeconds)
          return refuse(ErrorCode::invalid_argument, "retention_seconds",
                        fmt::format("snapshots may be kept for {} seconds to {} days",
                                    limits::kMinRetentionSeconds, limits::kMaxRetentionSeconds / 86'400));
        schedule.set_retention_seconds(request.retention_seconds());
        break;
      case Request::kSnapshotCount:
        if (request.snapshot_count() < 1 || request.snapshot_count() > limits::kMaxRetentionCount)
          return refuse(
              ErrorCode::invalid_argument, "snapshot_count",
              fmt::format("1 to {} snapshots of each disk may be kept", limits::kMaxRetentionCount));
        schedule.set_snapshot_count(request.snapshot_count());
        break;
      default:
        schedule.clear_retention_policy();
    }
  }
  if (fields.contains("snapshot_spec")) {
    const v1::SnapshotSpec& spec = request.snapshot_spec();
    if (const auto legal = rules::check_description(spec.description()); !legal)
      return refuse(ErrorCode::invalid_argument, "snapshot_spec.description", legal.error().message);
    if (const auto legal = rules::check_labels({spec.labels().begin(), spec.labels().end()}); !legal)
      return refuse(ErrorCode::invalid_argument, "snapshot_spec.labels", legal.error().message);
    *schedule.mutable_snapshot_spec() = spec;
  }
  if (fields.contains("disk_ids")) {
    if (request.disk_ids().empty() || size_t(request.disk_ids_size()) > limits::kMaxSnapshotsPerCall)
      return refuse(ErrorCode::invalid_argument, "disk_ids",
                    fmt::format("a schedule has 1 to {} disks", limits::kMaxSnapshotsPerCall));
    schedule.clear_disk_ids();
    for (const std::string& asked : request.disk_ids()) {
      const auto disk = find(subject, Right::use, Kind::disk, folder, asked, "disk_ids");
      if (!disk)
        return std::unexpected(disk.error());
      if (std::ranges::find(schedule.disk_ids(), (*disk)->id()) != schedule.disk_ids().end())
        return refuse(ErrorCode::invalid_argument, "disk_ids",
                      fmt::format("{} is there twice", (*disk)->title()));
      schedule.add_disk_ids((*disk)->id());
    }
  }
  return {};
}

Answer<Catalog::Plan> Catalog::plan_create_schedule(const Caller& caller,
                                                    const v1::CreateSnapshotScheduleRequest& request) {
  const auto folder = folder_for_new(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  v1::SnapshotSchedule schedule;
  schedule.set_folder_id(*folder);
  const Fields all = {"name",          "description",      "labels",  "delete_protection", "schedule_policy",
                      "snapshot_spec", "retention_policy", "disk_ids"};
  if (const auto taken = take_schedule(*caller.subject, *folder, all, request, schedule); !taken)
    return std::unexpected(taken.error());
  if (const auto free = check_free(Kind::schedule, *folder, request.name(), "name"); !free)
    return std::unexpected(free.error());
  if (index_.count(Kind::schedule) >= limits::kMaxSchedules)
    return refuse(
        ErrorCode::resource_exhausted, "",
        fmt::format("there are {} schedules, and that is as many as there can be", limits::kMaxSchedules));
  Plan plan;
  plan.created.push_back(new_entry(Kind::schedule, caller, std::move(schedule)));
  plan.operation = operations_.begin(caller, "Create " + plan.created[0]->title(), {plan.created[0]->id()});
  return plan;
}

Answer<Catalog::Plan> Catalog::plan_update_schedule(const Caller& caller,
                                                    const v1::UpdateSnapshotScheduleRequest& request) {
  const auto entry = find_schedule(caller, Right::change, request);
  if (!entry)
    return std::unexpected(entry.error());
  const auto fields = rules::update_mask(
      request.update_mask(), {"name", "description", "labels", "delete_protection", "schedule_policy",
                              "retention_policy", "snapshot_spec", "disk_ids", "disabled"});
  if (!fields)
    return std::unexpected(fields.error());
  v1::ResourceRecord after = (*entry)->record;
  v1::SnapshotSchedule& schedule = *after.mutable_schedule();
  if (const auto taken = take_schedule(*caller.subject, (*entry)->folder(), *fields, request, schedule);
      !taken)
    return std::unexpected(taken.error());
  if (fields->contains("disabled"))
    schedule.set_disabled(request.disabled());
  // What came to pass while it had another policy, or none, is not made up for.
  if (fields->contains("disabled") || fields->contains("schedule_policy"))
    *after.mutable_armed_at() = clock_.next();
  return plan_update(caller, *entry, std::move(after));
}

Answer<Catalog::Plan> Catalog::plan_delete_schedule(const Caller& caller,
                                                    const v1::DeleteSnapshotScheduleRequest& request) {
  const auto entry = find_schedule(caller, Right::change, request);
  if (!entry)
    return std::unexpected(entry.error());
  if (const auto idle = check_idle(**entry, "snapshot_schedule_id"); !idle)
    return std::unexpected(idle.error());
  if (const auto allowed = check_unprotected(**entry, "snapshot_schedule_id"); !allowed)
    return std::unexpected(allowed.error());
  return plan_removal(caller, *entry, "Delete " + (*entry)->title());
}

Answer<Catalog::Plan> Catalog::plan_run(const Caller& caller, const EntryRef& entry,
                                        google::protobuf::Timestamp now) {
  if (const auto idle = check_idle(*entry, "snapshot_schedule_id"); !idle)
    return std::unexpected(idle.error());
  const v1::SnapshotSchedule& schedule = entry->record.schedule();
  v1::CreateSnapshotsRequest request;
  request.set_folder_id(schedule.folder_id());
  request.set_description(schedule.snapshot_spec().description());
  *request.mutable_labels() = schedule.snapshot_spec().labels();
  for (int i = 0; i < schedule.disk_ids_size(); ++i) {
    if (!index_.find(Kind::disk, schedule.folder_id(), schedule.disk_ids(i)))
      continue;  // it has been deleted
    v1::SnapshotOfDisk& snapshot = *request.add_snapshots();
    snapshot.set_disk_id(schedule.disk_ids(i));
    // A second run in one minute makes snapshots without names rather than none.
    if (std::string name = snapshot_name(schedule, now, i);
        !index_.is_taken(Kind::snapshot, schedule.folder_id(), name))
      snapshot.set_name(std::move(name));
  }
  if (request.snapshots().empty())
    return refuse(ErrorCode::failed_precondition, "disk_ids",
                  fmt::format("of the disks of {} none is there any more", entry->title()));
  auto plan = plan_create_snapshots(caller, request);
  if (!plan)
    return plan;
  for (const EntryRef& snapshot : plan->created)
    snapshot->record.mutable_snapshot()->set_schedule_id(entry->id());
  v1::ResourceRecord after = entry->record;
  *after.mutable_schedule()->mutable_last_run_at() = now;
  const int gone = schedule.disk_ids_size() - request.snapshots_size();
  after.mutable_schedule()->set_last_error(
      gone == 0 ? ""
                : fmt::format("{} of its {} disks are not there any more", gone, schedule.disk_ids_size()));
  reserve_change(*plan, entry, std::move(after));
  return plan;
}

// --- calls
// --------------------------------------------------------------------------------------------------------
boost::asio::awaitable<Answer<OperationRef>> Catalog::create_schedule(
    Caller caller, v1::CreateSnapshotScheduleRequest request) {
  return run(plan_create_schedule(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::update_schedule(
    Caller caller, v1::UpdateSnapshotScheduleRequest request) {
  return run(plan_update_schedule(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::delete_schedule(
    Caller caller, v1::DeleteSnapshotScheduleRequest request) {
  return run(plan_delete_schedule(caller, request));
}
boost::asio::awaitable<Answer<OperationRef>> Catalog::run_schedule(Caller caller,
                                                                   v1::RunSnapshotScheduleRequest request) {
  const auto entry = find_schedule(caller, Right::change, request);
  if (!entry)
    co_return std::unexpected(entry.error());
  const EntryRef schedule = *entry;
  const google::protobuf::Timestamp now = clock_.next();
  Answer<OperationRef> made = co_await run(plan_run(caller, schedule, now));
  if (made && !(*made)->message.has_error())
    co_await retain(schedule, now);
  co_return made;
}

// --- in the background
// --------------------------------------------------------------------------------------------
boost::asio::awaitable<void> Catalog::retain(EntryRef schedule, google::protobuf::Timestamp now) {
  const v1::SnapshotSchedule policy = schedule->record.schedule();
  if (policy.retention_policy_case() == v1::SnapshotSchedule::RETENTION_POLICY_NOT_SET)
    co_return;
  std::map<std::string, std::vector<EntryRef>> of_disks;
  index_.each(Kind::snapshot, policy.folder_id(), [&](const EntryRef& entry) {
    if (entry->record.snapshot().schedule_id() == policy.id() && entry->status() == v1::READY)
      of_disks[entry->record.snapshot().source_disk_id()].push_back(entry);
    return true;
  });
  for (auto& [disk, snapshots] : of_disks) {
    std::ranges::sort(snapshots, std::greater(), [](const EntryRef& entry) {
      return std::pair(to_nanoseconds(entry->created_at()), entry->id());
    });
    for (size_t i = 0; i < snapshots.size() && !stopping_; ++i) {
      const int64_t age = now.seconds() - snapshots[i]->created_at().seconds();
      const bool kept = policy.has_snapshot_count() ? int64_t(i) < policy.snapshot_count()
                                                    : age < policy.retention_seconds();
      if (kept)
        continue;
      // What is protected, attached or being changed stays until a later run.
      const std::string id = snapshots[i]->id(), folder = policy.folder_id();
      const auto deleted = co_await run(plan_delete(daemon_caller("SnapshotScheduleService.Expire"),
                                                    {Kind::snapshot, folder, id, "snapshot_id", true}));
      if (deleted && (*deleted)->message.has_error())
        co_return;  // the operation has the reason
    }
  }
}

boost::asio::awaitable<bool> Catalog::run_due_schedules(google::protobuf::Timestamp now) {
  std::vector<EntryRef> due;
  index_.each_of(Kind::schedule, [&](const EntryRef& entry) {
    if (const auto next = next_run_of(*entry); next && *next <= to_nanoseconds(now))
      due.push_back(entry);
  });
  for (const EntryRef& schedule : due) {
    if (stopping_)
      break;
    const int64_t waited = to_nanoseconds(now) - next_run_of(*schedule).value_or(to_nanoseconds(now));
    const auto made = co_await run(plan_run(daemon_caller("SnapshotScheduleService.Run"), schedule, now));
    if (made && (*made)->message.has_error())
      co_return false;
    if (made) {
      co_await retain(schedule, now);
    } else if (waited >= kPatience && !schedule->busy && schedule->status() == v1::READY) {
      log::warning("{}: {}", schedule->title(), made.error().message);
      v1::ResourceRecord after = schedule->record;
      *after.mutable_schedule()->mutable_last_run_at() = now;
      after.mutable_schedule()->set_last_error(made.error().message);
      schedule->busy = true;
      Transaction transaction;
      transaction.push_back(PutResource{schedule->key(), after.SerializeAsString()});
      const Status status = co_await store_.commit(std::move(transaction));
      schedule->busy = false;
      if (!status)
        co_return false;
      index_.change(schedule, std::move(after));
    }
  }
  co_return true;
}

boost::asio::awaitable<void> Catalog::keep_schedules() {
  while (!stopping_) {
    const bool good = co_await run_due_schedules(clock_.next());
    std::chrono::nanoseconds wait = kLongestWait;
    if (good) {
      const int64_t now = to_nanoseconds(clock_.next());
      index_.each_of(Kind::schedule, [&](const EntryRef& entry) {
        if (const auto next = next_run_of(*entry))
          wait = std::min(wait, std::chrono::nanoseconds(*next - now));
      });
    }
    schedule_timer_.expires_after(std::max<std::chrono::nanoseconds>(wait, kShortestWait));
    if (!stopping_)
      co_await schedule_timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }
  end_background();
}

}  // namespace obraz
