// Roles and bindings by themselves; tests/interop/access_table.txt has what they mean for each method.
#include "catalog/access.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "unit/catalog/harness.h"

namespace obraz::test {
namespace {

v1::AccessBinding binding(const std::string& role, const std::string& subject) {
  v1::AccessBinding made;
  made.set_role_id(role);
  made.set_subject(subject);
  return made;
}

Bindings bindings(std::initializer_list<std::pair<const char*, const char*>> pairs) {
  Bindings made;
  for (const auto& [role, subject] : pairs)
    *made.Add() = binding(role, subject);
  return made;
}

std::string text(const Bindings& bindings) {
  std::string text;
  for (const auto& one : bindings)
    text.append(text.empty() ? "" : " ").append(one.role_id()).append("=").append(one.subject());
  return text;
}

v1::UpdateAccessBindingsRequest deltas(
    std::initializer_list<std::tuple<v1::AccessBindingDelta::Action, const char*, const char*>> all) {
  v1::UpdateAccessBindingsRequest request;
  for (const auto& [action, role, subject] : all) {
    v1::AccessBindingDelta& delta = *request.add_access_binding_deltas();
    delta.set_action(action);
    *delta.mutable_access_binding() = binding(role, subject);
  }
  return request;
}

const Subject kAlice{"user:alice", {"group:staff", "group:users"}, false};

TEST(AccessTest, RightsAreThoseOfAllRolesTogether) {
  const auto rights =
      rights_from(bindings({{"viewer", "user:alice"}, {"admin", "user:bob"}, {"editor", "group:staff"}}),
                  kAlice, Kind::disk);
  EXPECT_TRUE(rights.has(Right::see));
  EXPECT_TRUE(rights.has(Right::use));
  EXPECT_TRUE(rights.has(Right::change));
  EXPECT_FALSE(rights.has(Right::administer));
  EXPECT_FALSE(rights_from(bindings({{"admin", "user:bob"}}), kAlice, Kind::disk).any());
  EXPECT_FALSE(rights_from(bindings({{"admin", "user:alice2"}}), kAlice, Kind::disk).any());
  EXPECT_FALSE(rights_from(bindings({{"admin", "group:alice"}}), kAlice, Kind::disk).any());
  EXPECT_TRUE(
      rights_from(bindings({{"viewer", "allAuthenticatedUsers"}}), kAlice, Kind::disk).has(Right::see));
}

TEST(AccessTest, UsersOfImagesUseImagesOnly) {
  const auto user = bindings({{"images.user", "user:alice"}});
  EXPECT_TRUE(rights_from(user, kAlice, Kind::image).has(Right::use));
  EXPECT_FALSE(rights_from(user, kAlice, Kind::image).has(Right::change));
  EXPECT_FALSE(rights_from(user, kAlice, Kind::disk).any());
  EXPECT_FALSE(rights_from(user, kAlice, Kind::snapshot).any());
  EXPECT_TRUE(rights_from(user, kAlice, Kind::folder).has(Right::see));
  EXPECT_FALSE(rights_from(user, kAlice, Kind::folder).has(Right::use));
}

TEST(AccessTest, BindingsAreCheckedSortedAndOnceEach) {
  const auto good = checked_bindings(
      bindings({{"viewer", "user:b"}, {"admin", "user:c"}, {"viewer", "user:a"}, {"viewer", "user:b"}}), "f");
  ASSERT_TRUE(good);
  EXPECT_EQ(text(*good), "admin=user:c viewer=user:a viewer=user:b");
  for (const auto& [role, subject] :
       std::vector<std::pair<std::string, std::string>>{{"", "user:a"},
                                                        {"Viewer", "user:a"},
                                                        {"owner", "user:a"},
                                                        {"viewer", ""},
                                                        {"viewer", "a"},
                                                        {"viewer", "user:"},
                                                        {"viewer", "group:"},
                                                        {"viewer", "user:a b"},
                                                        {"viewer", "user:a:b"},
                                                        {"viewer", "user:\xff"},
                                                        {"viewer", "everybody"},
                                                        {"viewer", "user:" + std::string(65, 'a')}}) {
    Bindings one;
    *one.Add() = binding(role, subject);
    const auto refused = checked_bindings(one, "field");
    ASSERT_FALSE(refused) << role << " " << subject;
    EXPECT_EQ(refused.error().field, "field");
  }
}

TEST(AccessTest, ThereAreOnlySoManyBindings) {
  Bindings many;
  for (unsigned i = 0; i < limits::kMaxBindings; ++i)
    *many.Add() = binding("viewer", "user:" + std::to_string(i));
  EXPECT_TRUE(checked_bindings(many, "f"));
  *many.Add() = binding("viewer", "user:x");
  EXPECT_FALSE(checked_bindings(many, "f"));
  many.RemoveLast();
  const auto one_more = deltas({{v1::AccessBindingDelta::ADD, "viewer", "user:x"}});
  EXPECT_FALSE(changed_bindings(many, one_more.access_binding_deltas()));
  Bindings long_names;
  for (unsigned i = 0; i < limits::kMaxBindings; ++i)
    *long_names.Add() = binding("viewer", "user:" + std::string(60, 'a') + std::to_string(i));
  EXPECT_FALSE(checked_bindings(long_names, "f"));  // they must fit a record of the store
}

TEST(AccessTest, DeltasAreDoneOneAfterTheOther) {
  using Delta = v1::AccessBindingDelta;
  const auto changed = [](const v1::UpdateAccessBindingsRequest& request) {
    const auto after = changed_bindings(bindings({{"admin", "user:a"}, {"viewer", "user:b"}}),
                                        request.access_binding_deltas());
    return after ? text(*after) : after.error().field + ": " + after.error().message;
  };
  EXPECT_EQ(changed(deltas({{Delta::ADD, "editor", "user:c"}, {Delta::REMOVE, "viewer", "user:b"}})),
            "admin=user:a editor=user:c");
  EXPECT_EQ(changed(deltas({{Delta::ADD, "admin", "user:a"}, {Delta::REMOVE, "viewer", "user:z"}})),
            "admin=user:a viewer=user:b");
  EXPECT_EQ(changed(deltas({{Delta::ADD, "viewer", "user:c"}, {Delta::REMOVE, "viewer", "user:c"}})),
            "admin=user:a viewer=user:b");
  EXPECT_EQ(changed(deltas({{Delta::REMOVE, "admin", "user:a"}, {Delta::REMOVE, "viewer", "user:b"}})), "");
  EXPECT_EQ(changed(deltas({{Delta::ACTION_UNSPECIFIED, "admin", "user:a"}})),
            "access_binding_deltas: action must be ADD or REMOVE");
  EXPECT_EQ(changed({}), "access_binding_deltas: one call has 1 to 1000 changes of access bindings");
}

// Of the catalog: what the roles do not show, and what stays.
class AccessCatalogTest : public testing::Test {
 protected:
  Harness harness;
  Catalog& catalog() { return harness.catalog(); }
  Caller alice{std::make_shared<const Subject>(kAlice), "", 0};

