#include "catalog/index.h"

#include <algorithm>

#include "base/limits.h"

namespace obraz {

namespace {

std::pair<int64_t, std::string> age_of(const Entry& entry) {
  return {to_nanoseconds(entry.created_at()), entry.id()};
}

std::pair<int64_t, std::string> deletion_of(const Entry& entry) {
  return {to_nanoseconds(entry.record.deleted_at()), entry.id()};
}

std::pair<int64_t, std::string> purge_of(const Entry& entry) {
  return {to_nanoseconds(entry.record.purge_at()), entry.id()};
}

}  // namespace

void Index::insert(EntryRef entry) {
  Contents& contents = contents_[entry->folder()];
  ++contents.counts[size_t(entry->kind)];
  contents.bytes += int64_t(entry->size_bytes());
  if (entry->in_trash()) {
    insert_trashed(std::move(entry));
    return;
  }
  OBRAZ_CHECK(entry->name().empty() || !find_name(entry->kind, entry->folder(), entry->name()));
  const bool is_new = by_id_.emplace(entry->id(), entry).second;
  OBRAZ_CHECK(is_new);
  by_name_.emplace(name_key(*entry), entry);
  if (entry->kind == Kind::image && !entry->record.image().family().empty())
    by_family_[{entry->folder(), entry->record.image().family()}].emplace(age_of(*entry), entry);
  ++counts_[size_t(entry->kind)];
}

void Index::insert_trashed(EntryRef entry) {
  OBRAZ_CHECK(!find_id(entry->id()));
  ++contents_[entry->folder()].trashed;
  trash_of_[entry->folder()].emplace(deletion_of(*entry), entry);
  to_purge_.emplace(purge_of(*entry), entry);
  const bool is_new = trash_.emplace(entry->id(), entry).second;
  OBRAZ_CHECK(is_new);
}

void Index::erase_trashed(const EntryRef& entry) {
  --contents_[entry->folder()].trashed;
  const auto of_folder = trash_of_.find(entry->folder());
  of_folder->second.erase(deletion_of(*entry));
  if (of_folder->second.empty())
    trash_of_.erase(of_folder);
  to_purge_.erase(purge_of(*entry));
  trash_.erase(entry->id());
}

void Index::erase(const Entry& entry) {
  const std::string id = entry.id();
  const EntryRef kept = entry.in_trash() ? find_trashed(id) : find_id(id);  // it may live by the maps alone
  OBRAZ_CHECK(kept.get() == &entry);
  Contents& contents = contents_[entry.folder()];
  --contents.counts[size_t(entry.kind)];
  contents.bytes -= int64_t(entry.size_bytes());
  if (entry.in_trash()) {
    erase_trashed(kept);
    return;
  }
  by_id_.erase(id);
  by_name_.erase(name_key(entry));
  if (entry.kind == Kind::image && !entry.record.image().family().empty()) {
    const auto family = by_family_.find({entry.folder(), entry.record.image().family()});
    OBRAZ_CHECK(family != by_family_.end());
    family->second.erase(age_of(entry));
    if (family->second.empty())
      by_family_.erase(family);
  }
  --counts_[size_t(entry.kind)];
  if (const auto bound = bound_.find(entry.folder()); bound != bound_.end()) {
    bound->second.erase(kept);
    if (bound->second.empty())
      bound_.erase(bound);
  }
  if (entry.kind == Kind::folder && this->contents(id).empty())
    contents_.erase(id);
}

void Index::change(const EntryRef& entry, v1::ResourceRecord record) {
  erase(*entry);
  entry->record = std::move(record);
  insert(entry);
  set_access(entry, std::move(entry->access));
}

void Index::set_access(const EntryRef& entry, Bindings bindings) {
  entry->access = std::move(bindings);
  auto& bound = bound_[entry->folder()];
  if (entry->access.empty() || entry->in_trash())
    bound.erase(entry);
  else
    bound.insert(entry);
  if (bound.empty())
    bound_.erase(entry->folder());
}

const std::set<EntryRef>& Index::bound_in(const std::string& folder) const {
  static const std::set<EntryRef> kNone;
  const auto found = bound_.find(folder);
  return found == bound_.end() ? kNone : found->second;
}

void Index::reserve(Kind kind, const std::string& folder, const std::string& name) {
  const bool is_new = reserved_.emplace(kind, folder, name).second;
  OBRAZ_CHECK(is_new);
}

void Index::release(Kind kind, const std::string& folder, const std::string& name) {
  reserved_.erase({kind, folder, name});
}

bool Index::is_taken(Kind kind, const std::string& folder, const std::string& name) const {
  return find_name(kind, folder, name) || reserved_.contains({kind, folder, name});
}

Index::Contents Index::contents(const std::string& folder) const {
  const auto found = contents_.find(folder);
  return found == contents_.end() ? Contents() : found->second;
}

EntryRef Index::find_id(std::string_view id) const {
  const auto found = by_id_.find(std::string(id));
  return found == by_id_.end() ? nullptr : found->second;
}

EntryRef Index::find_trashed(std::string_view id) const {
  const auto found = trash_.find(std::string(id));
  return found == trash_.end() ? nullptr : found->second;
}

void Index::each_trashed(std::string_view folder, int64_t before,
                         const std::function<bool(const EntryRef&)>& visit) const {
  const auto found = trash_of_.find(std::string(folder));
  if (found == trash_of_.end())
    return;
  for (auto at = found->second.lower_bound({before, std::string()}); at != found->second.begin();)
    if (!visit((--at)->second))
      return;
}

EntryRef Index::first_to_purge() const {
  return to_purge_.empty() ? nullptr : to_purge_.begin()->second;
}

EntryRef Index::find_name(Kind kind, std::string_view folder, std::string_view name) const {
  if (name.empty())
    return nullptr;
  const auto found = by_name_.lower_bound({kind, std::string(folder), std::string(name), std::string()});
  if (found == by_name_.end() || found->second->kind != kind || std::get<1>(found->first) != folder ||
      std::get<2>(found->first) != name)
    return nullptr;
  return found->second;
}

EntryRef Index::find(Kind kind, std::string_view folder, std::string_view id_or_name) const {
  if (!is_id(id_or_name))
    return find_name(kind, folder, id_or_name);
  const EntryRef entry = find_id(id_or_name);
  return entry && entry->kind == kind ? entry : nullptr;
}

EntryRef Index::find_export(std::string_view export_name) const {
  if (is_id(export_name)) {
    const EntryRef entry = find_id(export_name);
    return entry && has_volume(entry->kind) ? entry : nullptr;
  }
  const size_t slash = export_name.find('/');
  if (slash == std::string_view::npos)
    return nullptr;
  const auto kind = volume_kind_from_word(export_name.substr(0, slash));
  if (!kind)
    return nullptr;
  std::string_view folder = kDefaultFolder, name = export_name.substr(slash + 1);
  if (const size_t second = name.find('/'); second != std::string_view::npos) {
    folder = name.substr(0, second);
    name = name.substr(second + 1);
  }
  const EntryRef in = find(Kind::folder, "", folder);
  return in ? find_name(*kind, in->id(), name) : nullptr;
}

EntryRef Index::latest_of_family(std::string_view folder, std::string_view family,
                                 const Visible& visible) const {
  const auto found = by_family_.find({std::string(folder), std::string(family)});
  if (found == by_family_.end())
    return nullptr;
  for (auto image = found->second.rbegin(); image != found->second.rend(); ++image) {
    if (image->second->status() == v1::READY &&
        image->second->record.image().deprecation().state() == v1::Deprecation::ACTIVE &&
        visible(*image->second))
      return image->second;
  }
  return nullptr;
}

Index::Page Index::list(Kind kind, std::string_view folder, const ListQuery& query,
                        const Visible& visible) const {
  return query.order.is_default() ? list_by_name(kind, folder, query, visible)
                                  : list_sorted(kind, folder, query, visible);
}

void Index::each(Kind kind, std::string_view folder,
                 const std::function<bool(const EntryRef&)>& visit) const {
  for (auto at = by_name_.lower_bound({kind, std::string(folder), std::string(), std::string()});
       is_in(at, kind, folder) && visit(at->second); ++at) {
  }
}

void Index::each_of(Kind kind, const std::function<void(const EntryRef&)>& visit) const {
  for (auto at = by_name_.lower_bound({kind, std::string(), std::string(), std::string()});
       at != by_name_.end() && std::get<0>(at->first) == kind; ++at)
    visit(at->second);
}

bool Index::is_in(ByName::const_iterator at, Kind kind, std::string_view folder) const {
  return at != by_name_.end() && std::get<0>(at->first) == kind && std::get<1>(at->first) == folder;
}

// As the map has them; ends early rather than look at too many that do not match.
Index::Page Index::list_by_name(Kind kind, std::string_view folder, const ListQuery& query,
                                const Visible& visible) const {
  const auto key = [&](const std::string& name, const std::string& id) {
    return NameKey{kind, std::string(folder), name, id};
  };
  const auto name = query.filter.exact_name();
  const NameKey from = key(name.value_or(""), "");
  auto at = by_name_.lower_bound(from);
  if (query.after && key(query.after->name, query.after->id) >= from)
    at = by_name_.upper_bound(key(query.after->name, query.after->id));
  Page page;
  uint64_t bytes = 0;
  unsigned looked = 0;
  for (; is_in(at, kind, folder); ++at) {
    const EntryRef& entry = at->second;
    const bool full = page.entries.size() >= query.page_size || bytes >= limits::kMaxListBytes ||
                      looked >= limits::kMaxListLooks;
    if (full) {
      page.next_page_token = std::prev(at)->second->with_facts(
          [&](const Facts& facts) { return PageToken::encode(facts, query.filter, query.order); });
      break;
    }
    ++looked;
    if (name && entry->name() != *name)
      break;
    if (!visible(*entry) ||
        !entry->with_facts([&](const Facts& facts) { return query.filter.matches(facts); }))
      continue;
    page.entries.push_back(entry);
    bytes += entry->record.ByteSizeLong();
  }
  return page;
}

// All are looked at, and the first of a page kept: a page costs the same wherever it is.
Index::Page Index::list_sorted(Kind kind, std::string_view folder, const ListQuery& query,
                               const Visible& visible) const {
  struct Candidate {
    Facts facts;  // without its labels
    EntryRef entry;
  };
  const auto before = [&](const Candidate& a, const Candidate& b) {
    return query.order.before(a.facts, b.facts);
  };
  std::vector<Candidate> first;  // a heap of the best so far, the last of them on top
  bool more = false;
  for (auto at = by_name_.lower_bound({kind, std::string(folder), std::string(), std::string()});
       is_in(at, kind, folder); ++at) {
    if (!visible(*at->second))
      continue;
    at->second->with_facts([&](const Facts& facts) {
      if ((query.after && !query.order.before(query.after->facts(), facts)) || !query.filter.matches(facts))
        return;
      Candidate candidate{facts, at->second};
      candidate.facts.labels = nullptr;
      if (first.size() == query.page_size) {
        more = true;
        if (!before(candidate, first.front()))
          return;
        std::ranges::pop_heap(first, before);
        first.pop_back();
      }
      first.push_back(std::move(candidate));
      std::ranges::push_heap(first, before);
    });
  }
  std::ranges::sort_heap(first, before);
  Page page;
  uint64_t bytes = 0;
  for (Candidate& candidate : first) {
    if (bytes >= limits::kMaxListBytes) {
      more = true;
      break;
    }
    bytes += candidate.entry->record.ByteSizeLong();
    page.entries.push_back(std::move(candidate.entry));
  }
  if (more)
    page.next_page_token = page.entries.back()->with_facts(
        [&](const Facts& facts) { return PageToken::encode(facts, query.filter, query.order); });
  return page;
}

std::vector<EntryRef> Index::all() const {
  std::vector<EntryRef> entries;
  entries.reserve(by_id_.size() + trash_.size());
  for (const auto& [key, entry] : by_name_)
    entries.push_back(entry);
  for (const auto& [key, entry] : to_purge_)
    entries.push_back(entry);
  return entries;
}

}  // namespace obraz
