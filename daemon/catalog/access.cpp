#include "catalog/access.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "base/limits.h"
#include "proto/text.h"

namespace obraz {
namespace {

constexpr std::string_view kViewer = "viewer", kImagesUser = "images.user", kEditor = "editor",
                           kAdmin = "admin";

bool is_role(std::string_view role) {
  return role == kViewer || role == kImagesUser || role == kEditor || role == kAdmin;
}

Rights rights_of_role(std::string_view role, Kind kind) {
  if (role == kAdmin)
    return Rights::all();
  if (role == kEditor)
    return Rights::up_to(Right::change);
  if (role == kViewer)
    return Rights::up_to(Right::see);
  // images.user: of a folder, that its images can be found.
  if (kind == Kind::image)
    return Rights::up_to(Right::use);
  return kind == Kind::folder ? Rights::up_to(Right::see) : Rights();
}

bool is_meant(std::string_view bound, const Subject& subject) {
  return bound == kEverybody || bound == subject.name ||
         std::ranges::find(subject.groups, bound) != subject.groups.end();
}

bool is_subject(std::string_view text) {
  if (text == kEverybody)
    return true;
  std::string_view name;
  if (text.starts_with("user:"))
    name = text.substr(5);
  else if (text.starts_with("group:"))
    name = text.substr(6);
  return !name.empty() && name.size() <= limits::kMaxSubjectName &&
         std::ranges::all_of(name, [](char c) { return c > 0x20 && c < 0x7f && c != ':'; });
}

bool before(const v1::AccessBinding& a, const v1::AccessBinding& b) {
  return std::tie(a.role_id(), a.subject()) < std::tie(b.role_id(), b.subject());
}
bool same(const v1::AccessBinding& a, const v1::AccessBinding& b) {
  return a.role_id() == b.role_id() && a.subject() == b.subject();
}

Answer<void> check_binding(const v1::AccessBinding& binding, std::string_view field) {
  const auto shown = [](const std::string& text) {
    return text.empty() ? std::string("nothing") : valid_utf8(text.substr(0, limits::kMaxNameLength));
  };
  if (!is_role(binding.role_id()))
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("there is no role {}; the roles are viewer, images.user, editor and admin",
                              shown(binding.role_id())));
  if (!is_subject(binding.subject()))
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("{} is no subject; name user:NAME, group:NAME or {}", shown(binding.subject()),
                              kEverybody));
  return {};
}

Answer<void> check_size(const Bindings& bindings, std::string_view field) {
  v1::AccessRecord record;
  *record.mutable_access_bindings() = bindings;
  if (size_t(bindings.size()) > limits::kMaxBindings || record.ByteSizeLong() > limits::kMaxBindingBytes)
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  fmt::format("a resource has at most {} access bindings, with {} KiB of names; bind a group "
                              "instead of its users",
                              limits::kMaxBindings, limits::kMaxBindingBytes / limits::KiB));
  return {};
}

}  // namespace

Rights rights_from(const Bindings& bindings, const Subject& subject, Kind kind) {
  Rights rights;
  for (const v1::AccessBinding& binding : bindings)
    if (is_meant(binding.subject(), subject))
      rights |= rights_of_role(binding.role_id(), kind);
  return rights;
}

Answer<Bindings> checked_bindings(const Bindings& bindings, std::string_view field) {
  for (const v1::AccessBinding& binding : bindings)
    if (auto good = check_binding(binding, field); !good)
      return std::unexpected(std::move(good.error()));
  Bindings sorted = bindings;
  std::sort(sorted.begin(), sorted.end(), before);
  sorted.erase(std::unique(sorted.begin(), sorted.end(), same), sorted.end());
  if (auto good = check_size(sorted, field); !good)
    return std::unexpected(std::move(good.error()));
  return sorted;
}

Answer<Bindings> changed_bindings(Bindings bindings,
                                  const google::protobuf::RepeatedPtrField<v1::AccessBindingDelta>& deltas) {
  constexpr std::string_view kField = "access_binding_deltas";
  if (deltas.empty() || size_t(deltas.size()) > limits::kMaxBindings)
    return refuse(ErrorCode::invalid_argument, std::string(kField),
                  fmt::format("one call has 1 to {} changes of access bindings", limits::kMaxBindings));
  for (const v1::AccessBindingDelta& delta : deltas) {
    if (delta.action() != v1::AccessBindingDelta::ADD && delta.action() != v1::AccessBindingDelta::REMOVE)
      return refuse(ErrorCode::invalid_argument, std::string(kField), "action must be ADD or REMOVE");
    if (auto good = check_binding(delta.access_binding(), kField); !good)
      return std::unexpected(std::move(good.error()));
    const auto at = std::lower_bound(bindings.begin(), bindings.end(), delta.access_binding(), before);
    const bool there = at != bindings.end() && same(*at, delta.access_binding());
    if (delta.action() == v1::AccessBindingDelta::REMOVE && there)
      bindings.erase(at);
    if (delta.action() == v1::AccessBindingDelta::ADD && !there) {
      const auto index = at - bindings.begin();
      *bindings.Add() = delta.access_binding();
      std::rotate(bindings.begin() + index, bindings.end() - 1, bindings.end());
    }
  }
  if (auto good = check_size(bindings, kField); !good)
    return std::unexpected(std::move(good.error()));
  return bindings;
}

std::string_view role_for(Right right, Kind kind) {
  switch (right) {
    case Right::see:
      return kViewer;
    case Right::use:
      return kind == Kind::image ? kImagesUser : kEditor;
    case Right::change:
      return kEditor;
    case Right::administer:
      return kAdmin;
  }
  OBRAZ_CHECK(!"a right");
}

}  // namespace obraz
