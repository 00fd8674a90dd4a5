// Rules of names, labels and sizes: what a request may say, whatever the state. docs/control-api.md has them
// as a table.
//
// Each refuses with the field at fault and a sentence. Pure; any thread.
#pragma once

#include <google/protobuf/field_mask.pb.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "base/refusal.h"
#include "obraz/v1/folder.pb.h"

namespace obraz::rules {

// Empty, or 1–63 characters: a–z first, then a–z 0–9 - _, a letter or digit last.
Answer<void> check_name(std::string_view name, std::string_view field = "name");
// Empty, or 3–63 characters: a–z first, then a–z 0–9 -, a letter or digit last.
Answer<void> check_family(std::string_view family);
// At most 256 characters of UTF-8.
Answer<void> check_description(std::string_view description);
// At most 64; keys 1–63 characters, a–z first, then a–z 0–9 - _ . / \ @; values at most 63 of the latter.
Answer<void> check_labels(const std::map<std::string, std::string>& labels);
// Empty, or at most 100 printable ASCII characters.
Answer<void> check_idempotency_key(std::string_view key);

// At most 64 of 1–50 printable ASCII characters.
Answer<void> check_product_ids(const google::protobuf::RepeatedPtrField<std::string>& ids);
Answer<void> check_hardware_generation(v1::HardwareGeneration generation);
// Numbers that are not negative.
Answer<void> check_quota(const v1::Quota& quota);
// 0 to 90 days.
Answer<void> check_trash_seconds(int64_t seconds);
// The fields that an update names: at least one, each of `allowed`.
Answer<std::set<std::string>> update_mask(const google::protobuf::FieldMask& mask,
                                          std::initializer_list<std::string_view> allowed);

// A disk's size as asked for: 1 byte – 4 TiB; rounded up to 4 MiB.
Answer<uint64_t> disk_size(int64_t asked, std::string_view field = "size");
// An image's smallest disk: 4 MiB – 4 TiB, not below `source_size`; 0 asks for `source_size`.
Answer<uint64_t> min_disk_size(int64_t asked, uint64_t source_size);

// 1–1000, 0 asks for 100.
Answer<unsigned> page_size(int64_t asked);
// Of a page token that is a number; 0 when there is none.
Answer<uint64_t> page_position(std::string_view page_token, uint64_t most);

// Where an image may go to: an absolute path of at most 4096 bytes without NUL …
Answer<void> check_path(std::string_view path, std::string_view field);
// … and come from: that, or a URI of libnbd's: nbd, nbds, with +unix or +vsock.
Answer<void> check_import_source(std::string_view source);
bool is_nbd_uri(std::string_view source);
// Empty, or 64 hexadecimal digits, which become small ones.
Answer<std::string> sha256(std::string_view text);
// raw, qcow2, vmdk, vpc, vhdx, vdi or empty; to export raw, qcow2 or empty.
Answer<void> check_import_format(std::string_view format);
Answer<void> check_export_format(std::string_view format);

}  // namespace obraz::rules
