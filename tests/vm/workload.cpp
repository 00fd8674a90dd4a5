// power_cut_workload: clients of one obrazd on a device that the kernel logs, and a history of what they
// asked and what was acknowledged. It runs as root in the virtual machine of power_cut.sh.
//
// Two writers to each disk in use write stamped blocks, give some up, and flush; meanwhile the main thread
// makes snapshots, images and disks of each other and deletes them. After every acknowledged flush, FUA write
// and resource call a numbered mark goes into the log of the device. The daemon is stopped and started
// between the phases, with SIGTERM and SIGKILL in turn; the last phase ends with SIGTERM.
//
// The history, one line for each fact, in the order in which they became true:
//
//   + N write VOLUME BLOCK COUNT    + N fua VOLUME BLOCK COUNT    + N zero VOLUME BLOCK COUNT    + N flush
//   VOLUME
//   + N new VOLUME SOURCE BLOCKS    (SOURCE is - for an empty disk; two lines with one N are one call)
//   + N delete VOLUME
//                                   request N is about to be sent
//   - N                             it was acknowledged
//   killed                          the daemon is dead: what was not flushed is there, or not
//   mark M                          mark M of the log is here: nothing is sent between this line and the mark
//
// Volumes are called as exports are: disk/d1. Threads: the History is shared and has a mutex; each writer
// owns its connection.

#include <fcntl.h>
#include <fmt/core.h>
#include <libnbd.h>
#include <linux/dm-ioctl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "stamp.h"

extern char** environ;

namespace obraz::vm {
namespace {

constexpr uint64_t kDiskBlocks = (24 << 20) / kBlock;  // two leaves of a mapping tree
constexpr uint64_t kChunkBlocks = 8;  // half a cluster: the two writers of a disk meet in every cluster
constexpr uint64_t kHotBlocks = 256;  // where every second request goes
constexpr unsigned kWritersPerDisk = 2;
constexpr size_t kBusyDisks = 3, kVolumes = 9;  // at most

struct Options {
  std::string bin, store, run, history, device, drop_command;
  unsigned phases = 2, calls = 10, flushes = 60;  // of each phase, at least
  uint64_t seed = 1, drop_after = 0;              // flushes
};

[[noreturn]] void die(const std::string& sentence) {
  fmt::print(stderr, "power_cut_workload: {}\n", sentence);
  std::fflush(nullptr);
  ::_exit(1);  // other threads are still running
}

// What `dmsetup message` does, in the time of one system call.
void send_message(const std::string& device, const std::string& text) {
  static const int control = ::open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
  alignas(dm_ioctl) char buffer[1024] = {};
  auto* header = reinterpret_cast<dm_ioctl*>(buffer);
  header->version[0] = DM_VERSION_MAJOR;
  header->data_size = sizeof buffer;
  header->data_start = sizeof(dm_ioctl);
  std::strncpy(header->name, device.c_str(), sizeof header->name - 1);
  auto* message = reinterpret_cast<dm_target_msg*>(buffer + sizeof(dm_ioctl));
  std::strcpy(message->message, text.c_str());
  if (::ioctl(control, DM_TARGET_MSG, header) != 0)
    die(fmt::format("no mark in the log: {}", std::strerror(errno)));
}

class History {
 public:
  explicit History(const Options& options)
      : options_(options), file_(std::fopen(options.history.c_str(), "w")) {
    if (file_ == nullptr)
      die("cannot write the history");
  }

  // The number of the request that is about to be sent; `lines` has each of its lines after the number.
  uint64_t issue(const std::vector<std::string>& lines) {
    const std::lock_guard lock(mutex_);
    ++request_;
    for (const std::string& line : lines)
      fmt::print(file_, "+ {} {}\n", request_, line);
    return request_;
  }

  void acknowledge(uint64_t request) {
    const std::lock_guard lock(mutex_);
    fmt::print(file_, "- {}\n", request);
  }

  // Holding the mutex keeps everything that is sent later behind the mark.
  void acknowledge_durable(uint64_t request) {
    const std::lock_guard lock(mutex_);
    fmt::print(file_, "- {}\nmark {}\n", request, ++mark_);
    if (options_.drop_after == 0)
      send_message(options_.device, fmt::format("mark {}", mark_));
    else if (mark_ == options_.drop_after)
      drop();
    progress_.notify_all();
  }

