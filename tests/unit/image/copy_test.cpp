// Whole imports: what a program made of a disk comes back as that disk, in every format.
#include "image/copy.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>

#include "base/limits.h"
#include "image_support.h"

namespace obraz::test {
namespace {

using limits::MiB;

uint64_t volume_size_for(uint64_t size) {
  return round_up(size, limits::kVolumeSizeUnit);
}

struct Imported {
  VolumeId volume;
  uint64_t size = 0;
  ImageFormat format = ImageFormat::raw;
  uint64_t bytes_written = 0;
};

// Imports a source into a new volume and checks what can be said of any import.
Imported import(StoreThread& store, const ImportSpec& spec) {
  Imported imported;
  Progress progress;
  auto source = ImportSource::open(spec);
  EXPECT_TRUE(source.has_value()) << source.error().message;
  if (!source)
    return imported;
  imported.size = (*source)->size_bytes();
  imported.format = (*source)->format();
  imported.volume = store.create_volume(volume_size_for(imported.size));
  const auto copied = copy_to_volume(**source, store.reactor(), store.open(imported.volume), progress);
  EXPECT_TRUE(copied.has_value()) << copied.error().message;
  EXPECT_EQ(progress.phase.load(), CopyPhase::done);
  EXPECT_EQ(progress.bytes_total.load(), imported.size);
  EXPECT_EQ(progress.bytes_done.load(), imported.size);
  imported.bytes_written = progress.bytes_written;
  return imported;
}

// The content is at the volume's beginning and zeros follow it.
void expect_content(StoreThread& store, VolumeId volume, const ByteVector& content) {
  const uint64_t size = volume_size_for(content.size());
  const ByteVector read = store.read(volume, 0, size);
  EXPECT_TRUE(std::equal(content.begin(), content.end(), read.begin()));
  EXPECT_TRUE(is_zero(ConstBytes(read).subspan(content.size())));
}

struct Recipe {
  const char* name;
  ImageFormat format;
  const char* convert;  // options of qemu-img convert
};

class CopyFormats : public testing::TestWithParam<Recipe> {};

TEST_P(CopyFormats, DiskComesBackAsItWas) {
  const WorkDirectory work;
  ByteVector content = make_raw_disk(work / "disk.raw", 24 * MiB);
  shell(
      fmt::format("qemu-img convert -f raw {} {} {}", GetParam().convert, work / "disk.raw", work / "image"));
  StoreThread store;
  const Imported imported = import(store, {.location = work / "image", .format = {}});
  EXPECT_EQ(imported.format, GetParam().format);
  EXPECT_GE(imported.size, content.size());  // vpc rounds to its geometry
  content.resize(imported.size);
  expect_content(store, imported.volume, content);
  EXPECT_LT(imported.bytes_written, 4 * MiB);
  EXPECT_TRUE(children().empty());
}

INSTANTIATE_TEST_SUITE_P(
    All, CopyFormats,
    testing::Values(Recipe{"Raw", ImageFormat::raw, "-O raw"},
                    Recipe{"Qcow2", ImageFormat::qcow2, "-O qcow2"},
                    Recipe{"Qcow2Version2", ImageFormat::qcow2, "-O qcow2 -o compat=0.10"},
                    Recipe{"Qcow2Compressed", ImageFormat::qcow2, "-c -O qcow2"},
                    Recipe{"Qcow2Zstd", ImageFormat::qcow2, "-c -O qcow2 -o compression_type=zstd"},
                    Recipe{"Qcow2SmallClusters", ImageFormat::qcow2, "-O qcow2 -o cluster_size=512"},
                    Recipe{"Qcow2LargeClusters", ImageFormat::qcow2, "-O qcow2 -o cluster_size=2M"},
                    Recipe{"Qcow2ExtendedL2", ImageFormat::qcow2, "-O qcow2 -o extended_l2=on"},
                    Recipe{"Qcow2Preallocated", ImageFormat::qcow2, "-O qcow2 -o preallocation=metadata"},
                    Recipe{"VmdkSparse", ImageFormat::vmdk, "-O vmdk"},
                    Recipe{"VmdkStream", ImageFormat::vmdk, "-O vmdk -o subformat=streamOptimized"},
                    Recipe{"VpcDynamic", ImageFormat::vpc, "-O vpc"},
                    Recipe{"VpcFixed", ImageFormat::vpc, "-O vpc -o subformat=fixed"},
                    Recipe{"VpcForcedSize", ImageFormat::vpc, "-O vpc -o force_size=on"},
                    Recipe{"Vhdx", ImageFormat::vhdx, "-O vhdx"},
                    Recipe{"VhdxFixed", ImageFormat::vhdx, "-O vhdx -o subformat=fixed"},
                    Recipe{"Vdi", ImageFormat::vdi, "-O vdi"},
                    Recipe{"VdiStatic", ImageFormat::vdi, "-O vdi -o static=on"}),
    [](const auto& info) { return info.param.name; });

class CopySizes : public testing::TestWithParam<uint64_t> {};

TEST_P(CopySizes, AnySizeIsKeptToTheByteAndFollowedByZeros) {
  const WorkDirectory work;
  const ByteVector content = make_raw_disk(work / "disk", GetParam());
  StoreThread store;
  const Imported imported = import(store, {.location = work / "disk", .format = {}});
  EXPECT_EQ(imported.size, content.size());
  expect_content(store, imported.volume, content);
}

INSTANTIATE_TEST_SUITE_P(All, CopySizes,
                         testing::Values(1, 511, 512, 4095, 4097, MiB - 1, MiB + 1, 4 * MiB - 512, 4 * MiB,
                                         4 * MiB + 1, 20 * MiB + 12'345));

TEST(Copy, ZerosTakeNoSpaceWhetherHolesOrWritten) {
  const WorkDirectory work;
  ByteVector content(16 * MiB);
  content[5 * MiB] = std::byte(1);
  write_file(work / "disk", content);  // written zeros, no holes
  StoreThread store;
  const Imported imported = import(store, {.location = work / "disk", .format = {}});
  EXPECT_EQ(imported.bytes_written, kBlockSize);
  expect_content(store, imported.volume, content);
  uint64_t mapped = 0;
  for (const Extent& extent : store.status(imported.volume))
    mapped += extent.zero ? 0 : extent.length;
  EXPECT_LE(mapped, kClusterSize);
  EXPECT_GE(mapped, kBlockSize);
}

// A source whose reads are answered as the test says.
class ScriptedSource final : public ImportSource {
 public:
  explicit ScriptedSource(uint64_t size) : ImportSource(ImageFormat::raw, size) {}
  Answer<void> extents(uint64_t offset, uint64_t length, std::vector<SourceExtent>& out,
                       const StopSignal&) override {
    out.push_back({offset, length, false});
    return {};
  }
  Answer<void> start_read(Transfer& transfer) override {
    ++reads;
    std::ranges::fill(transfer.bytes, std::byte(0x55));
    transfer.os_error = reads == failing_read ? EIO : 0;
    transfer.done = reads <= answered_reads;
    return {};
  }
  Answer<void> wait(const StopSignal& stop, int wake_fd) override {
    on_wait();
    if (stop.requested())
      return refuse(ErrorCode::cancelled, "", "cancelled");
    pollfd wanted[] = {{stop.fd(), POLLIN, 0}, {wake_fd, POLLIN, 0}};
    ::poll(wanted, 2, -1);
    return {};
  }
  Answer<void> finish() override { return finished; }
  void abandon() override { abandoned = true; }

  unsigned reads = 0, answered_reads = UINT_MAX, failing_read = 0;
  std::function<void()> on_wait = [] {};
  Answer<void> finished;
  bool abandoned = false;
};

TEST(Copy, CancelEndsItWhileReadsAreUnanswered) {
  StoreThread store;
  ScriptedSource source(64 * MiB);
  std::stop_source stop;
  source.answered_reads = 40;
  source.on_wait = [&] {
    if (source.reads > 40)
      stop.request_stop();
  };
  Progress progress;
  const VolumeId id = store.create_volume(64 * MiB);
  const auto copied = copy_to_volume(source, store.reactor(), store.open(id), progress, stop.get_token());
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, ErrorCode::cancelled);
  EXPECT_TRUE(source.abandoned);
  EXPECT_LT(progress.bytes_done, progress.bytes_total);
  EXPECT_NE(progress.phase.load(), CopyPhase::done);
}

TEST(Copy, CancelWakesAWaitFromAnotherThread) {
  StoreThread store;
  ScriptedSource source(8 * MiB);
  std::stop_source stop;
  source.answered_reads = 0;
  std::promise<void> waiting;
  bool told = false;
  source.on_wait = [&] {
    if (!std::exchange(told, true))
      waiting.set_value();
  };
  Progress progress;
  const VolumeId id = store.create_volume(8 * MiB);
  std::thread canceller([&] {
    waiting.get_future().wait();
    stop.request_stop();
  });
  const auto copied = copy_to_volume(source, store.reactor(), store.open(id), progress, stop.get_token());
  canceller.join();
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, ErrorCode::cancelled);
  EXPECT_TRUE(source.abandoned);
}

TEST(Copy, FirstReadErrorStopsItAndNamesThePlace) {
  StoreThread store;
  ScriptedSource source(64 * MiB);
  source.failing_read = 3;
  Progress progress;
  const VolumeId id = store.create_volume(64 * MiB);
  const auto copied = copy_to_volume(source, store.reactor(), store.open(id), progress);
  ASSERT_FALSE(copied.has_value());
  EXPECT_TRUE(refused(copied.error(), ErrorCode::io, "read the source at byte 2097152"));
  EXPECT_TRUE(source.abandoned);
  EXPECT_LT(source.reads, 20u);
}

TEST(Copy, WriteErrorStopsItAndNamesTheCause) {
  StoreThread store;
  ScriptedSource source(64 * MiB);
  Progress progress;
  const VolumeId id = store.create_volume(64 * MiB);
  Volume volume = store.open(id);
  store.data().fail_with(EIO);
  const auto copied = copy_to_volume(source, store.reactor(), std::move(volume), progress);
  ASSERT_FALSE(copied.has_value());
  EXPECT_TRUE(refused(copied.error(), ErrorCode::io, "write the image at byte"));
  EXPECT_LT(source.reads, 64u);
}

TEST(Copy, SourceThatChangedIsRefusedAtTheEnd) {
  StoreThread store;
  ScriptedSource source(4 * MiB);
  source.finished = refuse(ErrorCode::failed_precondition, "source", "changed");
  Progress progress;
  const VolumeId id = store.create_volume(4 * MiB);
  const auto copied = copy_to_volume(source, store.reactor(), store.open(id), progress);
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, ErrorCode::failed_precondition);
  EXPECT_NE(progress.phase.load(), CopyPhase::done);
}

TEST(Copy, FileThatGrowsMeanwhileIsRefused) {
  const WorkDirectory work;
  make_raw_disk(work / "disk", 4 * MiB);
  auto source = ImportSource::open({.location = work / "disk", .format = {}});
  ASSERT_TRUE(source.has_value());
  shell("truncate -s +1M " + (work / "disk"));
  StoreThread store;
  Progress progress;
  const VolumeId id = store.create_volume(4 * MiB);
  const auto copied = copy_to_volume(**source, store.reactor(), store.open(id), progress);
  ASSERT_FALSE(copied.has_value());
  EXPECT_TRUE(refused(copied.error(), ErrorCode::failed_precondition, "changed while it was read"));
}

TEST(Copy, NbdServersAlignmentIsKept) {
  const WorkDirectory work;
  const ByteVector content = make_raw_disk(work / "disk", 8 * MiB);
  // This one answers any other request with an error.
  const OtherServer server(
      fmt::format("-r --filter=blocksize-policy file {} blocksize-minimum=65536 blocksize-preferred=65536 "
                  "blocksize-maximum=262144 blocksize-error-policy=error",
                  work / "disk"));
  StoreThread store;
  const Imported imported = import(store, {.location = server.uri(), .format = {}});
  EXPECT_EQ(imported.size, content.size());
  expect_content(store, imported.volume, content);
}

TEST(Copy, NbdHolesAreNotRead) {
  const WorkDirectory work;
  shell("truncate -s 16M " + (work / "disk"));
  const ByteVector data(MiB, std::byte(3));
  patch_file(work / "disk", 4 * MiB, data);
  const OtherServer server(fmt::format("-r --filter=log file {} logfile={}", work / "disk", work / "log"));
  StoreThread store;
  const Imported imported = import(store, {.location = server.uri(), .format = {}});
  EXPECT_EQ(imported.bytes_written, MiB);
  const ByteVector log = read_file(work / "log");
  const std::string text(reinterpret_cast<const char*>(log.data()), log.size());
  size_t reads = 0;
  for (size_t at = 0; (at = text.find(" Read ", at)) != text.npos; ++at)
    ++reads;
  EXPECT_GE(reads, 1u) << "the log tells of no reads:\n" << text;
  EXPECT_LE(reads, 2u) << text;
}

TEST(Copy, CancelEndsAReaderAtWork) {
  const WorkDirectory work;
  make_raw_disk(work / "disk.raw", 64 * MiB);
  shell(fmt::format("qemu-img convert -f raw -c -O qcow2 {} {}", work / "disk.raw", work / "image"));
  auto source = ImportSource::open({.location = work / "image", .format = {}});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  StoreThread store;
  Progress progress;
  std::stop_source stop;
  const VolumeId id = store.create_volume(64 * MiB);
  std::thread canceller([&] {
    while (progress.bytes_written == 0)
      std::this_thread::yield();
    stop.request_stop();
  });
  const auto copied = copy_to_volume(**source, store.reactor(), store.open(id), progress, stop.get_token());
  canceller.join();
  // The stop may come too late; a copy that ended well is whole.
  if (!copied.has_value())
    EXPECT_EQ(copied.error().code, ErrorCode::cancelled);
  else
    EXPECT_EQ(progress.bytes_done, progress.bytes_total);
  EXPECT_EQ(children().empty(), !copied.has_value());
}

// Imports from a server and hands back the refusal.
Refusal refused_import(const OtherServer& server, std::optional<ImageFormat> format = {}) {
  StoreThread store;
  Progress progress;
  auto source = ImportSource::open({.location = server.uri(), .format = format});
  EXPECT_TRUE(source.has_value()) << source.error().message;
  if (!source)
    return {};
  const VolumeId id = store.create_volume(volume_size_for((*source)->size_bytes()));
  const auto copied = copy_to_volume(**source, store.reactor(), store.open(id), progress);
  EXPECT_FALSE(copied.has_value());
  return copied ? Refusal() : copied.error();
}

TEST(Copy, ForeignFileInsideAnExportIsRefused) {
  const WorkDirectory work;
  make_raw_disk(work / "disk.raw", 4 * MiB);
  shell(fmt::format("qemu-img convert -f raw -O qcow2 {} {}", work / "disk.raw", work / "image"));
  {
    const OtherServer server("-r file " + (work / "image"));
    EXPECT_TRUE(refused(refused_import(server), ErrorCode::invalid_argument, "holds a qcow2 file"));
  }
  const OtherServer server("-r file " + (work / "image"));
  EXPECT_TRUE(
      refused(refused_import(server, ImageFormat::raw), ErrorCode::invalid_argument, "is a qcow2 image"));
}

TEST(Copy, ErrorOfAnNbdServerIsTold) {
  const OtherServer server("-r --filter=error pattern size=4M error-pread=EIO error-pread-rate=100%");
  EXPECT_TRUE(refused(refused_import(server), ErrorCode::io, "read the source at byte"));
}

TEST(Copy, ReaderThatDiesMidwayIsARefusal) {
  const WorkDirectory work;
  make_raw_disk(work / "disk.raw", 24 * MiB);
  shell(fmt::format("qemu-img convert -f raw -O qcow2 {} {}", work / "disk.raw", work / "image"));
  auto source = ImportSource::open({.location = work / "image", .format = {}});
  ASSERT_TRUE(source.has_value()) << source.error().message;
  ASSERT_EQ(children().size(), 1u);
  ASSERT_EQ(::kill(children().front(), SIGKILL), 0);
  StoreThread store;
  Progress progress;
  const VolumeId id = store.create_volume(24 * MiB);
  const auto copied = copy_to_volume(**source, store.reactor(), store.open(id), progress);
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, ErrorCode::io) << copied.error().message;
}

}  // namespace
}  // namespace obraz::test
