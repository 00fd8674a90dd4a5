#include "catalog/catalog.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

using limits::MiB;

class CatalogTest : public testing::Test {
 protected:
  Harness harness;
  Catalog& catalog() { return harness.catalog(); }

  // A call that was accepted and has ended well.
  static bool good(const Answer<OperationRef>& operation) {
    return operation && (*operation)->message.done() && !(*operation)->message.has_error();
  }
  static ErrorCode code(const Answer<OperationRef>& operation) { return operation.error().code; }
  v1::Disk disk(const std::string& name) {
    v1::GetDiskRequest request;
    request.set_disk_id(name);
    const auto disk = harness.run(catalog().get_disk(kRoot, request));
    EXPECT_TRUE(disk) << name;
    return disk.value_or(v1::Disk());
  }
  Answer<ImportTicket> begin_import(const std::string& name) {
    v1::ImportImageRequest request;
    request.set_name(name);
    request.set_source("/source");
    return catalog().begin_import(kRoot, request);
  }
};

TEST_F(CatalogTest, ADiskThatWasCreatedIsThere) {
  v1::CreateDiskRequest request;
  request.set_name("vm1");
  request.set_size(5 * MiB);
  request.set_description("of the test");
  (*request.mutable_labels())["k"] = "v";
  const auto created = harness.run(catalog().create_disk(kRoot, request));
  ASSERT_TRUE(good(created));
  const v1::Disk found = disk("vm1");
  EXPECT_EQ(found.size(), 8 * MiB);
  EXPECT_EQ(found.status(), v1::READY);
  EXPECT_EQ(found.folder_id(), "default");
  EXPECT_EQ(found.created_by(), "user:root");
  EXPECT_EQ(found.labels().at("k"), "v");
  EXPECT_EQ(disk(found.id()).name(), "vm1");
  EXPECT_EQ((*created)->message.metadata().resource_id(), found.id());
  EXPECT_EQ(catalog().view(*kRoot.subject, **created).response().disks(0).id(), found.id());
}

TEST_F(CatalogTest, ATakenNameIsRefusedAndNothingChanges) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  const auto again = harness.create_disk("vm1", 8 * MiB);
  ASSERT_FALSE(again);
  EXPECT_EQ(code(again), ErrorCode::already_exists);
  EXPECT_EQ(again.error().field, "name");
  EXPECT_EQ(harness.volumes(), 1u);
  EXPECT_EQ(disk("vm1").size(), 4 * MiB);
}

TEST_F(CatalogTest, NamesAreUniqueWithinTheirKindOnly) {
  ASSERT_TRUE(good(harness.create_disk("same", 4 * MiB)));
  EXPECT_TRUE(good(harness.create_snapshot("same", "same")));
  EXPECT_TRUE(good(harness.create_image("same", "same")));
}

TEST_F(CatalogTest, OfConcurrentCreationsOfOneNameOneWins) {
  v1::CreateDiskRequest request;
  request.set_name("vm1");
  request.set_size(4 * MiB);
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  for (int i = 0; i < 8; ++i)
    calls.push_back(catalog().create_disk(kRoot, request));
  const auto results = harness.run_together(std::move(calls));
  EXPECT_EQ(std::ranges::count_if(results, good), 1);
  EXPECT_EQ(std::ranges::count_if(results,
                                  [](const auto& r) { return !r && code(r) == ErrorCode::already_exists; }),
            7);
  EXPECT_EQ(harness.volumes(), 1u);
}

TEST_F(CatalogTest, OfConcurrentDeletionsOneWins) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  for (int i = 0; i < 4; ++i)
    calls.push_back(catalog().delete_disk(kRoot, Harness::to_delete("vm1")));
  const auto results = harness.run_together(std::move(calls));
  EXPECT_EQ(std::ranges::count_if(results, good), 1);
  EXPECT_EQ(harness.volumes(), 0u);
  EXPECT_EQ(harness.disk_names(), "");
}

