// What `obraz-store dump` shows: the roots of a store, the journal behind the newest of them, and the
// checkpoint that it names: tables, trees and resources. All as it lies on the devices: the journal is not
// replayed and nothing is repaired, so it also tells of stores that do not open. What cannot be read is shown
// with its error, and what comes after it still follows.
//
// Invariants: only reads; what is shown is written at once, so memory does not grow with the journal or the
// trees. Thread: the reactor's.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/refusal.h"
#include "io/device.h"
#include "io/task.h"
#include "store/types.h"

namespace obraz {

// A JSON string, quotes included; what is not UTF-8 becomes question marks.
std::string json_quoted(std::string_view text);

// One document, written as it comes: JSON for programs, indented lines for people.
class DumpWriter {
 public:
  DumpWriter(std::FILE* out, bool json) : out_(out), json_(json) {}

  enum class Layout : uint8_t { lines, line };         // for people: one field a line, or all in one
  void begin(const char* name, Layout layout);         // an object; name null: an element of a list
  void begin_list(const char* name);                   //
  void end();                                          // of either
  void field(const char* name, uint64_t value);        //
  void flag(const char* name, bool value);             //
  void text(const char* name, std::string_view text);  //
  void checksum(const char* name, uint32_t value);     // a number; for people in hexadecimal
  void size(const char* name, uint64_t bytes);         // a number; for people with a unit, too
  // A value that has a form of its own for each: a JSON value, and lines of text.
  void document(const char* name, std::string_view json, std::string_view lines);

 private:
  struct Level {
    bool list = false, one_line = false, empty = true;
  };
  void put(std::string_view text) { std::fwrite(text.data(), 1, text.size(), out_); }
  void new_line(size_t depth);
  // What stands before a value. For people, one with lines of its own begins a new line.
  void lead(const char* name, bool lines_follow);
  void value(const char* name, std::string_view json, std::string_view plain);

  std::FILE* out_;
  bool json_;
  std::vector<Level> levels_;
};

struct DumpOptions {
  bool slots = false;              // those in use of every leaf
  std::optional<uint64_t> volume;  // the tree of this one only, with its slots
};

// What dump_store() came across.
struct DumpOutcome {
  bool superblock = false;  // one is valid
  bool volume = false;      // the one that was asked for is there
  uint64_t unreadable = 0;  // pieces that could not be read, or do not verify
};

// Refuses devices that are too short to hold a store.
Task<Answer<DumpOutcome>> dump_store(Device& meta, Device& data, DumpOptions options, DumpWriter& out);

// --- for dump_store(): the checkpoint of a superblock
// -----------------------------------------------------------------
namespace disk {
struct Superblock;
}
Task<void> dump_checkpoint(Device* meta, const disk::Superblock* superblock, const DumpOptions* options,
                           DumpWriter* out, DumpOutcome* outcome);

}  // namespace obraz
