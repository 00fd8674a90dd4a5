#include "catalog/usage.h"

#include <gtest/gtest.h>

#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

using limits::GiB;
using limits::MiB;
using limits::TiB;
constexpr int64_t kSecond = kNanosecondsPerSecond, kHour = 3600 * kSecond;

int64_t instant(const char* month, int64_t seconds) {
  return begin_of_month(*parse_month(month)) + seconds * kSecond;
}

TEST(UsageMonths, AreThoseOfTheCalendar) {
  EXPECT_EQ(parse_month("1970-01"), 0);
  EXPECT_EQ(parse_month("2026-11"), 56 * 12 + 10);
  EXPECT_EQ(begin_of_month(0), 0);
  EXPECT_EQ(begin_of_month(*parse_month("2000-03")), 951'868'800 * kSecond);
  for (const char* text : {"1970-01", "1999-12", "2000-02", "2026-11", "2261-12"}) {
    const int month = *parse_month(text);
    EXPECT_EQ(format_month(month), text);
    EXPECT_EQ(month_of(begin_of_month(month)), month);
    EXPECT_EQ(month_of(begin_of_month(month) - 1), month == 0 ? 0 : month - 1);
  }
  for (const char* wrong : {"", "2026", "2026-1", "2026-13", "2026-00", "2026/11", "20x6-11", "1969-12",
                            "2262-01", "2026-11-01", "-026-11"})
    EXPECT_EQ(parse_month(wrong), std::nullopt) << wrong;
}

TEST(UsageRowsTest, APeriodIsCutAtMonths) {
  UsageRows rows;
  rows.add(Kind::disk, v1::Os::LINUX, {GiB, 512 * MiB, 256 * MiB}, instant("2026-11", -10),
           instant("2027-01", 5));
  ASSERT_EQ(rows.all().size(), 4u);
  const auto of = [&](const char* month) {
    return rows.all().at({*parse_month(month), Kind::disk, v1::Os::LINUX});
  };
  EXPECT_EQ(of("2026-10"), (UsageAmounts{10'000, 10'240, 5120, 2560}));
  EXPECT_EQ(of("2026-11").milliseconds, 30 * 86'400'000LL);
  EXPECT_EQ(of("2026-12").milliseconds, 31 * 86'400'000LL);
  EXPECT_EQ(of("2027-01"), (UsageAmounts{5000, 5120, 2560, 1280}));
}

TEST(UsageRowsTest, NoTimeIsNothing) {
  UsageRows rows;
  rows.add(Kind::disk, v1::Os::LINUX, {GiB, 0, 0}, 5, 5);
  rows.add(Kind::disk, v1::Os::LINUX, {GiB, 0, 0}, 6, 5);
  EXPECT_TRUE(rows.all().empty());
}

TEST(UsageRowsTest, HoldsAMonthOfTheLargestStore) {
  UsageRows rows;
  for (int i = 0; i < 1000; ++i)  // a thousandth of the volumes that there can be
    rows.add(Kind::disk, v1::Os::LINUX, {4 * TiB, 64 * TiB / (1 << 20), 4 * TiB}, instant("2026-12", 0),
             instant("2027-01", 0));
  const UsageAmounts& sum = rows.all().begin()->second;
  constexpr int64_t kSeconds = 31 * 86'400;
  EXPECT_EQ(sum.virtual_mib_seconds, 1000 * kSeconds * int64_t(4 * TiB / MiB));
  EXPECT_LT(sum.virtual_mib_seconds, INT64_MAX / 800);
}

