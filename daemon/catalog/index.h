// Index: every resource in memory, by id, by folder, kind and name, and images by family; what each folder
// holds; and the trash.
//
// Invariants: an entry is in all of its maps or in none, and what is in the trash only in those of the trash,
// so that nobody finds it who does not look there; a name that is not empty is in a folder and kind once,
// from the moment it is reserved; records of entries in it change by change() where a map or a sum goes by
// them. A page token names a position in the order of its list, so pages stay stable while resources come and
// go. Thread: the control thread.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/refusal.h"
#include "catalog/entry.h"
#include "catalog/list_query.h"

namespace obraz {

class Index {
 public:
  using Visible = std::function<bool(const Entry&)>;

  // The caller has made sure that the id is new and that the name is free.
  void insert(EntryRef entry);
  void erase(const Entry& entry);
  // Gives the entry other bindings.
  void set_access(const EntryRef& entry, Bindings bindings);
  // What has bindings of its own in a folder.
  const std::set<EntryRef>& bound_in(const std::string& folder) const;
  // Gives the entry another record.
  void change(const EntryRef& entry, v1::ResourceRecord record);

  // Names and bytes that are promised to a change under way.
  void reserve(Kind kind, const std::string& folder, const std::string& name);
  void release(Kind kind, const std::string& folder, const std::string& name);
  void reserve_bytes(const std::string& folder, int64_t bytes) { contents_[folder].bytes += bytes; }
  bool is_taken(Kind kind, const std::string& folder, const std::string& name) const;

  EntryRef find_id(std::string_view id) const;  // null: none
  EntryRef find_trashed(std::string_view id) const;
  EntryRef find_name(Kind kind, std::string_view folder, std::string_view name) const;
  // By id, or by name in the folder.
  EntryRef find(Kind kind, std::string_view folder, std::string_view id_or_name) const;
  // disk/NAME, disk/FOLDER/NAME (and snapshot, image), or an id of one of them.
  EntryRef find_export(std::string_view export_name) const;
  // The newest image of the family that is READY and neither DEPRECATED nor OBSOLETE.
  EntryRef latest_of_family(std::string_view folder, std::string_view family, const Visible& visible) const;

  struct Page {
    std::vector<EntryRef> entries;
    std::string next_page_token;  // empty: the last page
  };
  // A page may be short, or empty, and yet not the last: looking for more would have taken too long.
  Page list(Kind kind, std::string_view folder, const ListQuery& query, const Visible& visible) const;
  // By name, then id, until `visit` says false.
  void each(Kind kind, std::string_view folder, const std::function<bool(const EntryRef&)>& visit) const;
  // In all folders, in no order that means anything.
  void each_of(Kind kind, const std::function<void(const EntryRef&)>& visit) const;

  struct Contents {
    uint64_t counts[kKindEnd] = {};  // by kind, the trash included
    uint64_t trashed = 0;
    int64_t bytes = 0;
    bool empty() const {
      return std::ranges::all_of(counts, [](uint64_t count) { return count == 0; });
    }
  };
  Contents contents(const std::string& folder) const;

  // The trash of a folder from the newest on, before an instant of deletion (nanoseconds), until `visit` says
  // false.
  void each_trashed(std::string_view folder, int64_t before,
                    const std::function<bool(const EntryRef&)>& visit) const;
  EntryRef first_to_purge() const;  // null: the trash is empty

  size_t count(Kind kind) const { return counts_[size_t(kind)]; }
  size_t trashed() const { return trash_.size(); }
  std::vector<EntryRef> all() const;  // with the trash

 private:
  using NameKey = std::tuple<Kind, std::string, std::string, std::string>;  // kind, folder, name, id
  using FamilyKey = std::pair<std::string, std::string>;                    // folder, family
  static NameKey name_key(const Entry& entry) {
    return {entry.kind, entry.folder(), entry.name(), entry.id()};
  }

  using ByName = std::map<NameKey, EntryRef>;
  bool is_in(ByName::const_iterator at, Kind kind, std::string_view folder) const;
  Page list_by_name(Kind kind, std::string_view folder, const ListQuery& query, const Visible& visible) const;
  Page list_sorted(Kind kind, std::string_view folder, const ListQuery& query, const Visible& visible) const;

  void insert_trashed(EntryRef entry);
  void erase_trashed(const EntryRef& entry);

  std::unordered_map<std::string, EntryRef> by_id_;
  ByName by_name_;
  // Then by creation, and by id for two of one instant.
  std::map<FamilyKey, std::map<std::pair<int64_t, std::string>, EntryRef>> by_family_;
  std::set<std::tuple<Kind, std::string, std::string>> reserved_;
  std::unordered_map<std::string, Contents> contents_;  // by folder
  std::unordered_map<std::string, std::set<EntryRef>> bound_;
  size_t counts_[kKindEnd] = {};

  using Instant = std::pair<int64_t, std::string>;  // then by id
  std::unordered_map<std::string, EntryRef> trash_;
  std::unordered_map<std::string, std::map<Instant, EntryRef>>
      trash_of_;  // by folder; by instant of deletion
  std::map<Instant, EntryRef> to_purge_;
};

}  // namespace obraz
