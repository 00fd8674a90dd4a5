// Folders, quotas, and changes of fields: names that move, masks, protection, families rolled back by
// marking.
#include <gtest/gtest.h>

#include <algorithm>

#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

using limits::MiB;

class FoldersTest : public testing::Test {
 protected:
  Harness harness;
  Catalog& catalog() { return harness.catalog(); }

  static bool good(const Answer<OperationRef>& operation) {
    return operation && (*operation)->message.done() && !(*operation)->message.has_error();
  }
  // "FIELD: CODE" of a refusal.
  template <typename T>
  static std::string refused(const Answer<T>& answer) {
    if (answer)
      return "not refused";
    return answer.error().field + ": " + to_string(answer.error().code);
  }
  static const char* to_string(ErrorCode code) {
    switch (code) {
      case ErrorCode::invalid_argument:
        return "invalid";
      case ErrorCode::not_found:
        return "not found";
      case ErrorCode::already_exists:
        return "exists";
      case ErrorCode::failed_precondition:
        return "precondition";
      case ErrorCode::resource_exhausted:
        return "exhausted";
      default:
        return "other";
    }
  }
  Answer<OperationRef> create_folder(const std::string& name, v1::Quota quota = {}) {
    v1::CreateFolderRequest request;
    request.set_name(name);
    *request.mutable_quota() = quota;
    return harness.run(catalog().create_folder(kRoot, request));
  }
  Answer<OperationRef> delete_folder(const std::string& name) {
    v1::DeleteFolderRequest request;
    request.set_folder_id(name);
    return harness.run(catalog().delete_folder(kRoot, request));
  }
  v1::Folder folder(const std::string& name) {
    v1::GetFolderRequest request;
    request.set_folder_id(name);
    const auto found = catalog().get_folder(kRoot, request);
    EXPECT_TRUE(found) << name;
    return found.value_or(v1::Folder());
  }
  static v1::CreateDiskRequest disk_in(const std::string& folder, const std::string& name,
                                       int64_t size = 4 * MiB) {
    v1::CreateDiskRequest request;
    request.set_folder_id(folder);
    request.set_name(name);
    request.set_size(size);
    return request;
  }
  Answer<OperationRef> create_disk(const v1::CreateDiskRequest& request) {
    return harness.run(catalog().create_disk(kRoot, request));
  }
  v1::Disk disk(const std::string& folder, const std::string& name) {
    v1::GetDiskRequest request;
    request.set_folder_id(folder);
    request.set_disk_id(name);
    const auto found = harness.run(catalog().get_disk(kRoot, request));
    EXPECT_TRUE(found) << name;
    return found.value_or(v1::Disk());
  }
  v1::Image image(const std::string& name) {
    v1::GetImageRequest request;
    request.set_image_id(name);
    const auto found = harness.run(catalog().get_image(kRoot, request));
    EXPECT_TRUE(found) << name;
    return found.value_or(v1::Image());
  }
  std::string latest(const std::string& family, const std::string& folder = "") {
    v1::GetImageLatestByFamilyRequest request;
    request.set_folder_id(folder);
    request.set_family(family);
    const auto found = harness.run(catalog().get_latest(kRoot, request));
    return found ? found->name() : refused(found);
  }
  Answer<OperationRef> mark(const std::string& name, v1::Deprecation::State state,
                            const std::string& replacement = "") {
    v1::UpdateImageRequest request;
    request.set_image_id(name);
    request.mutable_update_mask()->add_paths("deprecation");
    request.mutable_deprecation()->set_state(state);
    request.mutable_deprecation()->set_replacement_id(replacement);
    return harness.run(catalog().update_image(kRoot, request));
  }
  static v1::UpdateDiskRequest rename(const std::string& from, const std::string& to) {
    v1::UpdateDiskRequest request;
    request.set_disk_id(from);
    request.mutable_update_mask()->add_paths("name");
    request.set_name(to);
    return request;
  }
};

