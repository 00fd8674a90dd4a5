// Catalog: who may do what, and changing it.
#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"
#include "catalog/catalog.h"
#include "catalog/rules.h"

namespace obraz {

Rights Catalog::rights_of(const Subject& subject, const Entry& entry) const {
  if (subject.superuser)
    return Rights::all();
  Rights rights = rights_from(entry.access, subject, entry.kind);
  if (entry.kind != Kind::folder)
    if (const EntryRef folder = index_.find_id(entry.folder()))
      rights |= rights_from(folder->access, subject, entry.kind);
  return rights;
}

bool Catalog::may_enter(const Subject& subject, const Entry& folder) const {
  return folder.id() == kDefaultFolder || rights_of(subject, folder).any() ||
         std::ranges::any_of(index_.bound_in(folder.id()),
                             [&](const EntryRef& entry) { return rights_of(subject, *entry).any(); });
}

Index::Visible Catalog::visible_to(const Subject& subject) const {
  if (subject.superuser)
    return [](const Entry&) { return true; };
  return [this, &subject](const Entry& entry) { return rights_of(subject, entry).has(Right::see); };
}

EntryRef Catalog::latest_of_family(const Subject& subject, Right right, const std::string& folder,
                                   const std::string& family) const {
  return index_.latest_of_family(folder, family,
                                 [&](const Entry& entry) { return rights_of(subject, entry).has(right); });
}

Answer<void> Catalog::check_right(const Subject& subject, Right right, const Entry& entry,
                                  std::string_view field) const {
  if (rights_of(subject, entry).has(right))
    return {};
  return refuse(ErrorCode::permission_denied, std::string(field),
                fmt::format("{} may see {} and no more than that; this needs the role {} on it{}",
                            subject.name, entry.title(), role_for(right, entry.kind),
                            entry.kind == Kind::folder ? "" : " or on its folder"));
}

Answer<void> Catalog::check_superuser(const Subject& subject, std::string_view field,
                                      std::string_view what) const {
  if (subject.superuser)
    return {};
  return refuse(
      ErrorCode::permission_denied, std::string(field),
      fmt::format("{} may not {}; only root and the user that runs the daemon may", subject.name, what));
}

Answer<void> Catalog::check_files(const Subject& subject, std::string_view field) const {
  if (subject.superuser || subject.files)
    return {};
  return refuse(ErrorCode::permission_denied, std::string(field),
                fmt::format("the daemon does not run as root, so it cannot open files with the rights of {}",
                            subject.name));
}

template <typename Request>
Answer<EntryRef> Catalog::find_resource(const Caller& caller, Right right, Kind kind,
                                        const Request& request) const {
  if (kind == Kind::folder) {
    if (request.resource_id().empty())
      return refuse(ErrorCode::invalid_argument, "resource_id", "the name or id of the folder is missing");
    return find_folder(*caller.subject, right, request.resource_id(), "resource_id");
  }
  const auto folder = folder_of(*caller.subject, request.folder_id());
  if (!folder)
    return std::unexpected(folder.error());
  return find(*caller.subject, right, kind, *folder, request.resource_id(), "resource_id");
}

template Answer<EntryRef> Catalog::find_resource(const Caller& caller, Right right, Kind kind,
                                                 const v1::ListResourceOperationsRequest& request) const;

// A token is the number of the next one: bindings are few, and change rarely.
Answer<v1::ListAccessBindingsResponse> Catalog::list_access(
    const Caller& caller, Kind kind, const v1::ListAccessBindingsRequest& request) const {
  const auto entry = find_resource(caller, Right::administer, kind, request);
  if (!entry)
    return std::unexpected(entry.error());
  const auto page_size = rules::page_size(request.page_size());
  if (!page_size)
    return std::unexpected(page_size.error());
  const auto from = rules::page_position(request.page_token(), limits::kMaxBindings);
  if (!from)
    return std::unexpected(from.error());
  const Bindings& all = (*entry)->access;
  v1::ListAccessBindingsResponse response;
  int at = int(*from);
  for (; at < all.size() && response.access_bindings_size() < int(*page_size); ++at)
    *response.add_access_bindings() = all[at];
  if (at < all.size())
    response.set_next_page_token(std::to_string(at));
  return response;
}

Answer<Catalog::Plan> Catalog::plan_set_access(const Caller& caller, const EntryRef& entry,
                                               Answer<Bindings> bindings) {
  if (!bindings)
    return std::unexpected(bindings.error());
  if (const auto idle = check_idle(*entry, "resource_id"); !idle)
    return std::unexpected(idle.error());
  Plan plan;
  plan.operation = operations_.begin(caller, "Set access to " + entry->title(), {entry->id()});
  reserve_change(plan, entry, {});
  plan.changed.back().access = std::move(*bindings);
  return plan;
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::set_access(Caller caller, Kind kind,
                                                                 v1::SetAccessBindingsRequest request) {
  const auto entry = find_resource(caller, Right::administer, kind, request);
  if (!entry)
    co_return std::unexpected(entry.error());
  co_return co_await run(
      plan_set_access(caller, *entry, checked_bindings(request.access_bindings(), "access_bindings")));
}

boost::asio::awaitable<Answer<OperationRef>> Catalog::update_access(Caller caller, Kind kind,
                                                                    v1::UpdateAccessBindingsRequest request) {
  const auto entry = find_resource(caller, Right::administer, kind, request);
  if (!entry)
    co_return std::unexpected(entry.error());
  co_return co_await run(
      plan_set_access(caller, *entry, changed_bindings((*entry)->access, request.access_binding_deltas())));
}

bool Catalog::may_see(const Subject& subject, const OperationState& operation) const {
  const auto sees = [&](const std::string& id) {
    const EntryRef entry = index_.find_id(id);
    return entry && rights_of(subject, *entry).has(Right::see);
  };
  return subject.superuser || operation.message.created_by() == subject.name ||
         std::ranges::any_of(operation.message.metadata().resource_ids(), sees);
}

bool Catalog::may_cancel(const Subject& subject, const OperationState& operation) const {
  const auto changes = [&](const std::string& id) {
    const EntryRef entry = index_.find_id(id);
    return entry && rights_of(subject, *entry).has(Right::change);
  };
  return subject.superuser || operation.message.created_by() == subject.name ||
         std::ranges::any_of(operation.message.metadata().resource_ids(), changes);
}

}  // namespace obraz