TEST(UsageRowsTest, OldMonthsAreForgottenAndWrongRowsPassedOver) {
  UsageRows rows;
  rows.add(Kind::image, v1::Os::WINDOWS, {GiB, 0, 0}, instant("2020-01", 0), instant("2026-11", 60));
  rows.forget_before(instant("2026-11", 60));
  ASSERT_EQ(rows.all().size(), size_t(limits::kUsageMonths));
  EXPECT_EQ(rows.all().begin()->first.month, *parse_month("2024-11"));
  v1::UsageRecord record;
  rows.write(record);
  EXPECT_LT(record.ByteSizeLong(), limits::kMaxResourceSize / 8);  // six such rows a month are the most
  for (const auto& [field, value] : {std::pair{1, -1}, {1, 1 << 30}, {2, 0}, {2, 4}, {4, -1}}) {
    v1::UsageRecord::Row& row = *record.add_rows();
    row.set_month(field == 1 ? value : 5);
    row.set_kind(field == 2 ? value : 1);
    row.mutable_os()->set_type(v1::Os::LINUX);
    row.set_milliseconds(field == 4 ? value : 1);
  }
  record.add_rows()->set_kind(1);  // without a type
  UsageRows again;
  again.read(record);
  EXPECT_EQ(again.all(), rows.all());
}

class UsageTest : public testing::Test {
 protected:
  void SetUp() override { at(0); }

  // So many seconds after the beginning of November.
  void at(int64_t seconds) { harness.set_time(instant(kMonth, seconds)); }
  Catalog& catalog() { return harness.catalog(); }
  static bool done(const Answer<OperationRef>& answer) { return answer && !(*answer)->message.has_error(); }

  Answer<v1::GetUsageResponse> ask(const std::string& folder = "", const Caller& caller = kRoot) {
    v1::GetUsageRequest request;
    request.set_folder_id(folder);
    return catalog().get_usage(caller, request);
  }
  // Of one kind and type this month, or of another: seconds, GiB seconds.
  v1::UsageAmounts of(const std::string& kind, v1::Os::Type os = v1::Os::LINUX,
                      const std::string& month = kMonth) {
    const auto usage = ask();
    EXPECT_TRUE(usage);
    for (const v1::UsageRow& row : usage->rows())
      if (row.kind() == kind && row.os().type() == os && row.month() == month)
        return row.amounts();
    return {};
  }
  Answer<OperationRef> resize(const std::string& name, int64_t size) {
    v1::ResizeDiskRequest request;
    request.set_disk_id(name);
    request.set_size(size);
    return harness.run(catalog().resize_disk(kRoot, request));
  }
  Answer<OperationRef> set_os(const std::string& name, v1::Os::Type type) {
    v1::UpdateDiskRequest request;
    request.set_disk_id(name);
    request.mutable_update_mask()->add_paths("os");
    request.mutable_os()->set_type(type);
    return harness.run(catalog().update_disk(kRoot, request));
  }

  static constexpr const char* kMonth = "2040-11";
  Harness harness;
};

TEST_F(UsageTest, CountsFromTheCreationToTheDeletion) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 16 * MiB)));
  at(100);
  EXPECT_EQ(of("disk").resource_seconds(), 100);
  EXPECT_EQ(of("disk").virtual_mib_seconds(), 1600);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  at(1000);
  EXPECT_EQ(of("disk").resource_seconds(), 100);
  EXPECT_EQ(of("disk").virtual_mib_seconds(), 1600);
  EXPECT_EQ(of("image").resource_seconds(), 0);
}

TEST_F(UsageTest, AnotherSizeOrTypeCountsFromThenOn) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 16 * MiB)));
  at(100);
  ASSERT_TRUE(done(resize("vm1", 32 * MiB)));
  at(110);
  EXPECT_EQ(of("disk").virtual_mib_seconds(), 1600 + 320);
  ASSERT_TRUE(done(set_os("vm1", v1::Os::WINDOWS)));
  at(130);
  EXPECT_EQ(of("disk").resource_seconds(), 110);
  EXPECT_EQ(of("disk", v1::Os::WINDOWS).resource_seconds(), 20);
  EXPECT_EQ(of("disk", v1::Os::WINDOWS).virtual_mib_seconds(), 640);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  at(1000);
  EXPECT_EQ(of("disk").virtual_mib_seconds(), 1600 + 320);
  EXPECT_EQ(of("disk", v1::Os::WINDOWS).virtual_mib_seconds(), 640);
}

