#include "store_directory.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/limits.h"
#include "base/log.h"
#include "base/size.h"
#include "store/store.h"

namespace obraz {
namespace {

constexpr const char* kMeta = "/meta";
constexpr const char* kData = "/data";
constexpr const char* kUnfinished = ".new";  // appended while formatting
// Others may reach the sockets in it; the devices are for their owner alone.
constexpr mode_t kDirectoryMode = 0711;

enum class Content { absent, empty, unfinished, nearly_finished, store, foreign };

std::unexpected<Refusal> refuse_directory(ErrorCode code, std::string message) {
  return refuse(code, "store", std::move(message));
}

Answer<Content> look_into(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found)
    return Content::absent;
  if (error)
    return refuse_directory(ErrorCode::io, fmt::format("cannot look into {}: {}", path, error.message()));
  if (status.type() != std::filesystem::file_type::directory)
    return refuse_directory(ErrorCode::invalid_argument, fmt::format("{} is not a directory", path));
  std::set<std::string> names;
  for (std::filesystem::directory_iterator at(path, error), end; !error && at != end && names.size() < 16;
       at.increment(error))
    names.insert(at->path().filename().string());
  if (error)
    return refuse_directory(ErrorCode::io, fmt::format("cannot look into {}: {}", path, error.message()));
  if (names.contains("meta") && names.contains("data"))
    return Content::store;
  names.erase("lost+found");  // of a file system of its own
  if (names.empty())
    return Content::empty;
  if (names == std::set<std::string>{"data", "meta.new"})
    return Content::nearly_finished;
  names.erase("data.new");
  names.erase("meta.new");
  return names.empty() ? Content::unfinished : Content::foreign;
}

Answer<void> rename_durably(const std::string& directory, const std::string& from, const std::string& to) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = fd >= 0 && ::rename(from.c_str(), to.c_str()) == 0 && ::fsync(fd) == 0;
  const int os_error = errno;
  if (fd >= 0)
    ::close(fd);
  if (!done)
    return refuse_directory(
        ErrorCode::io, fmt::format("cannot rename {}: {}", from, std::generic_category().message(os_error)));
  return {};
}

Answer<std::unique_ptr<FileDevice>> open_device(Reactor& reactor, const std::string& path,
                                                const FileDevice::Options& options) {
  auto device = FileDevice::open(reactor, path, options);
  if (device)
    return std::move(*device);
  if (device.error().code == ErrorCode::failed_precondition)
    return refuse_directory(
        ErrorCode::failed_precondition,
        fmt::format("{} is in use by another process; is another obrazd running on this store?", path));
  return refuse_directory(device.error().code, fmt::format("{}: {}", path, describe(device.error())));
}

// The directory is there and has room for a new store.
Task<Answer<StoreDevices>> format_into(Reactor& reactor, std::string path, NewStore what) {
  const uint64_t data_bytes = round_up(what.data_bytes, 65536);
  if (data_bytes < limits::kMinDataSize || data_bytes > limits::kMaxDataSize)
    co_return refuse(ErrorCode::invalid_argument, "data_size",
                     fmt::format("the data of a store has {} to {}, not {}", exact_size(limits::kMinDataSize),
                                 exact_size(limits::kMaxDataSize), exact_size(what.data_bytes)));
  FileDevice::Options options;
  {
    // Left by a format that was interrupted, unless somebody is at it right now.
    auto leftover = open_device(reactor, path + kMeta + kUnfinished, options);
    if (!leftover && leftover.error().code == ErrorCode::failed_precondition)
      co_return std::unexpected(leftover.error());
  }
  for (const char* name : {kMeta, kData})
    ::unlink((path + name + kUnfinished).c_str());
  options.create = true;
  options.create_size_bytes = Store::meta_bytes_for(data_bytes, what.journal_bytes);
  auto meta = open_device(reactor, path + kMeta + kUnfinished, options);
  if (!meta)
    co_return std::unexpected(meta.error());
  options.create_size_bytes = data_bytes;
  auto data = open_device(reactor, path + kData + kUnfinished, options);
  if (!data)
    co_return std::unexpected(data.error());
  FormatOptions format{Uuid::random(), what.journal_bytes};
  Status status = co_await Store::format(**meta, **data, std::move(format));
  if (!status)
    co_return refuse_directory(status.error().code,
                               fmt::format("formatting {}: {}", path, describe(status.error())));
  // `meta` last: a directory that has it has a whole store.
  if (const auto renamed = rename_durably(path, path + kData + kUnfinished, path + kData); !renamed)
    co_return std::unexpected(renamed.error());
  if (const auto renamed = rename_durably(path, path + kMeta + kUnfinished, path + kMeta); !renamed)
    co_return std::unexpected(renamed.error());
  log::info("store: formatted {} with {} of data", path, format_size(data_bytes));
  co_return StoreDevices{std::move(*meta), std::move(*data)};
}

}  // namespace

Answer<StoreDevices> open_existing_store(Reactor& reactor, const std::string& path, bool read_only) {
  FileDevice::Options options;
  options.read_only = read_only;
  options.lock_patience_ms = limits::kLockPatienceMs;
  auto meta = open_device(reactor, path + kMeta, options);
  if (!meta)
    return std::unexpected(meta.error());
  auto data = open_device(reactor, path + kData, options);
  if (!data)
    return std::unexpected(data.error());
  return StoreDevices{std::move(*meta), std::move(*data)};
}

Task<Answer<StoreDevices>> format_store_directory(Reactor& reactor, std::string path, NewStore what) {
  const auto content = look_into(path);
  if (!content)
    co_return std::unexpected(content.error());
  switch (*content) {
    case Content::store:
    case Content::nearly_finished:
      co_return refuse_directory(ErrorCode::already_exists, fmt::format("{} already holds a store", path));
    case Content::foreign:
      co_return refuse_directory(
          ErrorCode::failed_precondition,
          fmt::format("{} is not empty and holds no store; name an empty or new directory", path));
    case Content::absent: {
      std::error_code error;
      std::filesystem::create_directories(path, error);
      if (error || ::chmod(path.c_str(), kDirectoryMode) != 0)
        co_return refuse_directory(
            ErrorCode::io, fmt::format("cannot make {}: {}", path,
                                       error ? error.message() : std::generic_category().message(errno)));
      break;
    }
    case Content::empty:
    case Content::unfinished:
      break;
  }
  Answer<StoreDevices> devices = co_await format_into(reactor, std::move(path), what);
  co_return devices;
}

Task<Answer<StoreDevices>> open_store_directory(Reactor& reactor, std::string path, NewStore otherwise) {
  const auto content = look_into(path);
  if (!content)
    co_return std::unexpected(content.error());
  if (*content == Content::nearly_finished) {
    log::info("store: finishing an interrupted format of {}", path);
    if (const auto renamed = rename_durably(path, path + kMeta + kUnfinished, path + kMeta); !renamed)
      co_return std::unexpected(renamed.error());
  }
  if (*content == Content::store || *content == Content::nearly_finished)
    co_return open_existing_store(reactor, path, false);
  Answer<StoreDevices> devices = co_await format_store_directory(reactor, std::move(path), otherwise);
  co_return devices;
}

}  // namespace obraz