  void killed() {
    const std::lock_guard lock(mutex_);
    fmt::print(file_, "killed\n");
  }

  void wait_for_marks(uint64_t more) {
    std::unique_lock lock(mutex_);
    progress_.wait(lock, [this, more] { return mark_ >= more; });
  }

  uint64_t marks() {
    const std::lock_guard lock(mutex_);
    return mark_;
  }

  void close() {
    const std::lock_guard lock(mutex_);
    if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0)
      die("cannot write the history");
  }

 private:
  // From now on the device loses what it is told to write. What happens later counts for nothing.
  [[noreturn]] void drop() {
    if (std::system(options_.drop_command.c_str()) != 0)
      die("the device does not drop writes");
    fmt::print("dropped all writes from mark {} on\n", mark_);
    std::fflush(nullptr);
    ::_exit(0);
  }

  const Options& options_;
  std::FILE* file_;
  std::mutex mutex_;
  std::condition_variable progress_;
  uint64_t request_ = 0, mark_ = 0;
};

// --- processes
// ------------------------------------------------------------------------------------------------------

pid_t spawn(const std::vector<std::string>& words, int output) {
  std::vector<char*> arguments;
  for (const std::string& word : words)
    arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (output >= 0)
    ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    die(fmt::format("cannot run {}: {}", words[0], std::strerror(error)));
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

class Daemon {
 public:
  explicit Daemon(const Options& options) : options_(options) {}

  void start() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      die("no pipe");
    pid_ = spawn(
        {options_.bin + "/obrazd", "--store", options_.store, "--control", options_.run + "/control.sock",
         "--nbd-unix", options_.run + "/nbd.sock", "--data-size", "256M", "--journal-size", "1M"},
        ends[1]);
    ::close(ends[1]);
    std::FILE* output = ::fdopen(ends[0], "r");
    char line[1024];
    for (;;) {
      if (std::fgets(line, sizeof line, output) == nullptr)
        die("obrazd ended before it was ready");
      std::fputs(line, stdout);
      if (std::strstr(line, "ready") != nullptr)
        break;
    }
    pipe_ = output;  // stays open: a daemon that says more must not get a broken pipe
  }

  void stop(int signal) {
    ::kill(pid_, signal);
    const int status = wait_for(pid_);
    std::fclose(pipe_);
    if (signal == SIGTERM && status != 0)
      die(fmt::format("obrazd ended with status {} after SIGTERM", status));
  }

 private:
  const Options& options_;
  pid_t pid_ = 0;
  std::FILE* pipe_ = nullptr;
};

// --- writers
// --------------------------------------------------------------------------------------------------------

// A connection to one disk and what it does there. Requests of one writer follow each other, and no other
// writer has its blocks: the versions of a block are in the order of their numbers.
class Writer {
 public:
  Writer(History& history, const Options& options, std::string disk, unsigned part, uint64_t seed)
      : history_(history),
        volume_("disk/" + disk),
        part_(part),
        random_(seed),
        nbd_(nbd_create(), nbd_close) {
    nbd_set_export_name(nbd_.get(), volume_.c_str());
    if (nbd_connect_unix(nbd_.get(), (options.run + "/nbd.sock").c_str()) != 0)
      die(fmt::format("{}: {}", volume_, nbd_get_error()));
  }

  // Until told to stop. An error is the end of the daemon, if that was expected.
  void run(const std::atomic<bool>& stop, const std::atomic<bool>& killed) {
    while (!stop) {
      bool good = true;
      for (uint64_t i = random_() % 8; good && i > 0; --i)
        good = write_or_zero();
      if (good)
        good = random_() % 4 == 0 ? write(true) : flush();
      if (!good && killed)
        return;
      if (!good)
        die(fmt::format("{}: {}", volume_, nbd_get_error()));
    }
    nbd_shutdown(nbd_.get(), 0);
  }

 private:
  struct Range {
    uint64_t block, count;
  };

  Range choose() {
    const uint64_t limit = random_() % 2 == 0 ? kHotBlocks : kDiskBlocks;
    const uint64_t chunk = (random_() % (limit / kChunkBlocks)) / kWritersPerDisk * kWritersPerDisk + part_;
    const uint64_t first = random_() % kChunkBlocks;
    return {chunk * kChunkBlocks + first, 1 + random_() % (kChunkBlocks - first)};
  }

