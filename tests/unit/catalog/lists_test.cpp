// List calls: filters, orders and pages over a catalog that changes between the pages.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

using limits::MiB;

class ListsTest : public testing::Test {
 protected:
  Harness harness;
  Catalog& catalog() { return harness.catalog(); }

  void make(const std::string& name, std::map<std::string, std::string> labels = {}) {
    v1::CreateDiskRequest request;
    request.set_name(name);
    request.set_size(4 * MiB);
    request.mutable_labels()->insert(labels.begin(), labels.end());
    ASSERT_TRUE(harness.run(catalog().create_disk(kRoot, request)));
  }
  // The names on all pages, separated by spaces; '/' between pages.
  std::string names(const std::string& filter, const std::string& order_by, int64_t page_size = 1000) {
    v1::ListDisksRequest request;
    request.set_filter(filter);
    request.set_order_by(order_by);
    request.set_page_size(page_size);
    std::string names;
    do {
      const auto page = catalog().list_disks(kRoot, request);
      if (!page)
        return page.error().message;
      for (const v1::Disk& disk : page->disks())
        names.append(names.empty() || names.ends_with('/') ? "" : " ").append(disk.name());
      request.set_page_token(page->next_page_token());
      if (!request.page_token().empty())
        names += '/';
    } while (!request.page_token().empty());
    return names;
  }
};

TEST_F(ListsTest, AreWhatTheFilterHoldsFor) {
  make("web1", {{"env", "prod"}, {"role", "web"}});
  make("web2", {{"env", "test"}, {"role", "web"}});
  make("db1", {{"env", "prod"}});
  EXPECT_EQ(names("", ""), "db1 web1 web2");
  EXPECT_EQ(names("labels.env = prod", ""), "db1 web1");
  EXPECT_EQ(names("labels.role != web", ""), "db1");
  EXPECT_EQ(names("labels.env IN (prod, test) AND labels.role = web", ""), "web1 web2");
  EXPECT_EQ(names("name = web2", ""), "web2");
  EXPECT_EQ(names("name = web2 AND labels.env = prod", ""), "");
  EXPECT_EQ(names("name = none", ""), "");
  EXPECT_EQ(names("os.type = LINUX AND status = READY", ""), "db1 web1 web2");
  EXPECT_EQ(names("created_at < 2001-01-01", ""), "");
  EXPECT_EQ(names("status = ", ""), "filter: at 10: expected a value, found the end");
}

TEST_F(ListsTest, AreInTheOrderAskedForOnPagesOfAnySize) {
  for (const char* name : {"c", "a", "d", "b", "e"})
    make(name);
  EXPECT_EQ(names("", "name desc"), "e d c b a");
  EXPECT_EQ(names("", "created_at"), "c a d b e");
  EXPECT_EQ(names("", "created_at desc", 2), "e b/d a/c");
  EXPECT_EQ(names("", "name", 2), "a b/c d/e");
  EXPECT_EQ(names("", "name desc", 5), "e d c b a");
  EXPECT_EQ(names("name != c", "created_at", 3), "a d b/e");
  EXPECT_EQ(names("name = d", "name desc", 1), "d");
  EXPECT_EQ(names("", "size"),
            "order_by: at 1: there is no order by \"size\"; the fields are name, created_at, id");
}

TEST_F(ListsTest, HaveEverythingThatStaysOnceWhateverComesAndGoes) {
  for (const char* order : {"", "name desc", "created_at", "created_at desc", "id"}) {
    std::mt19937 random(7);
    for (int i = 0; i < 30; ++i)
      make("stays" + std::to_string(i), {{"stays", "yes"}});
    std::multiset<std::string> seen;
    v1::ListDisksRequest request;
    request.set_order_by(order);
    request.set_page_size(4);
    int made = 0;
    do {
      const auto page = catalog().list_disks(kRoot, request);
      ASSERT_TRUE(page);
      for (const v1::Disk& disk : page->disks())
        seen.insert(disk.name());
      if (page->disks_size() > 0) {
        const v1::Disk& last = page->disks(page->disks_size() - 1);  // the token's own
        if (!last.labels().contains("stays")) {
          ASSERT_TRUE(harness.delete_disk(last.name()));
        }
      }
      if (made < 20)
        make((random() % 2 == 0 ? "a" : "z") + std::to_string(made++));
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    for (int i = 0; i < 30; ++i) {
      EXPECT_EQ(seen.count("stays" + std::to_string(i)), 1u) << order;
    }
    v1::ListDisksRequest all;
    all.set_page_size(1000);
    const auto left = catalog().list_disks(kRoot, all);
    for (const v1::Disk& disk : left->disks())
      ASSERT_TRUE(harness.delete_disk(disk.name()));
  }
}

TEST_F(ListsTest, ATokenBelongsToItsFilterAndOrder) {
  for (const char* name : {"a", "b", "c"})
    make(name);
  v1::ListDisksRequest request;
  request.set_page_size(1);
  request.set_page_token(catalog().list_disks(kRoot, request)->next_page_token());
  EXPECT_TRUE(catalog().list_disks(kRoot, request));
  request.set_order_by("created_at");
  EXPECT_EQ(catalog().list_disks(kRoot, request).error().field, "page_token");
  request.set_order_by("");
  request.set_filter("name != x");
  EXPECT_EQ(catalog().list_disks(kRoot, request).error().field, "page_token");
}

// One page looks at a bounded number of resources: a filter that holds for few of many is answered in pages
// that may be empty.
TEST_F(ListsTest, APageThatLooksInVainSaysWhereToGoOn) {
  Index index;
  const auto add = [&index](unsigned number, bool wanted) {
    auto entry = std::make_shared<Entry>();
    v1::Disk& disk = *entry->record.mutable_disk();
    disk.set_id(new_resource_id(Kind::disk));
    disk.set_folder_id(std::string(kDefaultFolder));
    disk.set_name(fmt::format("d{:06}", number));
    if (wanted)
      (*disk.mutable_labels())["wanted"] = "yes";
    index.insert(std::move(entry));
  };
  const unsigned many = 2 * limits::kMaxListLooks + 10;
  for (unsigned i = 0; i < many; ++i)
    add(i, i == 5 || i == many - 1);
  auto query = ListQuery::parse(10, "", "labels.wanted = yes", "");
  std::vector<size_t> found;
  for (;;) {
    const Index::Page page =
        index.list(Kind::disk, kDefaultFolder, *query, [](const Entry&) { return true; });
    found.push_back(page.entries.size());
    if (page.next_page_token.empty())
      break;
    query = ListQuery::parse(10, page.next_page_token, "labels.wanted = yes", "");
    ASSERT_TRUE(query);
  }
  EXPECT_EQ(found, (std::vector<size_t>{1, 0, 1}));
}

TEST_F(ListsTest, FoldersHavePagesToo) {
  for (const char* name : {"apart", "zoo"}) {
    v1::CreateFolderRequest request;
    request.set_name(name);
    ASSERT_TRUE(harness.run(catalog().create_folder(kRoot, request)));
  }
  std::string names;
  v1::ListFoldersRequest request;
  request.set_page_size(1);
  do {
    const auto page = catalog().list_folders(kRoot, request);
    ASSERT_TRUE(page) << page.error().message;
    for (const v1::Folder& folder : page->folders())
      names.append(folder.name()).append(" ");
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names, "apart default zoo ");
}

}  // namespace
}  // namespace obraz::test
