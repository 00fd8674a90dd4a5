// Index: every disk, snapshot and image in memory, by id, by folder, kind and name, and images by family.
//
// Invariants: an entry is in all of its maps or in none; a name that is not empty is in a folder and kind
// once, from the moment it is reserved. Listing order is by name, then id, and a page token names the last
// entry of its page, so pages stay stable while resources come and go. Thread: the control thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/refusal.h"
#include "catalog/entry.h"

namespace obraz {

class Index {
 public:
  // The caller has made sure that the id is new and that the name is free.
  void insert(EntryRef entry);
  void erase(const Entry& entry);

  EntryRef find_id(std::string_view id) const;  // null: none
  EntryRef find_name(Kind kind, std::string_view folder, std::string_view name) const;
  // By id, or by name in the folder.
  EntryRef find(Kind kind, std::string_view folder, std::string_view id_or_name) const;
  // disk/NAME, disk/FOLDER/NAME (and snapshot, image), or an id.
  EntryRef find_export(std::string_view export_name) const;
  // The newest READY image of the family.
  EntryRef latest_of_family(std::string_view folder, std::string_view family) const;

  struct Page {
    std::vector<EntryRef> entries;
    std::string next_page_token;  // empty: the last page
  };
  Answer<Page> list(Kind kind, std::string_view folder, unsigned page_size,
                    std::string_view page_token) const;

  size_t count(Kind kind) const { return counts_[size_t(kind)]; }
  std::vector<EntryRef> all() const;

 private:
  using NameKey = std::tuple<Kind, std::string, std::string, std::string>;  // kind, folder, name, id
  using FamilyKey = std::pair<std::string, std::string>;                    // folder, family
  static NameKey name_key(const Entry& entry) {
    return {entry.kind, entry.folder(), entry.name(), entry.id()};
  }

  std::unordered_map<std::string, EntryRef> by_id_;
  std::map<NameKey, EntryRef> by_name_;
  std::map<FamilyKey, std::map<int64_t, EntryRef>> by_family_;  // then by creation, which is unique
  size_t counts_[4] = {};
};

}  // namespace obraz
