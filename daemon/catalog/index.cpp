#include "catalog/index.h"

#include "base/limits.h"

namespace obraz {

namespace {

std::pair<int64_t, std::string> age_of(const Entry& entry) {
  return {to_nanoseconds(entry.created_at()), entry.id()};
}

}  // namespace

void Index::insert(EntryRef entry) {
  OBRAZ_CHECK(entry->name().empty() || !find_name(entry->kind, entry->folder(), entry->name()));
  const bool is_new = by_id_.emplace(entry->id(), entry).second;
  OBRAZ_CHECK(is_new);
  by_name_.emplace(name_key(*entry), entry);
  if (entry->kind == Kind::image && !entry->record.image().family().empty())
    by_family_[{entry->folder(), entry->record.image().family()}].emplace(age_of(*entry), entry);
  ++counts_[size_t(entry->kind)];
  Contents& contents = contents_[entry->folder()];
  ++contents.counts[size_t(entry->kind)];
  contents.bytes += int64_t(entry->size_bytes());
}

void Index::erase(const Entry& entry) {
  const std::string id = entry.id();
  const EntryRef kept = find_id(id);  // `entry` may live by the maps alone
  OBRAZ_CHECK(kept.get() == &entry);
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
  Contents& contents = contents_[entry.folder()];
  --contents.counts[size_t(entry.kind)];
  contents.bytes -= int64_t(entry.size_bytes());
  if (entry.kind == Kind::folder && this->contents(id).empty())
    contents_.erase(id);
}

void Index::change(const EntryRef& entry, v1::ResourceRecord record) {
  erase(*entry);
  entry->record = std::move(record);
  insert(entry);
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
    return entry && entry->kind != Kind::folder ? entry : nullptr;
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

EntryRef Index::latest_of_family(std::string_view folder, std::string_view family) const {
  const auto found = by_family_.find({std::string(folder), std::string(family)});
  if (found == by_family_.end())
    return nullptr;
  for (auto image = found->second.rbegin(); image != found->second.rend(); ++image) {
    if (image->second->status() == v1::READY &&
        image->second->record.image().deprecation().state() == v1::Deprecation::ACTIVE)
      return image->second;
  }
  return nullptr;
}

Answer<Index::Page> Index::list(Kind kind, std::string_view folder, unsigned page_size,
                                std::string_view page_token) const {
  auto at = by_name_.lower_bound({kind, std::string(folder), std::string(), std::string()});
  if (!page_token.empty()) {
    const size_t slash = page_token.find('/');
    if (page_token.size() > limits::kMaxPageToken || slash == std::string_view::npos ||
        (!is_id(page_token.substr(slash + 1)) && page_token.substr(slash + 1) != kDefaultFolder))
      return refuse(ErrorCode::invalid_argument, "page_token",
                    "page_token must be one that an earlier page answered");
    at = by_name_.upper_bound({kind, std::string(folder), std::string(page_token.substr(0, slash)),
                               std::string(page_token.substr(slash + 1))});
  }
  Page page;
  uint64_t bytes = 0;
  const auto in_range = [&] {
    return at != by_name_.end() && at->second->kind == kind && std::get<1>(at->first) == folder;
  };
  for (; in_range() && page.entries.size() < page_size && bytes < limits::kMaxListBytes; ++at) {
    page.entries.push_back(at->second);
    bytes += at->second->record.ByteSizeLong();
  }
  if (in_range() && !page.entries.empty())
    page.next_page_token = page.entries.back()->name() + "/" + page.entries.back()->id();
  return page;
}

std::vector<EntryRef> Index::all() const {
  std::vector<EntryRef> entries;
  entries.reserve(by_id_.size());
  for (const auto& [key, entry] : by_name_)
    entries.push_back(entry);
  return entries;
}

}  // namespace obraz
