#include <gtest/gtest.h>

#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

using limits::MiB;
constexpr int64_t kDay = 86'400;
constexpr int64_t kStart =
    2'240'524'800;  // 2040-12-31 00:00:00, a Monday: later than any clock that runs this

class ScheduleTest : public testing::Test {
 protected:
  ScheduleTest() {
    at(0);
    EXPECT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
    EXPECT_TRUE(done(harness.create_disk("vm2", 4 * MiB)));
  }

  // Seconds after kStart.
  void at(int64_t seconds) { harness.set_time((kStart + seconds) * kNanosecondsPerSecond); }
  void run_due(int64_t seconds) {
    at(seconds);
    EXPECT_TRUE(
        harness.run(catalog().run_due_schedules(to_timestamp((kStart + seconds) * kNanosecondsPerSecond))));
    settle();
  }
  // What goes on in the background looks at a schedule that has changed, too: here, before the next step.
  void settle() { harness.context().poll(); }
  Catalog& catalog() { return harness.catalog(); }
  static bool done(const Answer<OperationRef>& answer) { return answer && !(*answer)->message.has_error(); }

  static v1::CreateSnapshotScheduleRequest daily(const std::string& name,
                                                 std::vector<std::string> disks = {"vm1"}) {
    v1::CreateSnapshotScheduleRequest request;
    request.set_name(name);
    request.mutable_schedule_policy()->set_expression("0 3 * * *");
    for (const std::string& disk : disks)
      request.add_disk_ids(disk);
    return request;
  }
  Answer<OperationRef> create(const v1::CreateSnapshotScheduleRequest& request) {
    auto answer = harness.run(catalog().create_schedule(kRoot, request));
    settle();
    return answer;
  }
  template <typename Change>
  Answer<OperationRef> update(const std::string& field, Change change) {
    v1::UpdateSnapshotScheduleRequest request;
    request.set_snapshot_schedule_id("daily");
    request.mutable_update_mask()->add_paths(field);
    change(request);
    auto answer = harness.run(catalog().update_schedule(kRoot, request));
    settle();
    return answer;
  }
  v1::SnapshotSchedule get(const std::string& name = "daily") {
    v1::GetSnapshotScheduleRequest request;
    request.set_snapshot_schedule_id(name);
    const auto schedule = catalog().get_schedule(kRoot, request);
    EXPECT_TRUE(schedule);
    return schedule.value_or(v1::SnapshotSchedule());
  }
  int64_t next_run() { return get().next_run_at().seconds() - kStart; }
  // Names, by name.
  std::string snapshots() {
    std::string names;
    const auto listed = catalog().list_snapshots(kRoot, {});
    for (const auto& snapshot : listed->snapshots())
      names += (names.empty() ? "" : " ") + (snapshot.name().empty() ? "-" : snapshot.name());
    return names;
  }
  ErrorCode refused(const v1::CreateSnapshotScheduleRequest& request, const std::string& field) {
    const auto answer = create(request);
    EXPECT_FALSE(answer);
    if (answer)
      return ErrorCode::io;
    EXPECT_EQ(answer.error().field, field) << answer.error().message;
    return answer.error().code;
  }

  Harness harness;
};

TEST_F(ScheduleTest, RunsWhenItIsDueAndNotBefore) {
  ASSERT_TRUE(done(create(daily("daily"))));
  EXPECT_EQ(next_run(), 3 * 3600);
  run_due(3 * 3600 - 1);
  EXPECT_EQ(snapshots(), "");
  run_due(3 * 3600);
  EXPECT_EQ(snapshots(), "daily-20401231-0300");
  EXPECT_EQ(next_run(), kDay + 3 * 3600);
  run_due(3 * 3600 + 60);
  EXPECT_EQ(snapshots(), "daily-20401231-0300");
  run_due(kDay + 3 * 3600 + 5);
  EXPECT_EQ(snapshots(), "daily-20401231-0300 daily-20410101-0300");
}