TEST_F(UsageTest, ACrashLosesNothingAndTheTimeOfRestIsTimeToo) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 16 * MiB)));
  ASSERT_TRUE(done(harness.create_disk("vm2", 16 * MiB)));
  at(10);
  ASSERT_TRUE(done(harness.delete_disk("vm2")));
  at(100);
  harness.restart(true);
  at(200);
  EXPECT_EQ(of("disk").resource_seconds(), 210);
  harness.run(catalog().count_usage(false));
  EXPECT_EQ(of("disk").resource_seconds(), 210);  // whether it is counted together or apart
  harness.restart(true);
  at(300);
  EXPECT_EQ(of("disk").resource_seconds(), 310);
  EXPECT_EQ(of("disk").virtual_mib_seconds(), 310 * 16);
}

TEST_F(UsageTest, AClockThatGoesBackTakesNothingAway) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 16 * MiB)));
  at(100);
  EXPECT_EQ(of("disk").resource_seconds(), 100);
  harness.run(catalog().count_usage(false));
  at(50);
  EXPECT_EQ(of("disk").resource_seconds(), 100);
  harness.restart(true);
  EXPECT_EQ(of("disk").resource_seconds(), 100);
  at(120);
  EXPECT_EQ(of("disk").resource_seconds(), 120);
}

TEST_F(UsageTest, SharedAndExclusiveBytesCountFromTheRoundBefore) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 64 * MiB)));
  at(10);
  harness.run(catalog().count_usage(false));
  EXPECT_EQ(of("disk").exclusive_mib_seconds(), 0);
  harness.write("disk/vm1", 0, 3 * MiB);
  at(20);
  EXPECT_EQ(of("disk").exclusive_mib_seconds(), 0);  // nobody has looked
  harness.run(catalog().count_usage(false));
  EXPECT_EQ(of("disk").exclusive_mib_seconds(), 30);
  ASSERT_TRUE(done(harness.create_snapshot("s1", "vm1")));
  at(30);
  harness.run(catalog().count_usage(false));
  EXPECT_EQ(of("disk").exclusive_mib_seconds(), 30);
  EXPECT_EQ(of("disk").shared_mib_seconds(), 30);
  EXPECT_EQ(of("snapshot").shared_mib_seconds(), 30);
  at(40);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  at(50);
  EXPECT_EQ(of("disk").shared_mib_seconds(), 60);
  harness.restart(true);
  EXPECT_EQ(of("disk").shared_mib_seconds(), 60);
}

TEST_F(UsageTest, MonthsAreApart) {
  at(-100);
  ASSERT_TRUE(done(harness.create_disk("vm1", 16 * MiB)));
  at(50);
  EXPECT_EQ(of("disk", v1::Os::LINUX, "2040-10").resource_seconds(), 100);
  EXPECT_EQ(of("disk").resource_seconds(), 50);
  v1::GetUsageRequest request;
  request.set_from_month("2040-11");
  EXPECT_EQ(catalog().get_usage(kRoot, request)->rows_size(), 1);
  request.set_from_month("");
  request.set_to_month("2040-10");
  EXPECT_EQ(catalog().get_usage(kRoot, request)->rows_size(), 1);
  request.set_to_month("October");
  EXPECT_EQ(catalog().get_usage(kRoot, request).error().field, "to_month");
}