TEST_F(CatalogTest, ASourceMayBeDeletedRightAfterItWasCloned) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  v1::CreateDiskRequest create;
  create.set_name("vm2");
  create.set_image_id("i1");
  v1::DeleteImageRequest remove;
  remove.set_image_id("i1");
  std::vector<boost::asio::awaitable<Answer<OperationRef>>> calls;
  calls.push_back(catalog().create_disk(kRoot, create));
  calls.push_back(catalog().delete_image(kRoot, remove));
  const auto results = harness.run_together(std::move(calls));
  EXPECT_TRUE(good(results[0]));
  EXPECT_TRUE(good(results[1]));
  EXPECT_EQ(harness.disk_names(), "vm1 vm2");
}

TEST_F(CatalogTest, WhatIsAttachedIsNotDeleted) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  const auto found = catalog().find_export(*kRoot.subject, "disk/vm1");
  ASSERT_TRUE(found);
  ASSERT_TRUE(catalog().attach(found->resource_id, 7, {"user:a", "unix pid 1"}));
  EXPECT_EQ(disk("vm1").attachments_size(), 1);
  const auto refused = harness.delete_disk("vm1");
  ASSERT_FALSE(refused);
  EXPECT_EQ(code(refused), ErrorCode::failed_precondition);
  EXPECT_NE(refused.error().message.find("unix pid 1"), std::string::npos);
  catalog().detach(found->resource_id, 7);
  EXPECT_TRUE(good(harness.delete_disk("vm1")));
}

TEST_F(CatalogTest, AResourceHasItsOperationsAndAFolderThoseOfAllInIt) {
  ASSERT_TRUE(harness.create_disk("vm1", 8 * MiB));
  ASSERT_TRUE(harness.create_disk("vm2", 8 * MiB));
  ASSERT_TRUE(harness.create_snapshot("s1", "vm1"));
  v1::ResizeDiskRequest resize;
  resize.set_disk_id("vm1");
  resize.set_size(16 * MiB);
  ASSERT_TRUE(harness.run(catalog().resize_disk(kRoot, resize)));
  const auto of = [&](Kind kind, const std::string& name) {
    v1::ListResourceOperationsRequest request;
    request.set_resource_id(name);
    request.set_page_size(1);  // so that tokens count
    std::string found;
    for (;;) {
      const auto page = catalog().list_operations_of(kRoot, kind, request);
      if (!page)
        return std::string(page.error().field);
      for (const auto& operation : page->operations())
        found += (found.empty() ? "" : ", ") + operation.description();
      if (page->next_page_token().empty())
        return found;
      request.set_page_token(page->next_page_token());
    }
  };
  EXPECT_EQ(of(Kind::disk, "vm1"), "Resize disk vm1 to 16M, Create disk vm1");
  EXPECT_EQ(of(Kind::snapshot, "s1"), "Create snapshot s1");
  EXPECT_EQ(of(Kind::folder, "default"),
            "Resize disk vm1 to 16M, Create snapshot s1, Create disk vm2, Create disk vm1");
  EXPECT_EQ(of(Kind::image, "vm1"), "resource_id");
}

TEST_F(CatalogTest, AnAttachmentSaysWhatWentOverIt) {
  ASSERT_TRUE(harness.create_disk("vm1", 8 * MiB));
  unsigned asked = 0;
  catalog().on_traffic([&asked](VolumeId) -> boost::asio::awaitable<Traffic> {
    ++asked;
    co_return Traffic{{7, {4096, 512}}};
  });
  EXPECT_EQ(disk("vm1").attachments_size(), 0);
  EXPECT_EQ(asked, 0u);  // nobody is there
  const auto found = catalog().find_export(*kRoot.subject, "disk/vm1");
  ASSERT_TRUE(found);
  ASSERT_TRUE(catalog().attach(found->resource_id, 7, {"user:a", "first"}));
  ASSERT_TRUE(catalog().attach(found->resource_id, 8, {"user:a", "not in transmission yet"}));
  const v1::Disk shown = disk("vm1");
  ASSERT_EQ(shown.attachments_size(), 2);
  EXPECT_EQ(shown.attachments(0).bytes_read(), 4096);
  EXPECT_EQ(shown.attachments(0).bytes_written(), 512);
  EXPECT_FALSE(shown.attachments(1).has_bytes_read());
  const auto listed = catalog().list_disks(kRoot, {});
  EXPECT_FALSE(listed->disks(0).attachments(0).has_bytes_read());
  catalog().detach(found->resource_id, 7);
  catalog().detach(found->resource_id, 8);
}