  uint64_t issue(const char* what, Range range) {
    return history_.issue({fmt::format("{} {} {} {}", what, volume_, range.block, range.count)});
  }

  bool write(bool fua) {
    const Range range = choose();
    const uint64_t request = issue(fua ? "fua" : "write", range);
    std::vector<unsigned char> bytes(range.count * kBlock);
    for (uint64_t i = 0; i < range.count * kSectorsPerBlock; ++i)
      stamp_sector(bytes.data() + i * kSector, request, range.block * kSectorsPerBlock + i);
    if (nbd_pwrite(nbd_.get(), bytes.data(), bytes.size(), range.block * kBlock,
                   fua ? LIBNBD_CMD_FLAG_FUA : 0) != 0)
      return false;
    fua ? history_.acknowledge_durable(request) : history_.acknowledge(request);
    return true;
  }

  bool write_or_zero() {
    const uint64_t choice = random_() % 8;
    if (choice > 1)
      return write(false);
    const Range range = choose();
    const uint64_t request = issue("zero", range);
    const int status = choice == 0 ? nbd_trim(nbd_.get(), range.count * kBlock, range.block * kBlock, 0)
                                   : nbd_zero(nbd_.get(), range.count * kBlock, range.block * kBlock, 0);
    if (status != 0)
      return false;
    history_.acknowledge(request);
    return true;
  }

  bool flush() {
    const uint64_t request = history_.issue({"flush " + volume_});
    if (nbd_flush(nbd_.get(), 0) != 0)
      return false;
    history_.acknowledge_durable(request);
    return true;
  }

  History& history_;
  std::string volume_;
  unsigned part_;
  std::mt19937_64 random_;
  std::unique_ptr<nbd_handle, void (*)(nbd_handle*)> nbd_;
};

// --- the whole
// ------------------------------------------------------------------------------------------------------

class Workload {
 public:
  explicit Workload(const Options& options)
      : options_(options), history_(options), daemon_(options), random_(options.seed) {}

  void run() {
    for (unsigned phase = 0; phase < options_.phases; ++phase) {
      const bool last = phase + 1 == options_.phases, kill = !last && phase % 2 == 0;
      daemon_.start();
      const uint64_t marks = history_.marks();
      stop_ = killed_ = false;
      if (phase == 0) {
        create_empty();
        create_empty();
      }
      for (const std::string& disk : busy_)
        start_writers(disk);
      for (unsigned call = 0; call < options_.calls; ++call)
        one_call(phase * options_.calls + call);
      history_.wait_for_marks(marks + options_.calls + options_.flushes);
      (kill ? killed_ : stop_) = true;
      if (kill)
        daemon_.stop(SIGKILL);  // under the hands of the writers
      for (std::thread& writer : writers_)
        writer.join();
      writers_.clear();
      if (kill)
        history_.killed();
      else
        daemon_.stop(SIGTERM);
    }
    history_.close();
    fmt::print("{} marks\n", history_.marks());
  }

 private:
  using Names = std::vector<std::string>;

  void start_writers(const std::string& disk) {
    for (unsigned part = 0; part < kWritersPerDisk; ++part)
      writers_.emplace_back(
          [this, writer = std::make_shared<Writer>(history_, options_, disk, part, random_())] {
            writer->run(stop_, killed_);
          });
  }

  // A call of the client, with its lines of the history.
  void call(const std::vector<std::string>& lines, std::vector<std::string> words) {
    const uint64_t request = history_.issue(lines);
    words.insert(words.begin(), {options_.bin + "/obraz", "--control", options_.run + "/control.sock"});
    if (wait_for(spawn(words, -1)) != 0)
      die("a call failed: " + lines.front());
    history_.acknowledge_durable(request);
  }

  static std::string made(const std::string& kind, const std::string& name, const std::string& source) {
    return fmt::format("new {}/{} {} {}", kind, name, source, kDiskBlocks);
  }

  void create_empty() {
    const std::string name = fmt::format("d{}", ++names_);
    call({made("disk", name, "-")},
         {"disk", "create", "--name", name, "--size", std::to_string(kDiskBlocks * kBlock)});
    busy_.push_back(name);
  }

