// Commands on schedules of snapshots.
#include <google/protobuf/util/time_util.h>

#include "client/commands_calls.h"

namespace obraz::client {

// What create and update have in common, as far as it was given.
template <typename Request>
void Commands::describe_schedule(Request& request) const {
  request.mutable_schedule_policy()->set_expression(arguments_.every);
  if (!arguments_.start_at.empty())
    google::protobuf::util::TimeUtil::FromString(arguments_.start_at,
                                                 request.mutable_schedule_policy()->mutable_start_at());
  if (arguments_.keep_seconds > 0)
    request.set_retention_seconds(arguments_.keep_seconds);
  else if (arguments_.keep > 0)
    request.set_snapshot_count(arguments_.keep);
  request.mutable_disk_ids()->Add(arguments_.disks.begin(), arguments_.disks.end());
  request.mutable_snapshot_spec()->mutable_labels()->insert(arguments_.snapshot_labels.begin(),
                                                            arguments_.snapshot_labels.end());
  request.mutable_snapshot_spec()->set_description(arguments_.snapshot_description);
}

int Commands::schedule_create() {
  auto request = new_request<v1::CreateSnapshotScheduleRequest>();
  describe_new(request);
  request.set_name(arguments_.name);
  request.set_delete_protection(arguments_.protect);
  describe_schedule(request);
  return change<v1::SnapshotSchedule>("SnapshotScheduleService.Create", std::move(request), "created",
                                      kSchedules);
}

int Commands::schedule_list() {
  return list<v1::ListSnapshotSchedulesRequest, v1::ListSnapshotSchedulesResponse>(
      "SnapshotScheduleService.List", new_request<v1::ListSnapshotSchedulesRequest>(), kSchedules);
}

int Commands::schedule_get() {
  auto request = new_request<v1::GetSnapshotScheduleRequest>();
  request.set_snapshot_schedule_id(arguments_.target);
  return get<v1::SnapshotSchedule>("SnapshotScheduleService.Get", request);
}

// A policy is replaced as a whole, so what was not given of it is kept from what there is.
int Commands::schedule_update() {
  auto request = new_request<v1::UpdateSnapshotScheduleRequest>();
  request.set_snapshot_schedule_id(arguments_.target);
  describe_update(request);
  describe_schedule(request);
  const auto gave = [&](const char* field) {
    return std::ranges::find(arguments_.given, field) != arguments_.given.end();
  };
  const bool policy = gave("schedule_policy") && (arguments_.every.empty() || arguments_.start_at.empty());
  const bool spec = gave("snapshot_spec") &&
                    (arguments_.snapshot_labels.empty() || arguments_.snapshot_description.empty());
  if (policy || spec) {
    auto asked = new_request<v1::GetSnapshotScheduleRequest>();
    asked.set_snapshot_schedule_id(arguments_.target);
    v1::SnapshotSchedule schedule;
    if (const auto called = call("SnapshotScheduleService.Get", asked, schedule); !called)
      return refused(called.error());
    if (policy && arguments_.every.empty())
      request.mutable_schedule_policy()->set_expression(schedule.schedule_policy().expression());
    if (policy && arguments_.start_at.empty() && schedule.schedule_policy().has_start_at())
      *request.mutable_schedule_policy()->mutable_start_at() = schedule.schedule_policy().start_at();
    if (spec && arguments_.snapshot_labels.empty())
      *request.mutable_snapshot_spec()->mutable_labels() = schedule.snapshot_spec().labels();
    if (spec && arguments_.snapshot_description.empty())
      request.mutable_snapshot_spec()->set_description(schedule.snapshot_spec().description());
  }
  return change<v1::SnapshotSchedule>("SnapshotScheduleService.Update", std::move(request), "updated",
                                      kSchedules);
}

int Commands::set_schedule(bool disabled) {
  auto request = new_request<v1::UpdateSnapshotScheduleRequest>();
  request.set_snapshot_schedule_id(arguments_.target);
  request.mutable_update_mask()->add_paths("disabled");
  request.set_disabled(disabled);
  return change<v1::SnapshotSchedule>("SnapshotScheduleService.Update", std::move(request),
                                      disabled ? "disabled" : "enabled", kSchedules);
}
int Commands::schedule_enable() {
  return set_schedule(false);
}
int Commands::schedule_disable() {
  return set_schedule(true);
}

int Commands::schedule_run() {
  auto request = new_request<v1::RunSnapshotScheduleRequest>();
  request.set_snapshot_schedule_id(arguments_.target);
  return change<v1::Snapshot>("SnapshotScheduleService.Run", std::move(request), "created", kSnapshots);
}

int Commands::schedule_delete() {
  auto request = new_request<v1::DeleteSnapshotScheduleRequest>();
  request.set_snapshot_schedule_id(arguments_.target);
  return act("SnapshotScheduleService.Delete", std::move(request), "deleted");
}

}  // namespace obraz::client
