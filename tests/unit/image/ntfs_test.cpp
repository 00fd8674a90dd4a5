// The volumes are made by ntfs-3g; then one thing in them is changed.
#include "image/ntfs.h"

#include <fmt/format.h>

#include <cstring>

#include "layout_support.h"

namespace obraz::test {
namespace {

class Ntfs : public testing::Test {
 protected:
  void make(uint64_t mib, const std::vector<std::string>& paths) {
    bytes_ = read_file(maker_.ntfs(mib, "x", paths));
  }

  ReadRange reader() {
    return [this](uint64_t offset, Bytes into) {
      read_ += into.size();
      if (offset > bytes_.size() || into.size() > bytes_.size() - offset)
        return false;
      std::memcpy(into.data(), &bytes_[offset], into.size());
      return true;
    };
  }
  Result<std::optional<NtfsVolume::Entry>> find(const std::string& path) {
    read_ = 0;
    auto volume = NtfsVolume::open(reader(), bytes_.size());
    OBRAZ_TRY(volume);
    return volume->find_path(path);
  }
  // 'f'ile, 'd'irectory, '-' not there, '!' damaged.
  char look(const std::string& path) {
    const auto found = find(path);
    if (!found)
      return '!';
    return !*found ? '-' : (*found)->directory ? 'd' : 'f';
  }
  std::string why(const std::string& path) {
    const auto found = find(path);
    return found ? "" : found.error().text;
  }

  // --- places, on a volume whose records are in one piece
  template <typename T>
  T at(uint64_t offset) const {
    return load_le<T>(&bytes_[offset]);
  }
  template <typename T>
  void put(uint64_t offset, T value) {
    store_le<T>(&bytes_[offset], value);
  }
  uint64_t cluster() const { return at<uint16_t>(0x0b) * uint64_t(bytes_[0x0d]); }
  uint64_t record(uint64_t number) const { return at<uint64_t>(0x30) * cluster() + number * 1024; }
  uint64_t attribute(uint64_t number, uint32_t type) const {
    const uint64_t start = record(number);
    for (uint64_t place = start + at<uint16_t>(start + 0x14); at<uint32_t>(place) != ~0u;
         place += at<uint32_t>(place + 4))
      if (at<uint32_t>(place) == type)
        return place;
    ADD_FAILURE() << "no attribute " << type << " in record " << number;
    return 0;
  }
  uint64_t runs(uint64_t number, uint32_t type) const {
    const uint64_t place = attribute(number, type);
    return place + at<uint16_t>(place + 0x20);
  }
  // All blocks of indexes; those of the system's own directories among them, which nobody looks at here.
  std::vector<uint64_t> index_blocks() const {
    std::vector<uint64_t> blocks;
    for (uint64_t place = 0; place < bytes_.size(); place += 4096)
      if (std::memcmp(&bytes_[place], "INDX", 4) == 0)
        blocks.push_back(place);
    return blocks;
  }
  // The block that has a name in it, and the entry of that name.
  std::pair<uint64_t, uint64_t> block_with(const std::string& name) const {
    for (const uint64_t block : index_blocks()) {
      const uint64_t header = block + 0x18;
      for (uint64_t entry = header + at<uint32_t>(header); !(at<uint16_t>(entry + 0x0c) & 2);
           entry += at<uint16_t>(entry + 8)) {
        std::string found;
        for (size_t i = 0; i < uint8_t(bytes_[entry + 0x50]); ++i)
          found += char(bytes_[entry + 0x52 + 2 * i]);
        if (found == name)
          return {block, entry};
      }
    }
    ADD_FAILURE() << "no block has " << name;
    return {};
  }

