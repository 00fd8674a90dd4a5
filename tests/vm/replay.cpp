// power_cut_replay: what dm-log-writes has recorded, as power cuts.
//
//   power_cut_replay points LOG SEED COUNT    prints the cuts to try, in the order of the log; COUNT 0: every
//   one power_cut_replay apply LOG IMAGE FROM TO           writes the entries FROM … TO-1 to IMAGE
//   power_cut_replay tear LOG IMAGE FROM TO SEED       the same, but each sector is kept or lost as the seed
//   says
//
// A line of `points` is KIND KEEP TAIL BEFORE AFTER: the entries up to KEEP are on the device, of those from
// KEEP up to TAIL any part may be. BEFORE is the last mark that the cut has behind it (0: none), AFTER the
// first that it has not (0: the end).
//
// The kernel writes the log in the order in which a disk with a volatile cache could be sure of things: an
// entry with FUA when it has completed; the other writes only when a flush that began after them has
// completed, right before that flush. So each prefix of the log is what a power cut may leave, and so is a
// prefix up to the writes that a flush was the first to cover, with any part of these. A write without FUA is
// never behind a FUA write of the same group that it might depend on, so nothing else has to be thought of.
//
// The format is that of Linux, drivers/md/dm-log-writes.c: a superblock, then for each entry one sector that
// describes it (the name of a mark is in it, too), then its data. All integers are little-endian.

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMagic = 0x6a736677736872, kVersion = 1;
constexpr uint64_t kFlush = 1, kFua = 2, kDiscard = 4, kMark = 8;

struct LogSuper {
  uint64_t magic, version, entries;
  uint32_t sector_size;
};

struct LogEntry {
  uint64_t sector, sectors, flags, data_length;
};

struct Entry {
  uint64_t offset, length, flags;  // in bytes of the device
  uint64_t data;                   // where the log has the bytes
  std::string mark;

  // Only a flush makes it durable.
  bool is_volatile() const { return length > 0 && (flags & (kFlush | kFua | kMark)) == 0; }
};

[[noreturn]] void die(const std::string& sentence) {
  fmt::print(stderr, "power_cut_replay: {}\n", sentence);
  std::exit(1);
}

int open_or_die(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0)
    die(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  return fd;
}

void read_or_die(int fd, void* into, size_t length, uint64_t offset) {
  for (size_t done = 0; done < length;) {
    const ssize_t n = ::pread(fd, static_cast<char*>(into) + done, length - done, off_t(offset + done));
    if (n <= 0)
      die("the log is shorter than it says");
    done += size_t(n);
  }
}

void write_or_die(int fd, const char* from, size_t length, uint64_t offset) {
  for (size_t done = 0; done < length;) {
    const ssize_t n = ::pwrite(fd, from + done, length - done, off_t(offset + done));
    if (n <= 0)
      die(fmt::format("cannot write the image: {}", std::strerror(errno)));
    done += size_t(n);
  }
}

std::vector<Entry> read_log(int fd) {
  LogSuper super{};
  read_or_die(fd, &super, sizeof super, 0);
  if (super.magic != kMagic || super.version != kVersion || super.sector_size < sizeof(LogEntry))
    die("this is not the log of dm-log-writes");
  std::vector<Entry> entries;
  uint64_t at = super.sector_size;
  for (uint64_t i = 0; i < super.entries; ++i) {
    LogEntry raw{};
    read_or_die(fd, &raw, sizeof raw, at);
    Entry entry{raw.sector * super.sector_size,
                raw.sectors * super.sector_size,
                raw.flags,
                at + super.sector_size,
                {}};
    if ((raw.flags & kMark) != 0) {
      entry.mark.resize(std::min<uint64_t>(raw.data_length, super.sector_size - sizeof raw));
      read_or_die(fd, entry.mark.data(), entry.mark.size(), at + sizeof raw);
      entry.mark = entry.mark.c_str();
    }
    at = entry.data + ((raw.flags & kDiscard) != 0 ? 0 : entry.length);
    entries.push_back(std::move(entry));
  }
  return entries;
}

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    die(fmt::format("'{}' is not a number", text));
  return value;
}