TEST_F(UsageTest, TheTrashIsUsedToo) {
  v1::UpdateFolderRequest window;
  window.set_folder_id("default");
  window.mutable_update_mask()->add_paths("trash_seconds");
  window.set_trash_seconds(1000);
  ASSERT_TRUE(done(harness.run(catalog().update_folder(kRoot, window))));
  ASSERT_TRUE(done(harness.create_disk("vm1", 16 * MiB)));
  at(10);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  at(500);
  EXPECT_TRUE(harness.run(catalog().purge_expired(to_timestamp(instant(kMonth, 500)))));
  EXPECT_EQ(catalog().trashed(), 1u);
  EXPECT_EQ(of("disk").resource_seconds(), 500);
  at(1011);
  EXPECT_TRUE(harness.run(catalog().purge_expired(to_timestamp(instant(kMonth, 1011)))));
  EXPECT_EQ(catalog().trashed(), 0u);
  at(2000);
  EXPECT_EQ(of("disk").resource_seconds(), 1011);
}

TEST_F(UsageTest, AFolderThatIsGoneIsKnownToRootUntilItIsTooOld) {
  v1::CreateFolderRequest create;
  create.set_name("f");
  ASSERT_TRUE(done(harness.run(catalog().create_folder(kRoot, create))));
  const std::string id = catalog()
                             .get_folder(kRoot,
                                         [] {
                                           v1::GetFolderRequest request;
                                           request.set_folder_id("f");
                                           return request;
                                         }())
                             ->id();
  v1::CreateDiskRequest disk;
  disk.set_name("vm1");
  disk.set_folder_id("f");
  disk.set_size(4 * MiB);
  ASSERT_TRUE(done(harness.run(catalog().create_disk(kRoot, disk))));
  const Caller anna{std::make_shared<const Subject>(Subject{"user:anna", {}, false}), "", 0};
  EXPECT_EQ(ask("f", anna).error().code, ErrorCode::not_found);
  EXPECT_EQ(ask("", anna)->rows_size(), 0);
  at(60);
  auto remove = Harness::to_delete("vm1");
  remove.set_folder_id("f");
  ASSERT_TRUE(done(harness.run(catalog().delete_disk(kRoot, remove))));
  v1::DeleteFolderRequest remove_folder;
  remove_folder.set_folder_id("f");
  ASSERT_TRUE(done(harness.run(catalog().delete_folder(kRoot, remove_folder))));
  harness.restart(true);
  EXPECT_EQ(ask("f").error().code, ErrorCode::not_found);
  ASSERT_TRUE(ask(id));
  EXPECT_EQ(ask(id)->rows(0).folder_name(), "f");
  EXPECT_EQ(ask(id)->rows(0).amounts().resource_seconds(), 60);
  EXPECT_EQ(ask(id, anna).error().code, ErrorCode::not_found);
  harness.set_time(instant("2042-12", 0));
  harness.restart();
  EXPECT_EQ(ask(id).error().code, ErrorCode::not_found);
  const auto resources = harness.run(harness.store().resources());
  for (const auto& [key, value] : *resources)
    EXPECT_FALSE(key.starts_with("usage/")) << key;
}

TEST_F(UsageTest, ManyFoldersComeInPages) {
  for (int i = 0; i < 3; ++i) {
    v1::CreateFolderRequest create;
    create.set_name("f" + std::to_string(i));
    ASSERT_TRUE(done(harness.run(catalog().create_folder(kRoot, create))));
    v1::CreateDiskRequest disk;
    disk.set_name("vm1");
    disk.set_folder_id(create.name());
    disk.set_size(4 * MiB);
    ASSERT_TRUE(done(harness.run(catalog().create_disk(kRoot, disk))));
  }
  at(10);
  const auto all = ask();
  ASSERT_EQ(all->rows_size(), 3);
  EXPECT_TRUE(all->next_page_token().empty());
  v1::GetUsageRequest rest;
  rest.set_page_token(all->rows(1).folder_id());
  const auto page = catalog().get_usage(kRoot, rest);
  ASSERT_EQ(page->rows_size(), 2);
  EXPECT_EQ(page->rows(0).folder_id(), all->rows(1).folder_id());
}

}  // namespace
}  // namespace obraz::test
