#include "image/export.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "image/block_runs.h"
#include "image/export_file.h"
#include "image_support.h"
#include "support/stamp.h"

namespace obraz::test {
namespace {

using limits::MiB;

class Export : public testing::TestWithParam<ImageFormat> {
 protected:
  // A volume with data here and there, and what it holds.
  VolumeId make_volume(uint64_t size) {
    const VolumeId id = store_.create_volume(size);
    content_ = ByteVector(size);
    for (const auto& [offset, length] :
         {std::pair<uint64_t, uint64_t>{0, 200'000}, {size / 2 + 4096, 3 * MiB + 5}, {size - 4096, 4096}}) {
      const Bytes piece = Bytes(content_).subspan(offset, length);
      stamp(piece, 1, offset, 1);
      store_.write(id, offset, piece);
    }
    return id;
  }
  Answer<void> run(VolumeId id, const std::string& path, std::stop_token stop = {}) {
    return export_volume(store_.reactor(), store_.open(id), {.path = path, .format = GetParam()}, progress_,
                         stop);
  }

  WorkDirectory work_;
  StoreThread store_;
  ByteVector content_;
  Progress progress_;
};

TEST_P(Export, FileHoldsTheVolumeAndNoMore) {
  const VolumeId id = make_volume(64 * MiB);
  const std::string path = work_ / "out";
  const auto exported = run(id, path);
  ASSERT_TRUE(exported.has_value()) << exported.error().message;
  EXPECT_EQ(work_.entries(), std::vector<std::string>{"out"});
  EXPECT_LT(file_space(path), 8 * MiB) << "zeros were written";
  EXPECT_EQ(progress_.bytes_done, 64 * MiB);
  EXPECT_EQ(progress_.phase.load(), CopyPhase::done);
  EXPECT_TRUE(children().empty());
  if (GetParam() == ImageFormat::qcow2) {
    shell("qemu-img check -q " + path);
    shell(fmt::format("qemu-img convert -f qcow2 -O raw {} {}.raw && mv {}.raw {}", path, path, path, path));
  }
  EXPECT_TRUE(read_file(path) == content_);
}

TEST_P(Export, EmptyVolumeIsAnEmptyDisk) {
  const VolumeId id = store_.create_volume(16 * MiB);
  ASSERT_TRUE(run(id, work_ / "out").has_value());
  const auto source = ImportSource::open({.location = work_ / "out", .format = {}});
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ((*source)->format(), GetParam());
  EXPECT_EQ((*source)->size_bytes(), 16 * MiB);
  EXPECT_EQ(progress_.bytes_written, 0u);
}

TEST_P(Export, ExistingFileIsNotTouched) {
  const VolumeId id = store_.create_volume(4 * MiB);
  const ByteVector before(10, std::byte(7));
  write_file(work_ / "out", before);
  const auto exported = run(id, work_ / "out");
  ASSERT_FALSE(exported.has_value());
  EXPECT_TRUE(refused(exported.error(), ErrorCode::already_exists, "exists"));
  EXPECT_EQ(exported.error().field, "path");
  EXPECT_EQ(read_file(work_ / "out"), before);
  EXPECT_EQ(work_.entries().size(), 1u);
}

TEST_P(Export, CancelLeavesNoTrace) {
  const VolumeId id = make_volume(16 * MiB);
  std::stop_source stop;
  stop.request_stop();
  const auto exported = run(id, work_ / "out", stop.get_token());
  ASSERT_FALSE(exported.has_value());
  EXPECT_EQ(exported.error().code, ErrorCode::cancelled);
  EXPECT_TRUE(work_.entries().empty());
  EXPECT_TRUE(children().empty());
}

TEST_P(Export, FailingVolumeLeavesNoTrace) {
  const VolumeId id = make_volume(16 * MiB);
  store_.data().fail_with(EIO);
  const auto exported = run(id, work_ / "out");
  ASSERT_FALSE(exported.has_value());
  EXPECT_TRUE(refused(exported.error(), ErrorCode::io, "read the volume at byte"));
  EXPECT_TRUE(work_.entries().empty());
  EXPECT_TRUE(children().empty());
}

INSTANTIATE_TEST_SUITE_P(All, Export, testing::Values(ImageFormat::raw, ImageFormat::qcow2),
                         [](const auto& info) { return name_of(info.param); });

TEST(ExportTarget, WrongOnesAreRefused) {
  const WorkDirectory work;
  StoreThread store;
  const VolumeId id = store.create_volume(4 * MiB);
  Progress progress;
  const auto code = [&](const std::string& path, ImageFormat format) {
    const auto exported =
        export_volume(store.reactor(), store.open(id), {.path = path, .format = format}, progress);
    EXPECT_FALSE(exported.has_value());
    return exported ? ErrorCode::io : exported.error().code;
  };
  EXPECT_EQ(code(work / "none/out", ImageFormat::raw), ErrorCode::not_found);
  EXPECT_EQ(code(work.path() + "/", ImageFormat::raw), ErrorCode::invalid_argument);
  EXPECT_EQ(code("", ImageFormat::raw), ErrorCode::invalid_argument);
  EXPECT_EQ(code(work / "..", ImageFormat::raw), ErrorCode::invalid_argument);
  EXPECT_EQ(code(work / "out", ImageFormat::vmdk), ErrorCode::invalid_argument);
  EXPECT_TRUE(work.entries().empty());
}

class ExportFileWays : public testing::TestWithParam<bool> {};

TEST_P(ExportFileWays, NameAppearsWithCommitAndNotBefore) {
  const WorkDirectory work;
  {
    auto file = ExportFile::create(work / "out", nullptr, GetParam());
    ASSERT_TRUE(file.has_value()) << file.error().message;
    EXPECT_EQ(work.entries(),
              GetParam() ? std::vector<std::string>{} : std::vector<std::string>{"out.partial"});
    const std::byte bytes[3] = {};
    ASSERT_EQ(write_fully(file->fd(), bytes, 0), 0);
    ASSERT_TRUE(file->commit().has_value());
  }
  EXPECT_EQ(work.entries(), std::vector<std::string>{"out"});
  EXPECT_EQ(file_size(work / "out"), 3u);
}

TEST_P(ExportFileWays, UncommittedIsGone) {
  const WorkDirectory work;
  { ASSERT_TRUE(ExportFile::create(work / "out", nullptr, GetParam()).has_value()); }
  EXPECT_TRUE(work.entries().empty());
}

TEST_P(ExportFileWays, NameTakenMeanwhileIsRefused) {
  const WorkDirectory work;
  {
    auto file = ExportFile::create(work / "out", nullptr, GetParam());
    ASSERT_TRUE(file.has_value());
    write_file(work / "out", ByteVector(5));
    const auto committed = file->commit();
    ASSERT_FALSE(committed.has_value());
    EXPECT_EQ(committed.error().code, ErrorCode::already_exists);
  }
  EXPECT_EQ(work.entries(), std::vector<std::string>{"out"});
  EXPECT_EQ(file_size(work / "out"), 5u);
}

INSTANTIATE_TEST_SUITE_P(All, ExportFileWays, testing::Bool());

TEST(BlockRuns, AreMaximalAndKeepAPartialLastBlock) {
  ByteVector bytes(10 * kBlockSize + 100);
  EXPECT_TRUE(data_runs(bytes).empty());
  bytes[kBlockSize] = bytes[3 * kBlockSize - 1] = bytes[5 * kBlockSize] = bytes[10 * kBlockSize + 99] =
      std::byte(1);
  const std::vector<BlockRun> expected = {
      {kBlockSize, 2 * kBlockSize}, {5 * kBlockSize, kBlockSize}, {10 * kBlockSize, 100}};
  EXPECT_EQ(data_runs(bytes), expected);
  EXPECT_TRUE(data_runs({}).empty());
}

}  // namespace
}  // namespace obraz::test
