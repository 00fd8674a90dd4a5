// The volumes are made by dosfstools and mtools; then one thing in them is changed.
#include "image/fat.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "layout_support.h"

namespace obraz::test {
namespace {

constexpr char kLoader[] = "EFI/Microsoft/Boot/bootmgfw.efi";

class Fat : public testing::Test {
 protected:
  void make(uint64_t mib, unsigned bits, const std::vector<std::string>& files) {
    bytes_ = read_file(maker_.fat(mib, bits, "LABEL", files));
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
  Result<std::optional<FatVolume::Entry>> find(const std::string& path) {
    read_ = 0;
    auto volume = FatVolume::open(reader(), bytes_.size());
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
  unsigned bits() {
    const auto volume = FatVolume::open(reader(), bytes_.size());
    return volume ? volume->bits() : 0;
  }

  uint16_t word(uint64_t offset) const { return load_le<uint16_t>(&bytes_[offset]); }
  uint64_t table() const { return uint64_t(word(14)) * word(11); }
  // The directory entry of a short name, with blanks.
  uint64_t entry(const char* name) const {
    const auto found = std::search(bytes_.begin(), bytes_.end(), reinterpret_cast<const std::byte*>(name),
                                   reinterpret_cast<const std::byte*>(name) + 11);
    EXPECT_NE(found, bytes_.end()) << name;
    return uint64_t(found - bytes_.begin());
  }

  DiskMaker maker_;
  ByteVector bytes_;
  uint64_t read_ = 0;
};

TEST_F(Fat, EveryKind) {
  for (const auto& [mib, kind] :
       {std::pair(4, 12u), std::pair(32, 16u), std::pair(64, 32u), std::pair(34, 32u)}) {
    make(uint64_t(mib), kind,
         {kLoader, "EFI/Boot/bootx64.efi", "short.txt", "a name that is rather long.text"});
    EXPECT_EQ(bits(), kind);
    EXPECT_EQ(look(kLoader), 'f') << kind;
    EXPECT_EQ(look("efi/MICROSOFT/boot/BOOTMGFW.EFI"), 'f') << kind;
    EXPECT_EQ(look("EFI/MICROS~1/BOOT"), 'd') << kind;
    EXPECT_EQ(look("EFI"), 'd') << kind;
    EXPECT_EQ(look("EFI/Microsoft/Boot/bootmgfw.ef"), '-') << kind;
    EXPECT_EQ(look("EFI/Microsof"), '-') << kind;
    EXPECT_EQ(look("short.txt"), 'f') << kind;
    EXPECT_EQ(look("short.txt/x"), '-') << kind;
    EXPECT_EQ(look("A name that is rather long.TEXT"), 'f') << kind;
    EXPECT_EQ(look("LABEL"), '-') << kind;
  }
}

TEST_F(Fat, DirectoryOfManyClusters) {
  const std::string file = maker_.fat(64, 32, "MANY", {"dir/x"});
  quiet(fmt::format(
      "mkdir {0} && (cd {0} && seq -f 'a file with a long name %03g' 500 | xargs -d '\\n' touch) && "
      "mcopy -i {1} {0}/* ::dir && mcopy -i {1} {0}/* ::",
      maker_.path("many"), file));
  bytes_ = read_file(file);
  for (const char* where : {"", "dir/"})
    for (unsigned i = 1; i <= 500; i += 83)
      EXPECT_EQ(look(fmt::format("{}a file with a long name {:03}", where, i)), 'f') << where << i;
  EXPECT_EQ(look("dir/a file with a long name 501"), '-');

  // Its chain leads back to where it began; it has no end then.
  const uint64_t place = entry("DIR        ");
  const uint32_t first = uint32_t(word(place + 20)) << 16 | word(place + 26);
  const ByteVector good = bytes_;
  uint32_t last = first;
  while (load_le<uint32_t>(&bytes_[table() + 4 * last]) < 0x0fff'fff8)
    last = load_le<uint32_t>(&bytes_[table() + 4 * last]);
  ASSERT_NE(last, first);
  // What is behind the last entry would end it: so not this one, but the one before.
  uint32_t before = first;
  while (load_le<uint32_t>(&bytes_[table() + 4 * before]) != last)
    before = load_le<uint32_t>(&bytes_[table() + 4 * before]);
  for (const uint32_t to : {first, before, 0u, 1u, 0x0fff'fff0u}) {
    bytes_ = good;
    store_le<uint32_t>(&bytes_[table() + 4 * before], to);
    EXPECT_EQ(look("dir/a file with a long name 501"), '!') << to;
    EXPECT_LT(read_, 8u << 20);
  }
  // The upper four bits mean nothing.
  bytes_ = good;
  bytes_[table() + 4 * before + 3] |= std::byte(0xf0);
  EXPECT_EQ(look("dir/a file with a long name 501"), '-');
}

// Directories that contain themselves are walked along our path only.
TEST_F(Fat, DirectoryThatIsItsOwnParent) {
  make(34, 32, {kLoader});
  const uint64_t efi = entry("EFI        "), boot = entry("BOOT       ");
  bytes_[boot + 26] = bytes_[efi + 26];
  bytes_[boot + 27] = bytes_[efi + 27];
  EXPECT_EQ(look(kLoader), '-');
  EXPECT_EQ(look("EFI/Microsoft/Boot/Microsoft/Boot/Microsoft"), 'd');
  for (const uint16_t cluster : {0, 1, 0xffff}) {
    store_le<uint16_t>(&bytes_[boot + 20], cluster == 0xffff ? 0xffff : 0);
    store_le<uint16_t>(&bytes_[boot + 26], cluster);
    EXPECT_EQ(look(kLoader), '!') << cluster;
  }
}

TEST_F(Fat, LongNameThatDoesNotFitIsNone) {
  make(4, 12, {kLoader});
  const uint64_t place = entry("MICROS~1   ");
  const ByteVector good = bytes_;
  const auto broken = [&](int64_t offset, int value) {
    bytes_ = good;
    bytes_[uint64_t(int64_t(place) + offset)] = std::byte(value);
    return look(kLoader) == '-' && look("EFI/MICROS~1/Boot/bootmgfw.efi") == 'f';
  };
  EXPECT_FALSE(broken(-32, 0x41));      // as it was: the last part, which is the first
  EXPECT_TRUE(broken(-32, 0x42));       // the second of two, and no first
  EXPECT_TRUE(broken(-32, 0x01));       // no last one
  EXPECT_TRUE(broken(-32, 0x40));       // of no parts
  EXPECT_TRUE(broken(-32, 0x7f));       // of too many
  EXPECT_TRUE(broken(-32, 0xe5));       // deleted
  EXPECT_TRUE(broken(-32 + 13, 0x00));  // of another short name
  EXPECT_TRUE(broken(-32 + 1, 'N'));    // another name
}

TEST_F(Fat, BootSectorThatCannotBe) {
  for (const unsigned kind : {12u, 32u}) {
    make(kind == 12 ? 4 : 34, kind, {kLoader});
    const ByteVector good = bytes_;
    const auto refused = [&](uint64_t offset, uint64_t value, size_t length) {
      bytes_ = good;
      for (size_t i = 0; i < length; ++i)
        bytes_[offset + i] = std::byte(value >> (8 * i));
      return look(kLoader) == '!';
    };
    EXPECT_FALSE(refused(0, 0xeb, 1));
    EXPECT_TRUE(refused(510, 0, 1));
    for (const uint64_t value : {0, 100, 256, 8192, 0xffff})
      EXPECT_TRUE(refused(11, value, 2)) << value;
    for (const uint64_t value : {0, 3, 255})
      EXPECT_TRUE(refused(13, value, 1)) << value;
    EXPECT_TRUE(refused(14, 0, 2));
    EXPECT_TRUE(refused(16, 0, 1));
    EXPECT_TRUE(refused(21, 0, 1));
    EXPECT_TRUE(refused(22, kind == 12 ? 0 : 1, 2));
    if (kind == 12) {
      EXPECT_TRUE(refused(14, 0xffff, 2));
      EXPECT_TRUE(refused(22, 0xffff, 2));
    } else {
      EXPECT_TRUE(refused(36, 0, 4));
      EXPECT_TRUE(refused(36, 0xffff'ffff, 4));
      for (const uint64_t cluster : {0u, 1u, 0xffff'ffffu})
        EXPECT_TRUE(refused(44, cluster, 4)) << cluster;
    }
  }
}

TEST_F(Fat, CutOffAnywhere) {
  make(34, 32, {kLoader});
  const ByteVector good = bytes_;
  for (size_t length = 0; length < good.size(); length = length * 5 / 4 + 97) {
    bytes_.assign(good.begin(), good.begin() + ptrdiff_t(length));
    const char found = look(kLoader);
    EXPECT_TRUE(found == '!' || found == 'f') << length << found;
  }
}

}  // namespace
}  // namespace obraz::test
