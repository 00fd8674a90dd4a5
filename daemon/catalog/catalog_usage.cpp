// Catalog: what is used, for billing. A folder's record has what was used up to an instant (as_of) by what is
// in it now, and all of what is not any more. What has been used since follows from the resources themselves:
// so a resource is made without writing any of it, a deletion or a change of size writes it in the same
// transaction, and a crash loses nothing. Only exclusive and shared bytes are not known at every instant:
// they are counted in rounds, and what was found counts from the round before on.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>

#include "base/limits.h"
#include "base/log.h"
#include "catalog/catalog.h"
#include "catalog/codes.h"
#include "catalog/rules.h"

namespace obraz {
namespace {

constexpr auto kRest = std::chrono::milliseconds(1);  // at least, between two volumes
constexpr int kRestShare = 20;                        // times as long as counting took

v1::Os::Type os_of(const v1::ResourceRecord& record) {
  const v1::Os::Type type = visit_resource(record, [](const auto& resource) {
    if constexpr (requires { resource.os(); })
      return resource.os().type();
    else
      return v1::Os::LINUX;
  });
  return type == v1::Os::WINDOWS ? type : v1::Os::LINUX;
}

// The instant from which on it has been as it is, as far as usage goes.
int64_t level_since(const Entry& entry) {
  return std::max(to_nanoseconds(entry.created_at()), to_nanoseconds(entry.record.level_since()));
}

}  // namespace

void Catalog::load_usage(const v1::UsageRecord& record) {
  FolderUsage& usage = usage_[record.folder_id()];
  usage.name = record.folder_name();
  usage.as_of = to_nanoseconds(record.as_of());
  usage.rows.read(record);
  clock_.advance_past(record.as_of());
}

boost::asio::awaitable<Answer<void>> Catalog::forget_usage() {
  const int64_t now = to_nanoseconds(clock_.next());
  std::vector<std::string> forgotten;
  for (auto& [id, usage] : usage_) {
    usage.rows.forget_before(now);
    if (usage.rows.all().empty() && !index_.find_id(id))
      forgotten.push_back(id);
  }
  for (const std::string& id : forgotten) {
    Transaction transaction;
    transaction.push_back(RemoveResource{"usage/" + id});
    const Status status = co_await store_.commit(std::move(transaction));
    if (!status)
      co_return std::unexpected(refusal_of(status.error(), "forgetting old usage"));
    usage_.erase(id);
  }
  co_return Answer<void>();
}

void Catalog::add_usage(UsageRows& rows, const FolderUsage& usage, const Entry& entry, int64_t now) const {
  rows.add(entry.kind, os_of(entry.record), {entry.size_bytes(), entry.exclusive_bytes, entry.shared_bytes},
           std::max(usage.as_of, level_since(entry)), now);
}

PutResource Catalog::usage_record(const std::string& folder, FolderUsage& usage, int64_t now) const {
  if (const EntryRef entry = index_.find_id(folder))
    usage.name = entry->name();
  usage.rows.forget_before(now);
  v1::ResourceRecord record;
  v1::UsageRecord& message = *record.mutable_usage();
  message.set_folder_id(folder);
  message.set_folder_name(usage.name);
  *message.mutable_as_of() = to_timestamp(usage.as_of);
  usage.rows.write(message);
  return PutResource{"usage/" + folder, record.SerializeAsString()};
}

// Of decisions that are carried out in their order, the records have all of those before them.
void Catalog::append_usage(Plan& plan, Transaction& transaction) {
  const google::protobuf::Timestamp now = clock_.next();
  std::set<std::string> folders;
  const auto close = [&](const Entry& entry) {
    if (!has_volume(entry.kind))
      return;
    FolderUsage& usage = usage_[entry.folder()];
    add_usage(usage.rows, usage, entry, to_nanoseconds(now));
    folders.insert(entry.folder());
  };
  for (const EntryRef& entry : plan.removed)
    close(*entry);
  for (Plan::Changed& change : plan.changed) {
    if (change.access || !has_volume(change.entry->kind))
      continue;
    const v1::ResourceRecord& before = change.entry->record;
    if (size_bytes_of(before) == size_bytes_of(change.after) && os_of(before) == os_of(change.after))
      continue;
    close(*change.entry);
    *change.after.mutable_level_since() = now;
  }
  for (const std::string& folder : folders)
    transaction.push_back(usage_record(folder, usage_[folder], to_nanoseconds(now)));
}

Answer<v1::GetUsageResponse> Catalog::get_usage(const Caller& caller, const v1::GetUsageRequest& request) {
  const auto month = [](const std::string& text, std::string_view field, int otherwise) -> Answer<int> {
    if (text.empty())
      return otherwise;
    if (const auto parsed = parse_month(text))
      return *parsed;
    return refuse(ErrorCode::invalid_argument, std::string(field),
                  "a month is YEAR-MONTH, for instance 2026-11");
  };
  const auto from = month(request.from_month(), "from_month", 0);
  const auto to = month(request.to_month(), "to_month", INT32_MAX);
  if (!from)
    return std::unexpected(from.error());
  if (!to)
    return std::unexpected(to.error());
  std::vector<std::string> folders;
  if (!request.folder_id().empty()) {
    const auto known = index_.find(Kind::folder, "", request.folder_id());
    if (!known && caller.subject->superuser && usage_.contains(request.folder_id())) {
      folders.push_back(request.folder_id());  // one that has been deleted, by its id
    } else {
      const auto folder = find_folder(*caller.subject, Right::see, request.folder_id(), "folder_id");
      if (!folder)
        return std::unexpected(folder.error());
      folders.push_back((*folder)->id());
    }
  } else {
    const auto visible = visible_to(*caller.subject);
    index_.each(Kind::folder, "", [&](const EntryRef& folder) {
      if (visible(*folder))
        folders.push_back(folder->id());
      return true;
    });
    for (const auto& [id, usage] : usage_)
      if (caller.subject->superuser && !index_.find_id(id))
        folders.push_back(id);
    std::ranges::sort(folders);
  }
  // A token is the id of the folder to go on with, which need not be there any more.
  v1::GetUsageResponse response;
  const int64_t now = to_nanoseconds(clock_.next());
  for (auto at = std::ranges::lower_bound(folders, request.page_token()); at != folders.end(); ++at) {
    if (response.rows_size() >= int(limits::kMaxPageSize)) {
      response.set_next_page_token(*at);
      break;
    }
    append_usage_rows(*at, now, *from, *to, response);
  }
  return response;
}

void Catalog::append_usage_rows(const std::string& folder, int64_t now, int from, int to,
                                v1::GetUsageResponse& response) const {
  const auto known = usage_.find(folder);
  const FolderUsage usage = known == usage_.end() ? FolderUsage() : known->second;
  UsageRows rows = usage.rows;
  each_volume_in(folder, [&](const EntryRef& entry) { add_usage(rows, usage, *entry, now); });
  const EntryRef entry = index_.find_id(folder);
  for (const auto& [key, amounts] : rows.all()) {
    if (key.month < from || key.month > to)
      continue;
    v1::UsageRow& row = *response.add_rows();
    row.set_folder_id(folder);
    row.set_folder_name(entry ? entry->name() : usage.name);
    row.set_month(format_month(key.month));
    row.set_kind(word_for(key.kind));
    row.mutable_os()->set_type(key.os);
    *row.mutable_amounts() = to_message(amounts);
  }
}

void Catalog::each_volume_in(const std::string& folder,
                             const std::function<void(const EntryRef&)>& visit) const {
  const auto each = [&](const EntryRef& entry) {
    if (entry->status() != v1::CREATING)
      visit(entry);
    return true;
  };
  for (const Kind kind : kVolumeKinds)
    index_.each(kind, folder, each);
  index_.each_trashed(folder, INT64_MAX, each);
}

boost::asio::awaitable<void> Catalog::count_usage(bool gently) {
  std::vector<std::string> folders;
  index_.each(Kind::folder, "", [&](const EntryRef& folder) {
    folders.push_back(folder->id());
    return true;
  });
  for (const std::string& folder : folders) {
    std::vector<EntryRef> entries;
    each_volume_in(folder, [&](const EntryRef& entry) { entries.push_back(entry); });
    for (const EntryRef& entry : entries) {
      const auto began = std::chrono::steady_clock::now();
      if (stopping_)
        co_return;
      const Result<Store::Usage> found = co_await store_.usage(entry->volume());
      if (found) {  // else it is gone, or damaged: what was found last counts on
        entry->exclusive_bytes = std::min(found->exclusive_bytes, found->mapped_bytes);
        entry->shared_bytes = found->mapped_bytes - entry->exclusive_bytes;
      }
      if (!gently)
        continue;
      usage_timer_.expires_after(
          std::max<std::chrono::nanoseconds>(kRest, kRestShare * (std::chrono::steady_clock::now() - began)));
      co_await usage_timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    }
    if (stopping_ || entries.empty() || !index_.find_id(folder))
      continue;
    const google::protobuf::Timestamp now = clock_.next();
    FolderUsage& usage = usage_[folder];
    each_volume_in(folder,
                   [&](const EntryRef& entry) { add_usage(usage.rows, usage, *entry, to_nanoseconds(now)); });
    usage.as_of = to_nanoseconds(now);
    Transaction transaction;
    transaction.push_back(usage_record(folder, usage, to_nanoseconds(now)));
    const Status status = co_await store_.commit(std::move(transaction));
    if (!status) {
      log::warning("catalog: keeping the usage of a folder: {}", describe(status.error()));
      co_return;
    }
  }
}

boost::asio::awaitable<void> Catalog::keep_usage() {
  auto wait = std::chrono::seconds(limits::kFirstUsageRoundSeconds);
  while (!stopping_) {
    usage_timer_.expires_after(wait);
    co_await usage_timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    if (!stopping_)
      co_await count_usage(true);
    wait = std::chrono::seconds(limits::kUsageRoundSeconds);
  }
  end_background();
}

}  // namespace obraz