TEST_F(CatalogTest, WhatIsBeingDeletedIsNotAttached) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  const auto found = catalog().find_export(*kRoot.subject, "disk/vm1");
  ASSERT_TRUE(found);
  auto deletion = catalog().delete_disk(kRoot, Harness::to_delete("vm1"));  // decided now, done later
  EXPECT_EQ(disk("vm1").status(), v1::DELETING);
  EXPECT_FALSE(catalog().find_export(*kRoot.subject, "disk/vm1"));
  EXPECT_FALSE(catalog().attach(found->resource_id, 1, {"user:a", "late"}));
  EXPECT_TRUE(good(harness.run(std::move(deletion))));
}

TEST_F(CatalogTest, ExportsAreFoundByNameFolderAndId) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_snapshot("s1", "vm1")));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  const std::string id = disk("vm1").id();
  for (const std::string& name : {std::string("disk/vm1"), std::string("disk/default/vm1"), id}) {
    const auto found = catalog().find_export(*kRoot.subject, name);
    ASSERT_TRUE(found) << name;
    EXPECT_EQ(found->resource_id, id);
    EXPECT_FALSE(found->read_only);
    EXPECT_EQ(found->size_bytes, 4 * MiB);
  }
  EXPECT_TRUE(catalog().find_export(*kRoot.subject, "snapshot/s1")->read_only);
  EXPECT_TRUE(catalog().find_export(*kRoot.subject, "image/i1")->read_only);
  for (const std::string name : {"", "vm1", "/", "disk/", "disk/other/vm1", "disk/vm2", "volume/vm1",
                                 "disk/default/vm1/x", "1nosuchid", "DISK/vm1"})
    EXPECT_FALSE(catalog().find_export(*kRoot.subject, name)) << name;
  EXPECT_EQ(catalog().list_exports(*kRoot.subject, 100).size(), 3u);
  EXPECT_EQ(catalog().list_exports(*kRoot.subject, 2).size(), 2u);
}

TEST_F(CatalogTest, ADiskOnlyGrows) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 8 * MiB)));
  v1::ResizeDiskRequest request;
  request.set_disk_id("vm1");
  request.set_size(4 * MiB);
  EXPECT_EQ(code(harness.run(catalog().resize_disk(kRoot, request))), ErrorCode::invalid_argument);
  request.set_size(9 * MiB);
  EXPECT_TRUE(good(harness.run(catalog().resize_disk(kRoot, request))));
  EXPECT_EQ(disk("vm1").size(), 12 * MiB);
}

TEST_F(CatalogTest, ADiskRevertsToItsOwnSnapshotsOnly) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 8 * MiB)));
  ASSERT_TRUE(good(harness.create_disk("vm2", 8 * MiB)));
  ASSERT_TRUE(good(harness.create_snapshot("s1", "vm1")));
  ASSERT_TRUE(good(harness.create_snapshot("s2", "vm2")));
  v1::ResizeDiskRequest resize;
  resize.set_disk_id("vm1");
  resize.set_size(16 * MiB);
  ASSERT_TRUE(good(harness.run(catalog().resize_disk(kRoot, resize))));
  v1::RevertDiskRequest request;
  request.set_disk_id("vm1");
  request.set_snapshot_id("s2");
  EXPECT_EQ(code(harness.run(catalog().revert_disk(kRoot, request))), ErrorCode::failed_precondition);
  request.set_snapshot_id("s1");
  const auto found = catalog().find_export(*kRoot.subject, "disk/vm1");
  ASSERT_TRUE(catalog().attach(found->resource_id, 1, {"user:a", "client"}));
  EXPECT_EQ(code(harness.run(catalog().revert_disk(kRoot, request))), ErrorCode::failed_precondition);
  catalog().detach(found->resource_id, 1);
  EXPECT_TRUE(good(harness.run(catalog().revert_disk(kRoot, request))));
  EXPECT_EQ(disk("vm1").size(), 8 * MiB);
}