  static constexpr uint32_t kData = 0x80, kIndexRoot = 0x90, kIndex = 0xa0;
  DiskMaker maker_;
  ByteVector bytes_;
  uint64_t read_ = 0;
};

std::vector<std::string> many_files(const std::string& directory, unsigned count) {
  std::vector<std::string> paths;
  for (unsigned i = 0; i < count; ++i)
    paths.push_back(fmt::format("{}file {:05} of many.dat", directory, i * 7919 % count));
  return paths;
}

TEST_F(Ntfs, FindsFilesAndDirectories) {
  make(32, {"bootmgr", "Windows/", "Windows/System32/", "Windows/System32/WinLoad.exe", "_x", "größe", "z"});
  EXPECT_EQ(look("bootmgr"), 'f');
  EXPECT_EQ(look("BOOTMGR"), 'f');
  EXPECT_EQ(look("bootmg"), '-');
  EXPECT_EQ(look("bootmgrx"), '-');
  EXPECT_EQ(look("windows"), 'd');
  EXPECT_EQ(look("Windows/System32"), 'd');
  EXPECT_EQ(look("Windows/System32/winload.EXE"), 'f');
  EXPECT_EQ(look("Windows/System32/winload.efi"), '-');
  EXPECT_EQ(look("Windows/winload.exe"), '-');
  EXPECT_EQ(look("bootmgr/x"), '-');
  EXPECT_EQ(look("_X"), 'f');
  EXPECT_EQ(look("Z"), 'f');
  EXPECT_EQ(look("$MFT"), 'f');
  EXPECT_EQ(look("$Extend"), 'd');
  EXPECT_EQ(look(""), 'd');
}

TEST_F(Ntfs, FindsEveryFileOfALargeDirectory) {
  auto paths = many_files("d/", 3000);
  paths.insert(paths.begin(), "d/");
  make(64, paths);
  auto volume = NtfsVolume::open(reader(), bytes_.size());
  ASSERT_TRUE(volume.has_value()) << volume.error().text;
  const auto directory = volume->find_path("d");
  ASSERT_TRUE(directory.has_value() && directory->has_value());
  for (size_t i = 1; i < paths.size(); ++i) {
    read_ = 0;
    const auto found = volume->find((*directory)->record, paths[i].substr(2));
    ASSERT_TRUE(found.has_value() && found->has_value()) << paths[i];
    ASSERT_LT(read_, 32u << 10);  // it is searched, not listed
  }
  for (const char* name :
       {"file 00000 of many.da", "file 03000 of many.dat", "a", "z", "file 00500 of many.datx"})
    EXPECT_FALSE(volume->find((*directory)->record, name)->has_value()) << name;
}

TEST_F(Ntfs, SizesOfClustersAndRecords) {
  const std::string list = maker_.path("list");
  quiet(fmt::format("printf 'd/\\nd/e/\\nd/e/f\\n' >{0}; seq -f 'd/file with a long name %05g' 300 >>{0}",
                    list));
  for (const char* options : {"-c 512", "-c 1024", "-c 4096", "-c 65536", "-s 4096", "-s 1024 -c 2048"}) {
    const std::string file = maker_.blank("sizes", 64);
    quiet(fmt::format("mkntfs -F -Q {} {} && python3 {}/support/ntfs_tree.py {} <{}", options, file,
                      OBRAZ_TEST_SOURCES, file, list));
    bytes_ = read_file(file);
    EXPECT_EQ(look("d/e/f"), 'f') << options << ": " << why("d/e/f");
    EXPECT_EQ(look("d/file with a long name 00123"), 'f') << options;
    EXPECT_EQ(look("d/e/g"), '-') << options;
  }
}

// Every other cluster is taken, so the table of all files, and each directory, is in hundreds of pieces,
// described in several records.
TEST_F(Ntfs, FilesInManyPieces) {
  const std::string file = maker_.blank("scattered", 64), list = maker_.path("list");
  quiet(fmt::format("mkntfs -F -Q {0} && python3 {1}/support/ntfs_tree.py {0} scatter", file,
                    OBRAZ_TEST_SOURCES));
  quiet(
      fmt::format("{{ echo a/; echo b/; for i in $(seq 10000); do echo a/file-with-a-long-name-$i; "
                  "echo b/file-with-a-long-name-$i; done; echo a/last; }} >{0} && "
                  "python3 {1}/support/ntfs_tree.py {2} <{0}",
                  list, OBRAZ_TEST_SOURCES, file));
  bytes_ = read_file(file);
  ASSERT_EQ(at<uint32_t>(attribute(0, 0x20)), 0x20u);  // a list of attributes
  EXPECT_EQ(look("a/last"), 'f') << why("a/last");
  EXPECT_EQ(look("b/last"), '-');
  for (unsigned i = 1; i <= 10000; i += 997) {
    EXPECT_EQ(look(fmt::format("a/file-with-a-long-name-{}", i)), 'f');
    EXPECT_LT(read_, 1u << 20);
  }
  // A list that does not end, one that names a record without its part, and one that leaves out a piece.
  const ByteVector good = bytes_;
  const uint64_t list_place = attribute(0, 0x20), run = list_place + at<uint16_t>(list_place + 0x20);
  ASSERT_EQ(bytes_[list_place + 8], std::byte(1));
  ASSERT_EQ(uint8_t(bytes_[run]), 0x21);  // a run: one byte of length, two of its place
  const uint64_t entries = at<uint16_t>(run + 2) * cluster();
  uint64_t last = entries;
  while (at<uint32_t>(last + at<uint16_t>(last + 4)) == kData || at<uint32_t>(last) != kData)
    last += at<uint16_t>(last + 4);
  const auto refused = [&](uint64_t offset, uint16_t value, const std::string& words) {
    bytes_ = good;
    put<uint16_t>(offset, value);
    EXPECT_EQ(why("a/last"), words);
  };
  refused(entries + 4, 0, "a list of attributes is damaged");
  refused(entries + 4, 0xffff, "a list of attributes is damaged");
  refused(last + 0x10, 5, "a list of attributes names one that is not there");
  refused(last + 8, at<uint16_t>(last + 8) + 1, "the parts of a file do not follow each other");
}

TEST_F(Ntfs, BootSectorThatCannotBe) {
  make(16, {"bootmgr"});
  const ByteVector good = bytes_;
  const auto refused = [&](uint64_t offset, uint64_t value, size_t length) {
    bytes_ = good;
    for (size_t i = 0; i < length; ++i)
      bytes_[offset + i] = std::byte(value >> (8 * i));
    return look("bootmgr") == '!';
  };
  EXPECT_FALSE(refused(0x1fe, 0xaa55, 2));
  EXPECT_TRUE(refused(3, 0, 1));
  for (const uint64_t value : {0, 1, 513, 128, 8192, 65535})
    EXPECT_TRUE(refused(0x0b, value, 2)) << value;
  for (const uint64_t value : {0, 3, 0x81, 0xe0, 0xe1})
    EXPECT_TRUE(refused(0x0d, value, 1)) << value;
  for (const uint64_t value : {0, 3, 0x7f, 0x80, 0xff, 0xf8, 0xe1})
    EXPECT_TRUE(refused(0x40, value, 1)) << value;
  for (const uint64_t value : {uint64_t(0), uint64_t(1) << 40, UINT64_MAX})
    EXPECT_TRUE(refused(0x30, value, 8)) << value;
  EXPECT_TRUE(refused(0x28, 0, 8));
  EXPECT_FALSE(refused(0x28, UINT64_MAX, 8));  // larger than what there is: it was cut off
}

TEST_F(Ntfs, RunsThatLeadOut) {
  make(16, many_files("", 200));
  const std::string name = "file 00042 of many.dat";
  ASSERT_EQ(look(name), 'f');
  const ByteVector good = bytes_;
  for (const auto& [number, type] : {std::pair(0u, kData), std::pair(5u, kIndex)}) {
    const uint64_t place = runs(number, type);
    const size_t lengths = uint8_t(good[place]) & 15;
    const auto broken = [&](uint64_t offset, int value) {
      bytes_ = good;
      bytes_[place + offset] = std::byte(value);
      return look(name) == '!';
    };
    EXPECT_TRUE(broken(0, 0x00)) << number;  // none at all
    EXPECT_TRUE(broken(0, 0x0f)) << number;
    EXPECT_TRUE(broken(0, 0x99)) << number;
    EXPECT_TRUE(broken(0, 0x10)) << number;            // without a length
    EXPECT_TRUE(broken(0, 0x01)) << number;            // a hole
    EXPECT_TRUE(broken(1, 0x00)) << number;            // of no length
    EXPECT_TRUE(broken(1, 0xff)) << number;            // too long
    EXPECT_TRUE(broken(1 + lengths, 0xff)) << number;  // negative, or beyond the end
    bytes_ = good;
    // A file as long as 64 bits can say.
    put<uint64_t>(attribute(number, type) + 0x18, UINT64_MAX - 1);
    EXPECT_EQ(look(name), '!');
    // Runs that begin beyond what the attribute holds.
    bytes_ = good;
    put<uint16_t>(attribute(number, type) + 0x20, 0xffff);
    EXPECT_EQ(look(name), '!');
  }
}

// Blocks of the index that are each other's children, or their own.
TEST_F(Ntfs, IndexThatLoops) {
  make(32, many_files("", 2000));
  const std::string name = "file 00042 of many.dat";
  ASSERT_EQ(look(name), 'f');
  const ByteVector good = bytes_;
  // Each entry with a child leads back to its own block, then to the first that has children.
  for (const bool own : {true, false}) {
    bytes_ = good;
    unsigned changed = 0;
    std::optional<uint64_t> first;
    for (const uint64_t block : index_blocks()) {
      const uint64_t header = block + 0x18, end = header + at<uint32_t>(header + 4);
      for (uint64_t entry = header + at<uint32_t>(header); entry < end;) {
        const uint64_t next = entry + at<uint16_t>(entry + 8);
        if (at<uint16_t>(entry + 0x0c) & 1) {
          first = first.value_or(at<uint64_t>(block + 0x10));
          put<uint64_t>(next - 8, own ? at<uint64_t>(block + 0x10) : *first);
          ++changed;
        }
        entry = next;
      }
    }
    ASSERT_GT(changed, 0u);
    // One that is below no entry of the loop is still found, or not found.
    unsigned damaged = 0;
    for (unsigned i = 0; i < 2000; i += 10)
      damaged += look(fmt::format("file {:05} of man", i)) == '!';
    EXPECT_GT(damaged, 0u);
    EXPECT_LT(read_, 1u << 20);
  }
}

TEST_F(Ntfs, DamageIsSeen) {
  make(16, many_files("", 200));
  const std::string name = "file 00042 of many.dat";
  const ByteVector good = bytes_;
  const auto [block, entry] = block_with(name);
  const uint64_t root = attribute(5, kIndexRoot), value = root + at<uint16_t>(root + 0x14);
  const auto broken = [&](uint64_t offset, uint64_t value, size_t length) {
    bytes_ = good;
    for (size_t i = 0; i < length; ++i)
      bytes_[offset + i] = std::byte(value >> (8 * i));
    return look(name) == '!';
  };
  for (const uint64_t unit : {record(0), record(5), block}) {
    EXPECT_TRUE(broken(unit, 'X', 1));
    EXPECT_TRUE(broken(unit + 510, 0x1234, 2));  // written in part
    EXPECT_TRUE(broken(unit + 1022, 0x1234, 2));
    EXPECT_TRUE(broken(unit + 4, 0xfff0, 2));  // where the numbers of the fixup are
    EXPECT_TRUE(broken(unit + 4, 509, 2));
    EXPECT_TRUE(broken(unit + 6, 0, 2));
    EXPECT_TRUE(broken(unit + 6, 0xffff, 2));
  }
  for (const uint64_t number : {0, 5}) {
    EXPECT_TRUE(broken(record(number) + 0x16, 0, 2));       // not in use
    EXPECT_TRUE(broken(record(number) + 0x14, 0xffff, 2));  // where its attributes are
    EXPECT_TRUE(broken(record(number) + 0x18, 0, 4));       // how long it is
    EXPECT_TRUE(broken(record(number) + 0x20, 7, 8));       // a part of another
    const uint64_t first = record(number) + at<uint16_t>(record(number) + 0x14);
    for (const uint64_t length : {0, 8, 20, 28, 0x10000, -8})
      EXPECT_TRUE(broken(first + 4, length, 4)) << length;
  }
  EXPECT_TRUE(broken(root + 0x10, 8, 4));            // the length of its value
  EXPECT_TRUE(broken(root + 0x10, 0xffff'fff0, 4));  //
  EXPECT_TRUE(broken(root + 0x14, 0xffff, 2));       // where that is
  EXPECT_TRUE(broken(value, 0x40, 4));               // not an index of names
  EXPECT_TRUE(broken(value + 8, 0, 4));              // the size of its blocks
  EXPECT_TRUE(broken(value + 8, 1000, 4));           //
  EXPECT_TRUE(broken(value + 8, 1 << 30, 4));
  EXPECT_TRUE(broken(value + 0x10, 0xffff'ffff, 4));  // where its entries are
  EXPECT_TRUE(broken(block + 0x10, 77, 8));           // another block
  EXPECT_TRUE(broken(block + 0x18, 0xffff'fff0, 4));  // where its entries are
  for (const uint64_t length : {0, 8, 12, 0xfff8})
    EXPECT_TRUE(broken(entry + 8, length, 2)) << length;
  for (const uint64_t length : {0, 8, 0x41, 0xffff})
    EXPECT_TRUE(broken(entry + 0x0a, length, 2)) << length;
  EXPECT_TRUE(broken(entry + 0x50, 0xff, 1));                   // the length of its name
  EXPECT_TRUE(broken(attribute(5, kIndex) + 0x0c, 1, 2));       // compressed
  EXPECT_TRUE(broken(attribute(5, kIndex) + 0x0c, 0x4000, 2));  // encrypted
  EXPECT_TRUE(broken(attribute(5, kIndex) + 0x30, 0, 8));       // of no length
}

TEST_F(Ntfs, CutOffAnywhere) {
  make(16, many_files("", 200));
  const ByteVector good = bytes_;
  for (size_t length = 0; length < good.size(); length = length * 5 / 4 + 97) {
    bytes_.assign(good.begin(), good.begin() + ptrdiff_t(length));
    const char found = look("file 00042 of many.dat");
    EXPECT_TRUE(found == '!' || found == 'f') << length;
  }
}

TEST_F(Ntfs, ReadsThatFailAreSeen) {
  make(16, many_files("", 200));
  for (unsigned failing = 0;; ++failing) {
    unsigned reads = 0;
    const auto read = [&](uint64_t offset, Bytes into) {
      return reads++ != failing && reader()(offset, into);
    };
    auto volume = NtfsVolume::open(read, bytes_.size());
    const auto found = volume ? volume->find_path("file 00042 of many.dat")
                              : Result<std::optional<NtfsVolume::Entry>>(Failure(volume.error()));
    EXPECT_EQ(found.has_value(), reads <= failing);
    if (reads <= failing)
      break;
  }
}

}  // namespace
}  // namespace obraz::test