  void grant(Kind kind, const std::string& resource, const char* role, const char* subject,
             v1::AccessBindingDelta::Action action = v1::AccessBindingDelta::ADD) {
    auto request = deltas({{action, role, subject}});
    request.set_resource_id(resource);
    const auto done = harness.run(catalog().update_access(kRoot, kind, request));
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_FALSE((*done)->message.has_error());
  }
  std::string images_for(const Caller& caller) {
    std::string names;
    const auto images = catalog().list_images(caller, {});
    if (!images)
      return images.error().message;
    for (const auto& image : images->images())
      names.append(names.empty() ? "" : " ").append(image.name());
    return names;
  }
  unsigned records(const char* prefix) {
    unsigned count = 0;
    const auto resources = harness.run(harness.store().resources());
    for (const auto& [key, value] : *resources)
      count += key.starts_with(prefix);
    return count;
  }
};

TEST_F(AccessCatalogTest, AFamilyGivesTheNewestImageThatMayBeSeen) {
  ASSERT_TRUE(harness.create_disk("d", 4 * limits::MiB));
  ASSERT_TRUE(harness.create_image("old", "d", "fam"));
  ASSERT_TRUE(harness.create_image("new", "d", "fam"));
  grant(Kind::image, "old", "images.user", "allAuthenticatedUsers");
  v1::GetImageLatestByFamilyRequest request;
  request.set_family("fam");
  EXPECT_EQ(harness.run(catalog().get_latest(alice, request))->name(), "old");
  EXPECT_EQ(harness.run(catalog().get_latest(kRoot, request))->name(), "new");
  EXPECT_EQ(images_for(alice), "old");
  EXPECT_EQ(images_for(kRoot), "new old");
  grant(Kind::image, "old", "images.user", "allAuthenticatedUsers", v1::AccessBindingDelta::REMOVE);
  EXPECT_EQ(harness.run(catalog().get_latest(alice, request)).error().code, ErrorCode::not_found);
  EXPECT_EQ(images_for(alice), "");
}

TEST_F(AccessCatalogTest, BindingsStayAndEndWithTheirResource) {
  ASSERT_TRUE(harness.create_disk("d", 4 * limits::MiB));
  grant(Kind::disk, "d", "viewer", "user:alice");
  harness.restart(true);
  v1::GetDiskRequest request;
  request.set_disk_id("d");
  EXPECT_TRUE(harness.run(catalog().get_disk(alice, request)));
  EXPECT_EQ(records("access/"), 1u);
  ASSERT_TRUE(harness.delete_disk("d"));
  EXPECT_EQ(records("access/"), 0u);
  ASSERT_TRUE(harness.create_disk("d", 4 * limits::MiB));
  EXPECT_EQ(harness.run(catalog().get_disk(alice, request)).error().code, ErrorCode::not_found);
}

// The default folder has no record of its own until something about it is changed.
TEST_F(AccessCatalogTest, TheDefaultFolderKeepsItsBindings) {
  grant(Kind::folder, "default", "editor", "group:staff");
  harness.restart(true);
  v1::CreateDiskRequest request;
  request.set_name("mine");
  request.set_size(4 * limits::MiB);
  const auto made = harness.run(catalog().create_disk(alice, request));
  ASSERT_TRUE(made);
  EXPECT_EQ((*made)->message.created_by(), "user:alice");
  grant(Kind::folder, "default", "editor", "group:staff", v1::AccessBindingDelta::REMOVE);
  EXPECT_EQ(records("access/"), 0u);
  request.set_name("more");
  EXPECT_EQ(harness.run(catalog().create_disk(alice, request)).error().code, ErrorCode::permission_denied);
}

// It stays the caller's operation, and shows what there is to see now.
TEST_F(AccessCatalogTest, AnOperationShowsOnlyWhatMayStillBeSeen) {
  grant(Kind::folder, "default", "editor", "user:alice");
  v1::CreateDiskRequest request;
  request.set_name("mine");
  request.set_size(4 * limits::MiB);
  const auto made = harness.run(catalog().create_disk(alice, request));
  ASSERT_TRUE(made);
  EXPECT_EQ(catalog().view(kAlice, **made).response().disks_size(), 1);
  grant(Kind::folder, "default", "editor", "user:alice", v1::AccessBindingDelta::REMOVE);
  EXPECT_TRUE(catalog().may_see(kAlice, **made));
  EXPECT_EQ(catalog().view(kAlice, **made).response().disks_size(), 0);
}

TEST_F(AccessCatalogTest, ARenamedResourceKeepsItsBindings) {
  ASSERT_TRUE(harness.create_disk("d", 4 * limits::MiB));
  grant(Kind::disk, "d", "viewer", "user:alice");
  v1::UpdateDiskRequest update;
  update.set_disk_id("d");
  update.set_name("e");
  update.mutable_update_mask()->add_paths("name");
  ASSERT_TRUE(harness.run(catalog().update_disk(kRoot, update)));
  v1::GetDiskRequest request;
  request.set_disk_id("e");
  EXPECT_TRUE(harness.run(catalog().get_disk(alice, request)));
}

}  // namespace
}  // namespace obraz::test