TEST_F(ScheduleTest, AllDisksAreOfOneInstantAndSayWhereTheyComeFrom) {
  auto request = daily("daily", {"vm1", "vm2"});
  request.mutable_snapshot_spec()->set_description("of the night");
  (*request.mutable_snapshot_spec()->mutable_labels())["kind"] = "nightly";
  ASSERT_TRUE(done(create(request)));
  run_due(kDay);
  const auto listed = catalog().list_snapshots(kRoot, {});
  ASSERT_EQ(listed->snapshots_size(), 2);
  for (const auto& snapshot : listed->snapshots()) {
    EXPECT_EQ(snapshot.schedule_id(), get().id());
    EXPECT_EQ(snapshot.description(), "of the night");
    EXPECT_EQ(snapshot.labels().at("kind"), "nightly");
    EXPECT_EQ(snapshot.created_by(), "obrazd");
  }
  EXPECT_EQ(snapshots(), "daily-20410101-0000-1 daily-20410101-0000-2");
}

TEST_F(ScheduleTest, WhatWasMissedIsMadeUpForOnce) {
  ASSERT_TRUE(done(create(daily("daily"))));
  harness.restart(true);
  run_due(10 * kDay);
  EXPECT_EQ(snapshots(), "daily-20410110-0000");
  EXPECT_EQ(next_run(), 10 * kDay + 3 * 3600);
  harness.restart(false);  // like kill -9
  run_due(10 * kDay + 60);
  EXPECT_EQ(snapshots(), "daily-20410110-0000");
  EXPECT_EQ(get().last_run_at().seconds() - kStart, 10 * kDay);
}

TEST_F(ScheduleTest, TheNewestAreKept) {
  auto request = daily("daily", {"vm1", "vm2"});
  request.set_snapshot_count(2);
  ASSERT_TRUE(done(create(request)));
  v1::CreateSnapshotsRequest own;
  own.add_snapshots()->set_disk_id("vm1");
  own.mutable_snapshots(0)->set_name("mine");
  ASSERT_TRUE(done(harness.run(catalog().create_snapshots(kRoot, own))));
  for (int day = 1; day <= 4; ++day)
    run_due(day * kDay);
  EXPECT_EQ(snapshots(),
            "daily-20410103-0000-1 daily-20410103-0000-2 daily-20410104-0000-1 daily-20410104-0000-2 mine");
  ASSERT_TRUE(done(update("retention_policy", [](auto& change) { change.set_snapshot_count(1); })));
  run_due(5 * kDay);
  EXPECT_EQ(snapshots(), "daily-20410105-0000-1 daily-20410105-0000-2 mine");
  ASSERT_TRUE(done(update("retention_policy", [](auto&) {})));
  run_due(6 * kDay);
  EXPECT_EQ(catalog().list_snapshots(kRoot, {})->snapshots_size(), 5);
}

TEST_F(ScheduleTest, OldOnesGoPastTheTrashAndProtectedOnesStay) {
  v1::UpdateFolderRequest window;
  window.set_folder_id("default");
  window.mutable_update_mask()->add_paths("trash_seconds");
  window.set_trash_seconds(kDay);
  ASSERT_TRUE(done(harness.run(catalog().update_folder(kRoot, window))));
  auto request = daily("daily");
  request.set_retention_seconds(2 * kDay);
  ASSERT_TRUE(done(create(request)));
  run_due(1 * kDay);
  v1::UpdateSnapshotRequest protect;
  protect.set_snapshot_id("daily-20410101-0000");
  protect.mutable_update_mask()->add_paths("delete_protection");
  protect.set_delete_protection(true);
  ASSERT_TRUE(done(harness.run(catalog().update_snapshot(kRoot, protect))));
  run_due(2 * kDay);
  run_due(3 * kDay);
  run_due(4 * kDay);
  EXPECT_EQ(snapshots(), "daily-20410101-0000 daily-20410103-0000 daily-20410104-0000");
  EXPECT_EQ(catalog().trashed(), 0u);
}

TEST_F(ScheduleTest, DisabledItDoesNothingAndEnabledItMakesUpForNothing) {
  ASSERT_TRUE(done(create(daily("daily"))));
  ASSERT_TRUE(done(update("disabled", [](auto& change) { change.set_disabled(true); })));
  EXPECT_FALSE(get().has_next_run_at());
  run_due(5 * kDay);
  EXPECT_EQ(snapshots(), "");
  at(5 * kDay + 4 * 3600);
  ASSERT_TRUE(done(update("disabled", [](auto&) {})));
  EXPECT_EQ(next_run(), 6 * kDay + 3 * 3600);
  run_due(5 * kDay + 5 * 3600);
  EXPECT_EQ(snapshots(), "");
}