TEST_F(FoldersTest, TheDefaultOneIsAlwaysThere) {
  EXPECT_EQ(folder("").name(), "default");
  EXPECT_EQ(folder("default").id(), "default");
  EXPECT_EQ(refused(delete_folder("default")), "folder_id: precondition");
  EXPECT_EQ(refused(create_folder("default")), "name: exists");
  v1::UpdateFolderRequest request;
  request.mutable_update_mask()->add_paths("name");
  request.set_name("other");
  EXPECT_EQ(refused(harness.run(catalog().update_folder(kRoot, request))), "name: precondition");
  request.mutable_update_mask()->set_paths(0, "description");
  request.set_description("of all");
  EXPECT_TRUE(good(harness.run(catalog().update_folder(kRoot, request))));
  harness.restart();
  EXPECT_EQ(folder("default").description(), "of all");
}

TEST_F(FoldersTest, ANameIsTakenInItsFolderOnly) {
  ASSERT_TRUE(good(create_folder("lab")));
  EXPECT_TRUE(good(create_disk(disk_in("lab", "vm1"))));
  EXPECT_TRUE(good(create_disk(disk_in("", "vm1"))));
  EXPECT_EQ(refused(create_disk(disk_in("lab", "vm1"))), "name: exists");
  EXPECT_EQ(refused(create_disk(disk_in("nowhere", "vm1"))), "folder_id: not found");
  EXPECT_NE(disk("lab", "vm1").id(), disk("", "vm1").id());
  EXPECT_EQ(disk("lab", "vm1").folder_id(), folder("lab").id());
  EXPECT_EQ(harness.disk_names(), "vm1");
  const auto found = catalog().find_export(*kRoot.subject, "disk/lab/vm1");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->resource_id, disk("lab", "vm1").id());
  EXPECT_FALSE(catalog().find_export(*kRoot.subject, folder("lab").id())) << "a folder is no export";
}

TEST_F(FoldersTest, OneThatHasSomethingIsNotDeleted) {
  ASSERT_TRUE(good(create_folder("lab")));
  ASSERT_TRUE(good(create_disk(disk_in("lab", "vm1"))));
  EXPECT_EQ(refused(delete_folder("lab")), "folder_id: precondition");
  v1::DeleteDiskRequest remove;
  remove.set_folder_id("lab");
  remove.set_disk_id("vm1");
  ASSERT_TRUE(good(harness.run(catalog().delete_disk(kRoot, remove))));
  EXPECT_TRUE(good(delete_folder("lab")));
  EXPECT_EQ(refused(delete_folder("lab")), "folder_id: not found");
  harness.restart();
  EXPECT_EQ(refused(delete_folder("lab")), "folder_id: not found");
}

TEST_F(FoldersTest, OfACreationInItAndItsDeletionOneWins) {
  ASSERT_TRUE(good(create_folder("lab")));
  v1::DeleteFolderRequest remove;
  remove.set_folder_id("lab");
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  calls.push_back(catalog().delete_folder(kRoot, remove));
  calls.push_back(catalog().create_disk(kRoot, disk_in("lab", "vm1")));
  calls.push_back(catalog().delete_folder(kRoot, remove));
  const auto results = harness.run_together(std::move(calls));
  EXPECT_EQ(std::ranges::count_if(results, good), 1);
  harness.restart();
}

TEST_F(FoldersTest, AreThereAfterARestart) {
  v1::Quota quota;
  quota.set_disks(1);
  ASSERT_TRUE(good(create_folder("lab", quota)));
  ASSERT_TRUE(good(create_disk(disk_in("lab", "vm1"))));
  const std::string id = folder("lab").id();
  harness.restart(true);
  EXPECT_EQ(folder("lab").id(), id);
  EXPECT_EQ(folder(id).used().disks(), 1);
  EXPECT_EQ(folder(id).used().bytes(), int64_t(4 * MiB));
  EXPECT_EQ(refused(create_disk(disk_in("lab", "vm2"))), "folder_id: exhausted");
}

