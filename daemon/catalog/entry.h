// Entry: one disk, snapshot, image or folder as the catalog holds it in memory, and what is going on with it.
//
// Invariants: `record` is what the store has, but for its status and counted space, which are of now, and its
// volume, 0 when it is missing; `busy` is set from the moment a change of the entry itself is decided until
// it is durable or has failed, and while it is set nothing else changes, copies or attaches it. Thread: the
// control thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/check.h"
#include "catalog/access.h"
#include "catalog/facts.h"
#include "catalog/kind.h"
#include "catalog/time.h"
#include "obraz/v1/record.pb.h"
#include "store/types.h"

namespace obraz {

struct Attachment {
  std::string subject;  // user:NAME
  std::string client;   // for people: an address, a process
  bool read_only = false;
  google::protobuf::Timestamp since = {};
};

// What went over attachments until now, by session.
struct SessionBytes {
  uint64_t read = 0, written = 0;
};
using Traffic = std::map<uint64_t, SessionBytes>;

// Calls `visit` with the Image, Disk, Snapshot, Folder or SnapshotSchedule in the record (const or not).
template <typename Record, typename Visitor>
auto visit_resource(Record& record, Visitor&& visit) {
  if constexpr (std::is_const_v<Record>) {
    switch (record.resource_case()) {
      case v1::ResourceRecord::kImage:
        return visit(record.image());
      case v1::ResourceRecord::kDisk:
        return visit(record.disk());
      case v1::ResourceRecord::kSnapshot:
        return visit(record.snapshot());
      case v1::ResourceRecord::kFolder:
        return visit(record.folder());
      case v1::ResourceRecord::kSchedule:
        return visit(record.schedule());
      default:
        break;
    }
  } else {
    switch (record.resource_case()) {
      case v1::ResourceRecord::kImage:
        return visit(*record.mutable_image());
      case v1::ResourceRecord::kDisk:
        return visit(*record.mutable_disk());
      case v1::ResourceRecord::kSnapshot:
        return visit(*record.mutable_snapshot());
      case v1::ResourceRecord::kFolder:
        return visit(*record.mutable_folder());
      case v1::ResourceRecord::kSchedule:
        return visit(*record.mutable_schedule());
      default:
        break;
    }
  }
  OBRAZ_CHECK(!"a record of the index is a resource");
}

uint64_t size_bytes_of(const v1::ResourceRecord& record);  // of its volume

struct Entry {
  Kind kind = Kind::disk;
  v1::ResourceRecord record;
  bool busy = false;
  bool deleting = false;                           // the change is its deletion
  bool measured = false;                           // storage_size has been counted
  Bindings access;                                 // sorted by role and subject
  v1::ImageContent content;                        // of an image, as far as it is known
  uint64_t exclusive_bytes = 0, shared_bytes = 0;  // when they were counted for usage last
  unsigned readers = 0;                            // exports to files under way
  std::map<uint64_t, Attachment> attachments;      // by session

  template <typename Visitor>
  auto visit(Visitor&& visitor) const {
    return visit_resource(record, std::forward<Visitor>(visitor));
  }
  std::string id() const {
    return visit([](const auto& r) { return r.id(); });
  }
  std::string name() const {
    return visit([](const auto& r) { return r.name(); });
  }
  // Id of the folder it is in; empty for a folder.
  std::string folder() const {
    return visit([](const auto& r) -> std::string {
      if constexpr (requires { r.folder_id(); })
        return r.folder_id();
      else
        return {};
    });
  }
  bool in_trash() const { return record.has_purge_at(); }
  bool is_protected() const {
    return visit([](const auto& r) { return r.delete_protection(); });
  }
  google::protobuf::Timestamp created_at() const {
    return visit([](const auto& r) { return r.created_at(); });
  }
  v1::ResourceStatus status() const {
    return deleting ? v1::DELETING : visit([](const auto& r) { return r.status(); });
  }
  void set_status(v1::ResourceStatus status) {
    visit_resource(record, [&](auto& r) { r.set_status(status); });
  }
  // The store keeps something of it.
  bool has_content() const { return content.has_layout() || !content.digest().empty(); }
  VolumeId volume() const { return VolumeId{record.volume_id()}; }
  uint64_t size_bytes() const { return size_bytes_of(record); }
  // Calls `use` with what filters and orders know of it.
  template <typename Use>
  auto with_facts(Use&& use) const {
    return visit([&](const auto& r) {
      const LabelsOf labels(r.labels());
      Facts facts{.id = r.id(),
                  .name = r.name(),
                  .status = v1::ResourceStatus_Name(status()),
                  .created_at = to_nanoseconds(r.created_at()),
                  .labels = &labels};
      if constexpr (requires { r.family(); })
        facts.family = r.family();
      if constexpr (requires { r.os(); }) {
        if (r.os().type() != v1::Os::TYPE_UNSPECIFIED)
          facts.os_type = v1::Os::Type_Name(r.os().type());
      }
      return use(std::as_const(facts));
    });
  }
  // "disk vm1", or "disk 1x0…" when it has no name.
  std::string title() const;
  // Key of its record in the store.
  std::string key() const { return resource_key(kind, id()); }
  // Of who may do what with it.
  std::string access_key() const { return std::string("access/").append(id()); }
  // And of what is on it.
  std::string content_key() const { return std::string("content/").append(id()); }
  static std::string resource_key(Kind kind, std::string_view id) {
    return std::string(word_for(kind)).append("/").append(id);
  }
};
using EntryRef = std::shared_ptr<Entry>;

}  // namespace obraz