TEST_F(CatalogTest, SnapshotsOfSeveralDisksAreMadeAllOrNone) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_disk("vm2", 4 * MiB)));
  v1::CreateSnapshotsRequest request;
  for (const char* name : {"vm1", "vm2"}) {
    auto& snapshot = *request.add_snapshots();
    snapshot.set_disk_id(name);
    snapshot.set_name(std::string("s-") + name);
  }
  auto twice = request;
  twice.mutable_snapshots(1)->set_name("s-vm1");
  EXPECT_FALSE(harness.run(catalog().create_snapshots(kRoot, twice)));
  auto missing = request;
  missing.mutable_snapshots(1)->set_disk_id("vm3");
  EXPECT_EQ(code(harness.run(catalog().create_snapshots(kRoot, missing))), ErrorCode::not_found);
  EXPECT_EQ(catalog().count(Kind::snapshot), 0u);
  const auto made = harness.run(catalog().create_snapshots(kRoot, request));
  ASSERT_TRUE(good(made));
  EXPECT_EQ(catalog().view(*kRoot.subject, **made).response().snapshots_size(), 2);
}

TEST_F(CatalogTest, ADiskFromAnImageHasAtLeastItsMinDiskSize) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 8 * MiB)));
  v1::CreateImageRequest request;
  request.set_name("i1");
  request.set_disk_id("vm1");
  request.set_min_disk_size(16 * MiB);
  ASSERT_TRUE(good(harness.run(catalog().create_image(kRoot, request))));
  EXPECT_EQ(code(harness.create_disk("small", 8 * MiB, "i1")), ErrorCode::invalid_argument);
  ASSERT_TRUE(good(harness.create_disk("fits", 0, "i1")));
  EXPECT_EQ(disk("fits").size(), 16 * MiB);
  EXPECT_EQ(disk("fits").source_image_id(), catalog().find_export(*kRoot.subject, "image/i1")->resource_id);
  ASSERT_TRUE(good(harness.create_disk("large", 64 * MiB, "i1")));
  EXPECT_EQ(disk("large").size(), 64 * MiB);
}

TEST_F(CatalogTest, AnImageKeepsItsSourcesOs) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  v1::CreateImageRequest request;
  request.set_name("w");
  request.set_disk_id("vm1");
  request.mutable_os()->set_type(v1::Os::WINDOWS);
  ASSERT_TRUE(good(harness.run(catalog().create_image(kRoot, request))));
  ASSERT_TRUE(good(harness.create_disk("vm2", 0, "w")));
  EXPECT_EQ(disk("vm2").os().type(), v1::Os::WINDOWS);
  ASSERT_TRUE(good(harness.create_image("w2", "vm2")));
  v1::GetImageRequest get;
  get.set_image_id("w2");
  EXPECT_EQ(harness.run(catalog().get_image(kRoot, get))->os().type(), v1::Os::WINDOWS);
}

TEST_F(CatalogTest, AFamilysLatestIsTheNewest) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1", "fam")));
  ASSERT_TRUE(good(harness.create_image("i2", "vm1", "fam")));
  ASSERT_TRUE(good(harness.create_image("a0", "vm1", "other")));
  v1::GetImageLatestByFamilyRequest request;
  request.set_family("fam");
  EXPECT_EQ(harness.run(catalog().get_latest(kRoot, request))->name(), "i2");
  harness.restart();
  EXPECT_EQ(harness.run(catalog().get_latest(kRoot, request))->name(), "i2");
  v1::DeleteImageRequest remove;
  remove.set_image_id("i2");
  ASSERT_TRUE(good(harness.run(catalog().delete_image(kRoot, remove))));
  EXPECT_EQ(harness.run(catalog().get_latest(kRoot, request))->name(), "i1");
  request.set_family("nosuch");
  EXPECT_EQ(harness.run(catalog().get_latest(kRoot, request)).error().code, ErrorCode::not_found);
}

TEST_F(CatalogTest, EverythingIsThereAfterARestart) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_snapshot("s1", "vm1")));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1", "fam")));
  ASSERT_TRUE(good(harness.delete_disk("vm1")));
  ASSERT_TRUE(good(harness.create_disk("vm2", 0, "i1")));
  const v1::Disk before = disk("vm2");
  for (const bool crash : {false, true}) {
    harness.restart(crash);
    EXPECT_EQ(harness.disk_names(), "vm2");
    EXPECT_EQ(disk("vm2").SerializeAsString(), before.SerializeAsString());
    EXPECT_EQ(catalog().count(Kind::snapshot), 1u);
    EXPECT_EQ(catalog().count(Kind::image), 1u);
    EXPECT_EQ(catalog().list_operations(kRoot, {})->operations_size(), 5);
    EXPECT_TRUE(catalog().find_export(*kRoot.subject, "disk/vm2"));
  }
}