TEST_F(FoldersTest, AQuotaHoldsForWhatIsUnderWayToo) {
  v1::Quota quota;
  quota.set_disks(3);
  quota.set_bytes(16 * MiB);
  ASSERT_TRUE(good(create_folder("lab", quota)));
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  for (int i = 0; i < 8; ++i)
    calls.push_back(catalog().create_disk(kRoot, disk_in("lab", "vm" + std::to_string(i))));
  const auto results = harness.run_together(std::move(calls));
  EXPECT_EQ(std::ranges::count_if(results, good), 3);
  v1::ResizeDiskRequest resize;
  resize.set_folder_id("lab");
  resize.set_disk_id("vm0");
  resize.set_size(12 * MiB);
  EXPECT_EQ(refused(harness.run(catalog().resize_disk(kRoot, resize))), "folder_id: exhausted");
  resize.set_size(8 * MiB);
  EXPECT_TRUE(good(harness.run(catalog().resize_disk(kRoot, resize))));
  EXPECT_EQ(folder("lab").used().bytes(), int64_t(16 * MiB));
  quota.set_disks(-1);
  EXPECT_EQ(refused(create_folder("other", quota)), "quota: invalid");
}

TEST_F(FoldersTest, AnImageOfAnotherFolderMakesDisks) {
  ASSERT_TRUE(good(create_folder("lab")));
  ASSERT_TRUE(good(harness.create_disk("golden", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "golden", "debian")));
  auto request = disk_in("lab", "vm1", 0);
  request.set_family("debian");
  EXPECT_EQ(refused(create_disk(request)), "family: not found") << "a family is one folder's";
  request.set_source_folder_id("default");
  EXPECT_TRUE(good(create_disk(request)));
  auto by_name = disk_in("lab", "vm2", 0);
  by_name.set_image_id("i1");
  EXPECT_EQ(refused(create_disk(by_name)), "image_id: not found");
  by_name.set_image_id(image("i1").id());
  EXPECT_TRUE(good(create_disk(by_name)));
}

TEST_F(FoldersTest, ARenameMovesTheNameAndKeepsTheRest) {
  ASSERT_TRUE(good(harness.create_disk("a", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_disk("b", 8 * MiB)));
  const std::string id = disk("", "a").id();
  EXPECT_EQ(refused(harness.run(catalog().update_disk(kRoot, rename("a", "b")))), "name: exists");
  EXPECT_EQ(refused(harness.run(catalog().update_disk(kRoot, rename("a", "B")))), "name: invalid");
  EXPECT_TRUE(good(harness.run(catalog().update_disk(kRoot, rename("a", "c")))));
  EXPECT_EQ(disk("", "c").id(), id);
  EXPECT_EQ(harness.disk_names(), "b c");
  EXPECT_TRUE(good(harness.create_disk("a", 4 * MiB))) << "the name is free";
  EXPECT_TRUE(good(harness.run(catalog().update_disk(kRoot, rename("c", "c")))));
  harness.restart();
  EXPECT_EQ(disk("", "c").id(), id);
}

TEST_F(FoldersTest, OfRenamesToOneNameOneWins) {
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  for (const char* name : {"a", "b", "c"})
    ASSERT_TRUE(good(harness.create_disk(name, 4 * MiB)));
  for (const char* name : {"a", "b", "c"})
    calls.push_back(catalog().update_disk(kRoot, rename(name, "x")));
  calls.push_back(catalog().create_disk(kRoot, disk_in("", "x")));
  const auto results = harness.run_together(std::move(calls));
  EXPECT_EQ(std::ranges::count_if(results, good), 1);
  harness.restart();
  EXPECT_EQ(disk("", "x").name(), "x");
}

TEST_F(FoldersTest, AnUpdateChangesWhatItsMaskNamesAndNothingElse) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  v1::UpdateDiskRequest request;
  request.set_disk_id("vm1");
  request.set_description("new");
  (*request.mutable_labels())["k"] = "v";
  EXPECT_EQ(refused(harness.run(catalog().update_disk(kRoot, request))), "update_mask: invalid");
  request.mutable_update_mask()->add_paths("size");
  EXPECT_EQ(refused(harness.run(catalog().update_disk(kRoot, request))), "update_mask: invalid");
  request.mutable_update_mask()->set_paths(0, "labels");
  EXPECT_TRUE(good(harness.run(catalog().update_disk(kRoot, request))));
  EXPECT_EQ(disk("", "vm1").description(), "");
  EXPECT_EQ(disk("", "vm1").labels().at("k"), "v");
  request.mutable_update_mask()->set_paths(0, "os");
  EXPECT_EQ(refused(harness.run(catalog().update_disk(kRoot, request))), "os: invalid");
  request.mutable_os()->set_type(v1::Os::WINDOWS);
  EXPECT_TRUE(good(harness.run(catalog().update_disk(kRoot, request))));
  EXPECT_EQ(disk("", "vm1").os().type(), v1::Os::WINDOWS);
}

