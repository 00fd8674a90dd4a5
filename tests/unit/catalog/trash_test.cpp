#include <gtest/gtest.h>

#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

using limits::MiB;

class TrashTest : public testing::Test {
 protected:
  void SetUp() override { set_window(3600); }

  void set_window(int64_t seconds) {
    v1::UpdateFolderRequest request;
    request.set_folder_id("default");
    request.mutable_update_mask()->add_paths("trash_seconds");
    request.set_trash_seconds(seconds);
    ASSERT_TRUE(done(harness.run(catalog().update_folder(kRoot, request))));
  }
  static bool done(const Answer<OperationRef>& answer) { return answer && !(*answer)->message.has_error(); }
  Catalog& catalog() { return harness.catalog(); }

  std::vector<v1::TrashedResource> trash(const Caller& caller = kRoot) {
    v1::ListTrashRequest request;
    request.set_page_size(1);  // so that tokens count
    std::vector<v1::TrashedResource> all;
    for (;;) {
      const auto page = catalog().list_trash(caller, request);
      EXPECT_TRUE(page);
      all.insert(all.end(), page->resources().begin(), page->resources().end());
      if (page->next_page_token().empty())
        return all;
      request.set_page_token(page->next_page_token());
    }
  }
  std::string names(const Caller& caller = kRoot) {
    std::string text;
    for (const auto& resource : trash(caller))
      text += (text.empty() ? "" : " ") + resource.kind() + "/" + resource.name();
    return text;
  }
  Answer<OperationRef> restore(const std::string& what, const std::string& name = "",
                               const Caller& caller = kRoot) {
    v1::RestoreRequest request;
    request.set_resource_id(what);
    request.set_name(name);
    return harness.run(catalog().restore(caller, request));
  }
  Answer<OperationRef> purge(const std::string& what) {
    v1::PurgeRequest request;
    request.set_resource_id(what);
    return harness.run(catalog().purge(kRoot, request));
  }
  Answer<OperationRef> delete_image(const std::string& name) {
    v1::DeleteImageRequest request;
    request.set_image_id(name);
    return harness.run(catalog().delete_image(kRoot, request));
  }
  v1::Folder folder() { return *catalog().get_folder(kRoot, {}); }
  google::protobuf::Timestamp in(int64_t seconds) {
    return to_timestamp((::time(nullptr) + seconds) * kNanosecondsPerSecond);
  }
  unsigned records() { return unsigned(harness.run(harness.store().resources())->size()); }

  Harness harness;
};

TEST_F(TrashTest, WhatIsDeletedIsGoneForEverybodyAndCanBeHadBack) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  v1::GetDiskRequest by_name;
  by_name.set_disk_id("vm1");
  const auto before = harness.run(catalog().get_disk(kRoot, by_name));
  ASSERT_TRUE(before);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  EXPECT_EQ(harness.disk_names(), "");
  v1::GetDiskRequest by_id;
  by_id.set_disk_id(before->id());
  EXPECT_EQ(harness.run(catalog().get_disk(kRoot, by_id)).error().code, ErrorCode::not_found);
  EXPECT_FALSE(catalog().find_export(*kRoot.subject, before->id()));
  EXPECT_FALSE(catalog().find_export(*kRoot.subject, "disk/vm1"));
  EXPECT_FALSE(harness.delete_disk(before->id()));
  EXPECT_EQ(harness.volumes(), 1u);  // its data are there
  EXPECT_EQ(names(), "disk/vm1");
  EXPECT_EQ(trash()[0].deleted_by(), "user:root");
  EXPECT_EQ(to_nanoseconds(trash()[0].purge_at()) - to_nanoseconds(trash()[0].deleted_at()),
            3600 * kNanosecondsPerSecond);
  ASSERT_TRUE(done(restore("disk/vm1")));
  EXPECT_EQ(names(), "");
  const auto after = harness.run(catalog().get_disk(kRoot, by_id));
  ASSERT_TRUE(after);
  EXPECT_EQ(after->SerializeAsString(), before->SerializeAsString());
  EXPECT_TRUE(catalog().find_export(*kRoot.subject, "disk/vm1"));
}