TEST_F(CatalogTest, PagesAreStableWhileDisksComeAndGo) {
  for (const char* name : {"a", "c", "e", "g"})
    ASSERT_TRUE(good(harness.create_disk(name, 4 * MiB)));
  v1::ListDisksRequest request;
  request.set_page_size(2);
  const auto first = catalog().list_disks(kRoot, request);
  ASSERT_EQ(first->disks_size(), 2);
  EXPECT_EQ(first->disks(1).name(), "c");
  ASSERT_TRUE(good(harness.delete_disk("c")));           // the one the token names
  ASSERT_TRUE(good(harness.create_disk("b", 4 * MiB)));  // on a page that has been read
  request.set_page_token(first->next_page_token());
  const auto second = catalog().list_disks(kRoot, request);
  ASSERT_EQ(second->disks_size(), 2);
  EXPECT_EQ(second->disks(0).name(), "e");
  EXPECT_EQ(second->disks(1).name(), "g");
  EXPECT_EQ(second->next_page_token(), "");
  request.set_page_token("nonsense");
  EXPECT_EQ(catalog().list_disks(kRoot, request).error().field, "page_token");
  request.set_page_size(1001);
  EXPECT_EQ(catalog().list_disks(kRoot, request).error().field, "page_size");
}

// Also what becomes of it when the image goes.
TEST_F(CatalogTest, WhatIsOnAnImageStaysWithIt) {
  const auto keys = [this] {
    unsigned count = 0;
    const auto resources = harness.run(harness.store().resources());
    for (const auto& [key, value] : *resources)
      count += key.starts_with("content/");
    return count;
  };
  const auto table = [this](const std::string& name) {
    v1::GetImageRequest request;
    request.set_image_id(name);
    const auto image = harness.run(catalog().get_image(kRoot, request));
    return image ? v1::Layout::Table_Name(image->layout().table()) : "no image";
  };
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  const EntryRef image = catalog().next_unexamined();
  ASSERT_TRUE(image);
  EXPECT_EQ(catalog().next_unexamined(), nullptr);
  EXPECT_EQ(table("i1"), "NO_TABLE");
  harness.restart();  // nobody has looked: it is asked for again
  const EntryRef again = catalog().next_unexamined();
  ASSERT_TRUE(again);
  v1::Layout layout;
  layout.set_table(v1::Layout::GPT);
  harness.run(catalog().keep_layout(again, layout));
  EXPECT_EQ(table("i1"), "GPT");
  v1::CreateImageRequest request;
  request.set_name("i2");
  request.set_image_id("i1");
  ASSERT_TRUE(good(harness.run(catalog().create_image(kRoot, request))));
  EXPECT_EQ(table("i2"), "GPT");
  EXPECT_EQ(catalog().next_unexamined(), nullptr);
  harness.restart(true);
  EXPECT_EQ(table("i1"), "GPT");
  EXPECT_EQ(table("i2"), "GPT");
  EXPECT_EQ(catalog().next_unexamined(), nullptr);
  EXPECT_EQ(keys(), 2u);
  for (const char* name : {"i1", "i2"}) {
    v1::DeleteImageRequest remove;
    remove.set_image_id(name);
    ASSERT_TRUE(good(harness.run(catalog().delete_image(kRoot, remove))));
  }
  EXPECT_EQ(keys(), 0u);
}