TEST_F(FoldersTest, WhatIsProtectedIsNotDeleted) {
  auto request = disk_in("", "vm1");
  request.set_delete_protection(true);
  ASSERT_TRUE(good(create_disk(request)));
  EXPECT_EQ(refused(harness.delete_disk("vm1")), "disk_id: precondition");
  v1::UpdateDiskRequest update;
  update.set_disk_id("vm1");
  update.mutable_update_mask()->add_paths("delete_protection");
  EXPECT_TRUE(good(harness.run(catalog().update_disk(kRoot, update))));
  EXPECT_TRUE(good(harness.delete_disk("vm1")));
}

TEST_F(FoldersTest, TheSystemTravelsFromDiskToSnapshotToImageToDisk) {
  auto request = disk_in("", "win");
  request.mutable_os()->set_type(v1::Os::WINDOWS);
  request.add_product_ids("product-1");
  request.set_hardware_generation(v1::GENERATION_2);
  ASSERT_TRUE(good(create_disk(request)));
  ASSERT_TRUE(good(harness.create_snapshot("s1", "win")));
  v1::CreateImageRequest from;
  from.set_name("i1");
  from.set_snapshot_id("s1");
  ASSERT_TRUE(good(harness.run(catalog().create_image(kRoot, from))));
  auto again = disk_in("", "win2", 0);
  again.set_image_id("i1");
  ASSERT_TRUE(good(create_disk(again)));
  harness.restart();
  const v1::Disk made = disk("", "win2");
  EXPECT_EQ(made.os().type(), v1::Os::WINDOWS);
  ASSERT_EQ(made.product_ids_size(), 1);
  EXPECT_EQ(made.product_ids(0), "product-1");
  EXPECT_EQ(made.hardware_generation(), v1::GENERATION_2);
  request.set_name("bad");
  request.set_product_ids(0, std::string(51, 'x'));
  EXPECT_EQ(refused(create_disk(request)), "product_ids: invalid");
}

TEST_F(FoldersTest, AFamilyIsRolledBackByMarking) {
  ASSERT_TRUE(good(harness.create_disk("golden", 4 * MiB)));
  for (const char* name : {"v1", "v2", "v3"})
    ASSERT_TRUE(good(harness.create_image(name, "golden", "debian")));
  EXPECT_EQ(latest("debian"), "v3");
  EXPECT_TRUE(good(mark("v3", v1::Deprecation::OBSOLETE, "v2")));
  EXPECT_EQ(latest("debian"), "v2");
  EXPECT_TRUE(good(mark("v2", v1::Deprecation::DEPRECATED)));
  EXPECT_EQ(latest("debian"), "v1");
  harness.restart();
  EXPECT_EQ(latest("debian"), "v1");
  auto request = disk_in("", "vm1", 0);
  request.set_image_id("v2");
  EXPECT_TRUE(good(create_disk(request))) << "deprecated ones still make disks";
  request.set_name("vm2");
  request.set_image_id("v3");
  const auto obsolete = create_disk(request);
  EXPECT_EQ(refused(obsolete), "image_id: precondition");
  EXPECT_NE(obsolete.error().message.find("use image v2"), std::string::npos) << obsolete.error().message;
  EXPECT_EQ(refused(mark("v1", v1::Deprecation::DEPRECATED, "v1")), "deprecation: invalid");
  EXPECT_EQ(refused(mark("v1", v1::Deprecation::DEPRECATED, "v9")), "deprecation: not found");
  EXPECT_TRUE(good(mark("v3", v1::Deprecation::ACTIVE)));
  EXPECT_EQ(latest("debian"), "v3");
  v1::UpdateImageRequest update;
  update.set_image_id("v3");
  update.mutable_update_mask()->add_paths("family");
  update.set_family("ubuntu");
  EXPECT_TRUE(good(harness.run(catalog().update_image(kRoot, update))));
  EXPECT_EQ(latest("debian"), "v1");
  EXPECT_EQ(latest("ubuntu"), "v3");
}

}  // namespace
}  // namespace obraz::test