TEST_F(ScheduleTest, NothingIsMadeBeforeItsStart) {
  auto request = daily("daily");
  request.mutable_schedule_policy()->mutable_start_at()->set_seconds(kStart + 3 * kDay + 3 * 3600);
  ASSERT_TRUE(done(create(request)));
  EXPECT_EQ(next_run(), 3 * kDay + 3 * 3600);  // the start itself counts
}

TEST_F(ScheduleTest, ARunByHandIsARunToo) {
  auto request = daily("daily");
  request.set_snapshot_count(1);
  ASSERT_TRUE(done(create(request)));
  v1::RunSnapshotScheduleRequest now;
  now.set_snapshot_schedule_id("daily");
  at(60);
  const auto made = harness.run(catalog().run_schedule(kRoot, now));
  ASSERT_TRUE(done(made));
  EXPECT_EQ(catalog().view(*kRoot.subject, **made).response().snapshots_size(), 1);
  EXPECT_EQ(snapshots(), "daily-20401231-0001");
  // A second one in the same minute has no name of its own left; the first is no longer kept.
  ASSERT_TRUE(done(harness.run(catalog().run_schedule(kRoot, now))));
  EXPECT_EQ(snapshots(), "-");
  EXPECT_EQ(next_run(), 3 * 3600);
}

TEST_F(ScheduleTest, DisksThatAreGoneAreTold) {
  ASSERT_TRUE(done(create(daily("daily", {"vm1", "vm2"}))));
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  run_due(kDay);
  EXPECT_EQ(snapshots(), "daily-20410101-0000-2");
  EXPECT_EQ(get().last_error(), "1 of its 2 disks are not there any more");
  ASSERT_TRUE(done(harness.delete_disk("vm2")));
  run_due(2 * kDay);
  EXPECT_EQ(snapshots(), "daily-20410101-0000-2");
  EXPECT_NE(get().last_error().find("none is there any more"), std::string::npos) << get().last_error();
  EXPECT_EQ(next_run(), 2 * kDay + 3 * 3600);  // it is not tried again at once
  ASSERT_TRUE(done(harness.create_disk("vm3", 4 * MiB)));
  ASSERT_TRUE(done(update("disk_ids", [](auto& change) { change.add_disk_ids("vm3"); })));
  run_due(3 * kDay);
  EXPECT_EQ(get().last_error(), "");
}

TEST_F(ScheduleTest, WhatStandsInTheWayForAMomentIsWaitedFor) {
  v1::UpdateFolderRequest quota;
  quota.set_folder_id("default");
  quota.mutable_update_mask()->add_paths("quota");
  quota.mutable_quota()->set_snapshots(1);
  ASSERT_TRUE(done(create(daily("daily", {"vm1", "vm2"}))));
  ASSERT_TRUE(done(harness.run(catalog().update_folder(kRoot, quota))));
  run_due(3 * 3600);
  EXPECT_EQ(next_run(), 3 * 3600);  // still due
  EXPECT_EQ(get().last_error(), "");
  quota.mutable_quota()->set_snapshots(2);
  ASSERT_TRUE(done(harness.run(catalog().update_folder(kRoot, quota))));
  run_due(3 * 3600 + 30);
  EXPECT_EQ(catalog().list_snapshots(kRoot, {})->snapshots_size(), 2);
  run_due(kDay + 3 * 3600 + 60);  // no room, and patience has ended
  EXPECT_NE(get().last_error().find("snapshots"), std::string::npos);
  EXPECT_EQ(next_run(), 2 * kDay + 3 * 3600);
  harness.restart(true);
  EXPECT_NE(get().last_error(), "");
}