TEST_F(CatalogTest, ADigestStaysWithItsImageAndGoesToItsCopies) {
  const auto digest = [this](const std::string& name) {
    v1::GetImageRequest request;
    request.set_image_id(name);
    const auto image = harness.run(catalog().get_image(kRoot, request));
    return image ? image->digest() : "no image";
  };
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  ASSERT_TRUE(catalog().next_undigested());
  EXPECT_EQ(catalog().next_undigested(), nullptr);
  harness.restart();  // nobody has finished: it is asked for again
  const EntryRef image = catalog().next_undigested();
  ASSERT_TRUE(image);
  harness.run(catalog().keep_digest(image, "d1"));
  harness.run(catalog().keep_digest(image, "d2"));  // too late
  EXPECT_EQ(digest("i1"), "d1");
  harness.run(catalog().keep_layout(image, v1::Layout()));  // found later, kept with it
  v1::CreateImageRequest request;
  request.set_name("i2");
  request.set_image_id("i1");
  ASSERT_TRUE(good(harness.run(catalog().create_image(kRoot, request))));
  EXPECT_EQ(digest("i2"), "d1");
  harness.restart(true);
  EXPECT_EQ(digest("i1"), "d1");
  EXPECT_EQ(digest("i2"), "d1");
  EXPECT_EQ(catalog().next_undigested(), nullptr);
  EXPECT_EQ(catalog().next_unexamined(), nullptr);
}

// What is found on an image that has gone meanwhile is of no use.
TEST_F(CatalogTest, WhatIsFoundTooLateLeavesNothing) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  const EntryRef image = catalog().next_unexamined();
  v1::DeleteImageRequest remove;
  remove.set_image_id("i1");
  ASSERT_TRUE(good(harness.run(catalog().delete_image(kRoot, remove))));
  harness.run(catalog().keep_layout(image, v1::Layout()));
  const auto resources = harness.run(harness.store().resources());
  for (const auto& [key, value] : *resources)
    EXPECT_FALSE(key.starts_with("content/")) << key;
}

// As many partitions as there can be, with the longest texts: what is kept has a limit.
TEST_F(CatalogTest, OfAVeryLongLayoutTheBeginningIsKept) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  v1::Layout layout;
  for (unsigned i = 0; i < limits::kMaxPartitions; ++i) {
    v1::Partition& partition = *layout.add_partitions();
    partition.set_number(int32_t(i));
    partition.set_name(std::string(limits::kMaxPartitionName, 'n'));
    partition.mutable_file_system()->set_label(std::string(limits::kMaxLayoutText, 'l'));
  }
  harness.run(catalog().keep_layout(catalog().next_unexamined(), layout));
  harness.restart();
  v1::GetImageRequest request;
  request.set_image_id("i1");
  const auto image = harness.run(catalog().get_image(kRoot, request));
  ASSERT_TRUE(image);
  EXPECT_TRUE(image->layout().incomplete());
  EXPECT_GT(image->layout().partitions_size(), 20);
  EXPECT_LT(image->ByteSizeLong(), limits::kMaxResourceSize);
}

TEST_F(CatalogTest, AnImportedImageIsReadyWithItsOperation) {
  auto ticket = begin_import("i1");
  ASSERT_TRUE(ticket);
  EXPECT_FALSE(begin_import("i1"));                                 // the name is taken
  EXPECT_FALSE(catalog().find_export(*kRoot.subject, "image/i1"));  // but there is nothing to see
  EXPECT_FALSE(harness.create_disk("vm1", 0, "i1"));
  ASSERT_TRUE(harness.run(catalog().start_import(*ticket, 5 * MiB, "raw")));
  EXPECT_EQ(harness.volumes(), 1u);
  ASSERT_TRUE(harness.run(catalog().finish_import(*ticket, std::nullopt)));
  EXPECT_EQ(harness.volumes(), 1u);
  EXPECT_TRUE(ticket->operation->message.done());
  EXPECT_EQ(catalog().find_export(*kRoot.subject, "image/i1")->size_bytes, 8 * MiB);
  EXPECT_TRUE(good(harness.create_disk("vm1", 0, "i1")));
}

TEST_F(CatalogTest, AFailedImportLeavesNoTrace) {
  auto ticket = begin_import("i1");
  ASSERT_TRUE(ticket);
  ASSERT_TRUE(harness.run(catalog().start_import(*ticket, 5 * MiB, "raw")));
  const OperationRef operation = ticket->operation;
  harness.run(
      catalog().fail_import(std::move(*ticket), Refusal{ErrorCode::cancelled, "", "cancelled by user:root"}));
  EXPECT_EQ(operation->message.error().code(), v1::Error::CANCELLED);
  EXPECT_EQ(harness.volumes(), 0u);
  EXPECT_EQ(catalog().count(Kind::image), 0u);
  harness.restart();
  EXPECT_EQ(catalog().count(Kind::image), 0u);
  EXPECT_EQ(catalog().operations().find(operation->message.id())->message.error().message(),
            "cancelled by user:root");
}