TEST_F(TrashTest, StaysAcrossRestarts) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.create_image("i1", "vm1", "fam")));
  ASSERT_TRUE(done(harness.create_snapshot("s1", "vm1")));
  v1::Layout layout;
  layout.set_table(v1::Layout::GPT);
  harness.run(catalog().keep_layout(catalog().next_unexamined(), layout));
  v1::SetAccessBindingsRequest access;
  access.set_resource_id("i1");
  access.add_access_bindings()->set_role_id("viewer");
  access.mutable_access_bindings(0)->set_subject("user:anna");
  ASSERT_TRUE(done(harness.run(catalog().set_access(kRoot, Kind::image, access))));
  ASSERT_TRUE(done(delete_image("i1")));
  v1::DeleteSnapshotRequest snapshot;
  snapshot.set_snapshot_id("s1");
  ASSERT_TRUE(done(harness.run(catalog().delete_snapshot(kRoot, snapshot))));
  harness.restart(true);
  EXPECT_EQ(names(), "snapshot/s1 image/i1");
  EXPECT_EQ(catalog().next_unexamined(), nullptr);
  v1::GetImageLatestByFamilyRequest latest;
  latest.set_family("fam");
  EXPECT_FALSE(harness.run(catalog().get_latest(kRoot, latest)));
  ASSERT_TRUE(done(restore("image/i1")));
  ASSERT_TRUE(done(restore("snapshot/s1")));
  harness.restart(true);
  const auto image = harness.run(catalog().get_latest(kRoot, latest));
  ASSERT_TRUE(image);
  EXPECT_EQ(image->layout().table(), v1::Layout::GPT);
  v1::ListAccessBindingsRequest bindings;
  bindings.set_resource_id("i1");
  EXPECT_EQ(catalog().list_access(kRoot, Kind::image, bindings)->access_bindings_size(), 1);
  EXPECT_EQ(names(), "");
}

TEST_F(TrashTest, ItsTimeEnds) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.create_image("i1", "vm1")));
  harness.run(catalog().keep_layout(catalog().next_unexamined(), v1::Layout()));
  const unsigned kept = records();
  ASSERT_TRUE(done(harness.create_image("i2", "vm1")));
  harness.run(catalog().keep_layout(catalog().next_unexamined(), v1::Layout()));
  ASSERT_TRUE(done(delete_image("i2")));
  set_window(7200);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  EXPECT_TRUE(harness.run(catalog().purge_expired(in(3500))));
  EXPECT_EQ(names(), "disk/vm1 image/i2");
  EXPECT_TRUE(harness.run(catalog().purge_expired(in(3700))));
  EXPECT_EQ(names(), "disk/vm1");  // its window was another one
  EXPECT_EQ(harness.volumes(), 2u);
  // Of the image nothing is left: there are only operations and the usage besides what was there before.
  EXPECT_EQ(records() - kept, 6u)
      << "the usage; operations: create i2, delete i2, update, delete vm1, purge i2";
  harness.restart(true);
  EXPECT_TRUE(harness.run(catalog().purge_expired(in(7300))));
  EXPECT_EQ(names(), "");
  EXPECT_EQ(harness.volumes(), 1u);
}

TEST_F(TrashTest, ANameIsFreeAtOnceAndMayBeTakenWhenItComesBack) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  ASSERT_TRUE(done(harness.create_disk("vm1", 4 * MiB)));
  const auto refused = restore("disk/vm1");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::already_exists);
  EXPECT_EQ(refused.error().field, "name");
  EXPECT_EQ(restore("disk/vm1", "VM").error().code, ErrorCode::invalid_argument);
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  ASSERT_TRUE(done(restore("disk/vm1")));  // the one deleted last
  EXPECT_EQ(catalog().find_export(*kRoot.subject, "disk/vm1")->size_bytes, 4 * MiB);
  ASSERT_TRUE(done(restore("disk/vm1", "vm2")));
  EXPECT_EQ(harness.disk_names(), "vm1 vm2");
}

TEST_F(TrashTest, WithoutAWindowOrWhenAskedForItIsDeletedForGood) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  auto request = Harness::to_delete("vm1");
  request.set_permanently(true);
  ASSERT_TRUE(done(harness.run(catalog().delete_disk(kRoot, request))));
  EXPECT_EQ(harness.volumes(), 0u);
  set_window(0);
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  EXPECT_EQ(harness.volumes(), 0u);
  EXPECT_EQ(names(), "");
}

TEST_F(TrashTest, CountsInItsFolderUntilItIsPurged) {
  v1::UpdateFolderRequest quota;
  quota.set_folder_id("default");
  quota.mutable_update_mask()->add_paths("quota");
  quota.mutable_quota()->set_disks(1);
  ASSERT_TRUE(done(harness.run(catalog().update_folder(kRoot, quota))));
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  EXPECT_EQ(folder().used().disks(), 1);
  EXPECT_EQ(folder().used().bytes(), int64_t(8 * MiB));
  EXPECT_EQ(folder().trashed(), 1);
  EXPECT_EQ(catalog().count(Kind::disk), 0u);
  EXPECT_EQ(catalog().trashed(), 1u);
  const auto refused = harness.create_disk("vm2", 8 * MiB);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
  EXPECT_NE(refused.error().message.find("trash"), std::string::npos);
  ASSERT_TRUE(done(purge("disk/vm1")));
  EXPECT_EQ(folder().used().disks(), 0);
  EXPECT_EQ(folder().trashed(), 0);
  EXPECT_EQ(harness.volumes(), 0u);
  EXPECT_TRUE(done(harness.create_disk("vm2", 8 * MiB)));
}