TEST_F(ScheduleTest, WhatIsWrongIsRefusedAndNothingIsThere) {
  EXPECT_EQ(refused(daily("Daily"), "name"), ErrorCode::invalid_argument);
  auto wrong = daily("daily");
  wrong.mutable_schedule_policy()->set_expression("nightly");
  EXPECT_EQ(refused(wrong, "schedule_policy.expression"), ErrorCode::invalid_argument);
  wrong = daily("daily");
  wrong.mutable_schedule_policy()->mutable_start_at()->set_seconds(-1);
  EXPECT_EQ(refused(wrong, "schedule_policy.start_at"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(daily("daily", {}), "disk_ids"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(daily("daily", std::vector<std::string>(33, "vm1")), "disk_ids"),
            ErrorCode::invalid_argument);
  EXPECT_EQ(refused(daily("daily", {"vm1", "vm1"}), "disk_ids"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused(daily("daily", {"vm9"}), "disk_ids"), ErrorCode::not_found);
  for (const int64_t count : {int64_t(0), int64_t(-1), limits::kMaxRetentionCount + 1}) {
    wrong = daily("daily");
    wrong.set_snapshot_count(count);
    EXPECT_EQ(refused(wrong, "snapshot_count"), ErrorCode::invalid_argument);
  }
  for (const int64_t seconds : {int64_t(59), limits::kMaxRetentionSeconds + 1}) {
    wrong = daily("daily");
    wrong.set_retention_seconds(seconds);
    EXPECT_EQ(refused(wrong, "retention_seconds"), ErrorCode::invalid_argument);
  }
  wrong = daily("daily");
  (*wrong.mutable_snapshot_spec()->mutable_labels())["Key"] = "x";
  EXPECT_EQ(refused(wrong, "snapshot_spec.labels"), ErrorCode::invalid_argument);
  ASSERT_TRUE(done(create(daily("daily"))));
  EXPECT_EQ(refused(daily("daily"), "name"), ErrorCode::already_exists);
  EXPECT_EQ(update("status", [](auto&) {}).error().field, "update_mask");
  EXPECT_EQ(catalog().list_schedules(kRoot, {})->snapshot_schedules_size(), 1);
}

TEST_F(ScheduleTest, ItIsDeletedItsSnapshotsStayAndItsFolderIsNotEmptyWithIt) {
  v1::CreateFolderRequest folder;
  folder.set_name("f");
  ASSERT_TRUE(done(harness.run(catalog().create_folder(kRoot, folder))));
  v1::CreateDiskRequest disk;
  disk.set_folder_id("f");
  disk.set_name("vm1");
  disk.set_size(4 * MiB);
  ASSERT_TRUE(done(harness.run(catalog().create_disk(kRoot, disk))));
  auto request = daily("daily");
  request.set_folder_id("f");
  request.set_delete_protection(true);
  ASSERT_TRUE(done(create(request)));
  auto remove_disk = Harness::to_delete("vm1");
  remove_disk.set_folder_id("f");
  ASSERT_TRUE(done(harness.run(catalog().delete_disk(kRoot, remove_disk))));
  v1::DeleteFolderRequest remove_folder;
  remove_folder.set_folder_id("f");
  EXPECT_FALSE(harness.run(catalog().delete_folder(kRoot, remove_folder)));
  v1::DeleteSnapshotScheduleRequest remove;
  remove.set_snapshot_schedule_id("daily");
  remove.set_folder_id("f");
  EXPECT_EQ(harness.run(catalog().delete_schedule(kRoot, remove)).error().code,
            ErrorCode::failed_precondition);
  v1::UpdateSnapshotScheduleRequest unprotect;
  unprotect.set_snapshot_schedule_id("daily");
  unprotect.set_folder_id("f");
  unprotect.mutable_update_mask()->add_paths("delete_protection");
  ASSERT_TRUE(done(harness.run(catalog().update_schedule(kRoot, unprotect))));
  ASSERT_TRUE(done(harness.run(catalog().delete_schedule(kRoot, remove))));
  ASSERT_TRUE(done(harness.run(catalog().delete_folder(kRoot, remove_folder))));

  ASSERT_TRUE(done(create(daily("daily"))));
  run_due(kDay);
  remove.clear_folder_id();
  ASSERT_TRUE(done(harness.run(catalog().delete_schedule(kRoot, remove))));
  run_due(2 * kDay);
  EXPECT_EQ(snapshots(), "daily-20410101-0000");
  harness.restart(true);
  EXPECT_EQ(catalog().list_schedules(kRoot, {})->snapshot_schedules_size(), 0);
}

}  // namespace
}  // namespace obraz::test