TEST_F(CatalogTest, AnImportThatARestartInterruptedIsRemovedAndFailed) {
  auto ticket = begin_import("i1");
  ASSERT_TRUE(ticket);
  ASSERT_TRUE(harness.run(catalog().start_import(*ticket, 5 * MiB, "raw")));
  const std::string id = ticket->operation->message.id();
  ticket = refuse(ErrorCode::cancelled, "", "");
  harness.restart(true);
  EXPECT_EQ(harness.volumes(), 0u);
  EXPECT_EQ(catalog().count(Kind::image), 0u);
  const OperationRef operation = catalog().operations().find(id);
  ASSERT_TRUE(operation);
  EXPECT_TRUE(operation->message.done());
  EXPECT_EQ(operation->message.error().code(), v1::Error::UNAVAILABLE);
  EXPECT_EQ(operation->message.error().message(), "interrupted by a restart of the daemon");
  harness.restart();
  EXPECT_EQ(catalog().operations().find(id)->message.error().code(), v1::Error::UNAVAILABLE);
}

TEST_F(CatalogTest, ImportSizesAreChecked) {
  for (const uint64_t size : {uint64_t(0), limits::kMaxVolumeSize + 1}) {
    auto ticket = begin_import("i1");
    ASSERT_TRUE(ticket);
    const auto refused = harness.run(catalog().start_import(*ticket, size, "raw"));
    ASSERT_FALSE(refused) << size;
    EXPECT_EQ(refused.error().field, "source");
    Refusal refusal = refused.error();
    harness.run(catalog().fail_import(std::move(*ticket), refusal));
  }
  EXPECT_EQ(harness.volumes(), 0u);
}

TEST_F(CatalogTest, AnImageBeingExportedIsNotDeleted) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_image("i1", "vm1")));
  v1::ExportImageRequest request;
  request.set_image_id("i1");
  request.set_path("/somewhere");
  auto ticket = catalog().begin_export(kRoot, request);
  ASSERT_TRUE(ticket);
  v1::DeleteImageRequest remove;
  remove.set_image_id("i1");
  EXPECT_EQ(code(harness.run(catalog().delete_image(kRoot, remove))), ErrorCode::failed_precondition);
  harness.run(catalog().end_read(std::move(*ticket), Answer<void>()));
  EXPECT_TRUE(good(harness.run(catalog().delete_image(kRoot, remove))));
}

TEST_F(CatalogTest, WhatIsMissingIsNamed) {
  const auto missing = harness.create_disk("vm1", 0, "nosuch");
  ASSERT_FALSE(missing);
  EXPECT_EQ(code(missing), ErrorCode::not_found);
  EXPECT_EQ(missing.error().field, "image_id");
  EXPECT_EQ(missing.error().message, "there is no image nosuch");
  v1::CreateDiskRequest request;
  request.set_size(4 * MiB);
  request.set_folder_id("nosuch");
  EXPECT_EQ(harness.run(catalog().create_disk(kRoot, request)).error().field, "folder_id");
}

TEST_F(CatalogTest, ADifferenceComesWithAFixedOrderAndEnd) {
  ASSERT_TRUE(good(harness.create_disk("vm1", 4 * MiB)));
  ASSERT_TRUE(good(harness.create_snapshot("s1", "vm1")));
  v1::DiffRequest request;
  request.set_a("disk/vm1");
  request.set_b("snapshot/s1");
  const auto same = harness.run(catalog().diff(kRoot, request));
  ASSERT_TRUE(same);
  EXPECT_EQ(same->next_page_token(), "");
  request.set_b("snapshot/s2");
  EXPECT_EQ(harness.run(catalog().diff(kRoot, request)).error().field, "b");
  request.set_b("");
  EXPECT_EQ(harness.run(catalog().diff(kRoot, request)).error().field, "b");
}

}  // namespace
}  // namespace obraz::test