  const std::string& any(const Names& names) { return names[random_() % names.size()]; }

  // Disks from images and snapshots get writers while there are few of them.
  void create_disk(const std::string& kind, const Names& sources) {
    const std::string name = fmt::format("d{}", ++names_), source = any(sources);
    call({made("disk", name, kind + "/" + source)}, {"disk", "create", "--name", name, "--" + kind, source});
    if (busy_.size() < kBusyDisks) {
      busy_.push_back(name);
      start_writers(name);
    } else {
      idle_.push_back(name);
    }
  }

  void create_snapshots(size_t count) {
    std::vector<std::string> lines, words = {"snapshot", "create"};
    const size_t first = random_() % busy_.size();
    for (size_t i = 0; i < count; ++i) {
      const std::string name = fmt::format("s{}", ++names_), &disk = busy_[(first + i) % busy_.size()];
      lines.push_back(made("snapshot", name, "disk/" + disk));
      words.insert(words.end(), {"--name", name, "--disk", disk});
      snapshots_.push_back(name);
    }
    call(lines, words);
  }

  void create_image() {
    const std::string name = fmt::format("i{}", ++names_), disk = any(busy_);
    call({made("image", name, "disk/" + disk)}, {"image", "create", "--name", name, "--from-disk", disk});
    images_.push_back(name);
  }

  void delete_one() {
    const std::map<std::string, Names*> kinds = {
        {"snapshot", &snapshots_}, {"image", &images_}, {"disk", &idle_}};
    const auto& [kind, names] =
        *std::ranges::max_element(kinds, {}, [](const auto& entry) { return entry.second->size(); });
    if (names->empty())
      return;
    const auto at = names->begin() + std::ptrdiff_t(random_() % names->size());
    const std::string name = *at;
    names->erase(at);
    call({fmt::format("delete {}/{}", kind, name)}, {kind, "delete", name});
  }

  void one_call(unsigned number) {
    if (busy_.size() + idle_.size() + snapshots_.size() + images_.size() >= kVolumes)
      return delete_one();
    switch (number % 6) {
      case 0:
        return create_snapshots(1);
      case 1:
        return snapshots_.empty() ? create_snapshots(1) : create_disk("snapshot", snapshots_);
      case 2:
        return create_image();
      case 3:
        return images_.empty() ? create_image() : create_disk("image", images_);
      case 4:
        return create_snapshots(2);
      default:
        return delete_one();
    }
  }

  const Options& options_;
  History history_;
  Daemon daemon_;
  std::mt19937_64 random_;
  std::atomic<bool> stop_ = false, killed_ = false;
  std::vector<std::thread> writers_;
  Names busy_, idle_, snapshots_, images_;
  unsigned names_ = 0;
};

int run(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::function<void(const std::string&)>> known = {
      {"--bin", [&](const std::string& v) { options.bin = v; }},
      {"--store", [&](const std::string& v) { options.store = v; }},
      {"--run", [&](const std::string& v) { options.run = v; }},
      {"--history", [&](const std::string& v) { options.history = v; }},
      {"--device", [&](const std::string& v) { options.device = v; }},
      {"--drop-command", [&](const std::string& v) { options.drop_command = v; }},
      {"--drop-after", [&](const std::string& v) { options.drop_after = std::stoull(v); }},
      {"--phases", [&](const std::string& v) { options.phases = unsigned(std::stoul(v)); }},
      {"--calls", [&](const std::string& v) { options.calls = unsigned(std::stoul(v)); }},
      {"--flushes", [&](const std::string& v) { options.flushes = unsigned(std::stoul(v)); }},
      {"--seed", [&](const std::string& v) { options.seed = std::stoull(v); }},
  };
  for (int i = 1; i < argc; i += 2) {
    const auto option = known.find(argv[i]);
    if (option == known.end() || i + 1 == argc)
      die(fmt::format("what is {}?", argv[i]));
    option->second(argv[i + 1]);
  }
  Workload(options).run();
  return 0;
}

}  // namespace
}  // namespace obraz::vm

int main(int argc, char** argv) {
  return obraz::vm::run(argc, argv);
}