// The marks of the workload are numbers from 1; the kernel puts one of its own at the end.
uint64_t mark_number(const Entry& entry) {
  const bool ours = !entry.mark.empty() && entry.mark.find_first_not_of("0123456789") == std::string::npos;
  return ours ? number(entry.mark) : 0;
}

struct Point {
  const char* kind;
  uint64_t keep, tail;
};

void print_points(const std::vector<Entry>& entries, uint64_t seed, uint64_t count) {
  std::vector<Point> torn, exact;
  uint64_t covered = 0;  // the writes from here on are those that the next flush is the first to cover
  for (uint64_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if ((entry.flags & kFlush) != 0 && covered < i)
      torn.push_back({"torn", covered, i});
    if ((entry.flags & kMark) != 0)
      exact.push_back({"mark", i + 1, i + 1});
    else if ((entry.flags & (kFlush | kFua)) != 0)
      exact.push_back({(entry.flags & kFlush) != 0 ? "flush" : "fua", i + 1, i + 1});
    if (!entry.is_volatile())
      covered = i + 1;
  }
  // A few: half of each sort, one at a random place in each of as many equal parts of the log.
  std::mt19937_64 random(seed);
  const auto choose = [&](const std::vector<Point>& from, uint64_t wanted) {
    std::vector<Point> chosen;
    for (uint64_t i = 0; i < wanted; ++i) {
      const uint64_t begin = from.size() * i / wanted, end = from.size() * (i + 1) / wanted;
      if (begin < end)
        chosen.push_back(from[begin + random() % (end - begin)]);
    }
    return chosen;
  };
  if (count > 0) {
    torn = choose(torn, count - count / 2);
    exact = choose(exact, count / 2);
  }
  std::vector<Point> points = exact;
  points.insert(points.end(), torn.begin(), torn.end());
  std::ranges::stable_sort(points, {}, &Point::keep);

  uint64_t at = 0, before = 0;
  for (const Point& point : points) {
    for (; at < point.keep; ++at)
      before = std::max(before, mark_number(entries[at]));
    uint64_t after = 0;
    for (uint64_t i = point.keep; i < entries.size() && after == 0; ++i)
      after = mark_number(entries[i]);
    fmt::print("{} {} {} {} {}\n", point.kind, point.keep, point.tail, before, after);
  }
}

void apply(int log, int image, const Entry& entry, std::mt19937_64* tear) {
  if (entry.length == 0)
    return;
  if ((entry.flags & kDiscard) != 0) {
    if (tear != nullptr && (*tear)() % 2 == 0)
      return;
    if (::fallocate(image, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(entry.offset),
                    off_t(entry.length)) != 0)
      die(fmt::format("cannot punch a hole: {}", std::strerror(errno)));
    return;
  }
  std::vector<char> bytes(entry.length);
  read_or_die(log, bytes.data(), bytes.size(), entry.data);
  // Kept, lost and torn writes are equally frequent; the unit of tearing is the sector.
  constexpr uint64_t kSector = 512;
  const uint64_t fate = tear != nullptr ? (*tear)() % 3 : 0;
  if (fate == 0)
    write_or_die(image, bytes.data(), bytes.size(), entry.offset);
  for (uint64_t at = 0; fate == 1 && at < bytes.size(); at += kSector)
    if ((*tear)() % 2 == 0)
      write_or_die(image, bytes.data() + at, kSector, entry.offset + at);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 4 && words[0] == "points") {
    print_points(read_log(open_or_die(words[1], O_RDONLY)), number(words[2]), number(words[3]));
    return 0;
  }
  const bool tear = words.size() == 6 && words[0] == "tear";
  if (!tear && !(words.size() == 5 && words[0] == "apply")) {
    fmt::print(stderr,
               "usage: power_cut_replay points LOG SEED COUNT | apply LOG IMAGE FROM TO | tear LOG IMAGE "
               "FROM TO SEED\n");
    return 2;
  }
  const int log = open_or_die(words[1], O_RDONLY), image = open_or_die(words[2], O_RDWR);
  const std::vector<Entry> entries = read_log(log);
  const uint64_t from = number(words[3]), to = number(words[4]);
  if (from > to || to > entries.size())
    die("there are no such entries");
  std::mt19937_64 random(tear ? number(words[5]) : 0);
  for (uint64_t i = from; i < to; ++i)
    apply(log, image, entries[i], tear ? &random : nullptr);
  return 0;
}