TEST_F(TrashTest, AFolderWithTrashIsNotEmpty) {
  v1::CreateFolderRequest create;
  create.set_name("f");
  create.set_trash_seconds(60);
  ASSERT_TRUE(done(harness.run(catalog().create_folder(kRoot, create))));
  v1::CreateDiskRequest disk;
  disk.set_name("vm1");
  disk.set_folder_id("f");
  disk.set_size(4 * MiB);
  ASSERT_TRUE(done(harness.run(catalog().create_disk(kRoot, disk))));
  auto request = Harness::to_delete("vm1");
  request.set_folder_id("f");
  ASSERT_TRUE(done(harness.run(catalog().delete_disk(kRoot, request))));
  v1::DeleteFolderRequest remove;
  remove.set_folder_id("f");
  const auto refused = harness.run(catalog().delete_folder(kRoot, remove));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("1 of them in the trash"), std::string::npos);
  EXPECT_TRUE(harness.run(catalog().purge_expired(in(120))));
  EXPECT_TRUE(done(harness.run(catalog().delete_folder(kRoot, remove))));
}

TEST_F(TrashTest, WhatCannotBeIsRefused) {
  for (const int64_t wrong : {int64_t(-1), limits::kMaxTrashSeconds + 1}) {
    v1::UpdateFolderRequest request;
    request.set_folder_id("default");
    request.mutable_update_mask()->add_paths("trash_seconds");
    request.set_trash_seconds(wrong);
    EXPECT_EQ(harness.run(catalog().update_folder(kRoot, request)).error().field, "trash_seconds");
  }
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  EXPECT_EQ(restore("").error().code, ErrorCode::invalid_argument);
  for (const char* wrong : {"disk/vm1", "vm1", "disk", "disk/", "folder/default", "10000000000000000000"}) {
    EXPECT_EQ(restore(wrong).error().code, ErrorCode::not_found) << wrong;
    EXPECT_EQ(purge(wrong).error().field, "resource_id") << wrong;
  }
  v1::ListTrashRequest list;
  list.set_page_token("x");
  EXPECT_EQ(catalog().list_trash(kRoot, list).error().field, "page_token");
}

TEST_F(TrashTest, OnlyWhoMayChangeAThingHasItBack) {
  const Caller anna{std::make_shared<const Subject>(Subject{"user:anna", {}, false}), "", 0};
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.create_disk("vm2", 8 * MiB)));
  v1::SetAccessBindingsRequest access;
  access.set_resource_id("vm1");
  access.add_access_bindings()->set_subject("user:anna");
  access.mutable_access_bindings(0)->set_role_id("viewer");
  ASSERT_TRUE(done(harness.run(catalog().set_access(kRoot, Kind::disk, access))));
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  ASSERT_TRUE(done(harness.delete_disk("vm2")));
  EXPECT_EQ(names(anna), "disk/vm1");
  EXPECT_EQ(restore("disk/vm1", "", anna).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(restore("disk/vm2", "", anna).error().code, ErrorCode::not_found);
}

TEST_F(TrashTest, OfTwoWhoWantItOneHasIt) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(done(harness.delete_disk("vm1")));
  v1::RestoreRequest back;
  back.set_resource_id("disk/vm1");
  v1::PurgeRequest away;
  away.set_resource_id("disk/vm1");
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  calls.push_back(catalog().restore(kRoot, back));
  calls.push_back(catalog().purge(kRoot, away));
  calls.push_back(harness.catalog().create_disk(kRoot, [] {
    v1::CreateDiskRequest request;
    request.set_name("vm1");
    request.set_size(4 * MiB);
    return request;
  }()));
  const auto answers = harness.run_together(std::move(calls));
  EXPECT_TRUE(done(answers[0]));
  ASSERT_FALSE(answers[1]);
  EXPECT_EQ(answers[1].error().code, ErrorCode::failed_precondition);
  ASSERT_FALSE(answers[2]);
  EXPECT_EQ(answers[2].error().code, ErrorCode::already_exists);  // the name is promised
  EXPECT_EQ(harness.disk_names(), "vm1");
}

TEST_F(TrashTest, ForceSendsClientsAwayFirst) {
  ASSERT_TRUE(done(harness.create_disk("vm1", 8 * MiB)));
  const auto found = catalog().find_export(*kRoot.subject, "disk/vm1");
  ASSERT_TRUE(catalog().attach(found->resource_id, 1, {"user:root", "one", false}));
  ASSERT_TRUE(catalog().attach(found->resource_id, 2, {"user:root", "two", false}));
  unsigned asked = 0;
  catalog().on_disconnect([&](VolumeId volume) -> boost::asio::awaitable<void> {
    EXPECT_EQ(volume, found->volume);
    // While they go nobody comes.
    EXPECT_FALSE(catalog().attach(found->resource_id, 3, {"user:root", "three", false}));
    catalog().detach(found->resource_id, ++asked);  // the second is not in transmission yet the first time
    co_return;
  });
  auto request = Harness::to_delete("vm1");
  EXPECT_FALSE(harness.run(catalog().delete_disk(kRoot, request)));
  request.set_force(true);
  EXPECT_TRUE(done(harness.run(catalog().delete_disk(kRoot, request))));
  EXPECT_EQ(asked, 2u);
  EXPECT_EQ(catalog().attachments(), 0u);
  EXPECT_EQ(names(), "disk/vm1");
}

}  // namespace
}  // namespace obraz::test
