// What the client makes of messages: JSON, recipes, progress, tables; and what it says to a wrong command
// line.
#include <gtest/gtest.h>

#include <vector>

#include "catalog/time.h"
#include "client/attach.h"
#include "client/cli.h"
#include "client/json.h"
#include "client/output.h"
#include "client/progress.h"
#include "obraz/v1/image_service.pb.h"

namespace obraz::client {
namespace {

TEST(Json, EveryFieldAppearsAndIntegersAreNumbers) {
  v1::Disk disk;
  disk.set_id("1x");
  disk.set_folder_id("default");
  *disk.mutable_created_at() = to_timestamp(1'714'979'289'000'000'000);
  disk.set_created_by("user:root");
  disk.set_name("vm1");
  (*disk.mutable_labels())["b"] = "2";
  (*disk.mutable_labels())["a"] = "1";
  disk.set_status(v1::READY);
  disk.set_size(int64_t(4) << 40);
  disk.set_block_size(4096);
  disk.mutable_os()->set_type(v1::Os::LINUX);
  disk.set_source_image_id("3y");
  auto& attachment = *disk.add_attachments();
  attachment.set_client("unix pid 1");
  *attachment.mutable_since() = to_timestamp(1'714'979'289'120'000'000);
  EXPECT_EQ(to_json(disk), R"({
  "id": "1x",
  "folder_id": "default",
  "created_at": "2024-05-06T07:08:09Z",
  "created_by": "user:root",
  "name": "vm1",
  "description": "",
  "labels": {
    "a": "1",
    "b": "2"
  },
  "status": "READY",
  "delete_protection": false,
  "size": 4398046511104,
  "block_size": 4096,
  "os": {
    "type": "LINUX"
  },
  "source_image_id": "3y",
  "attachments": [
    {
      "client": "unix pid 1",
      "since": "2024-05-06T07:08:09.120Z",
      "read_only": false
    }
  ],
  "product_ids": [],
  "hardware_generation": "HARDWARE_GENERATION_UNSPECIFIED"
})");
}

TEST(Json, AnEmptyListIsStillAList) {
  EXPECT_EQ(to_json(v1::ListImagesResponse()), "{\n  \"images\": [],\n  \"next_page_token\": \"\"\n}");
}

TEST(Json, WhatIsOptionalAndNotSetIsLeftOut) {
  v1::OperationMetadata metadata;
  EXPECT_EQ(to_json(metadata).find("eta_seconds"), std::string::npos);
  metadata.set_eta_seconds(0);
  EXPECT_NE(to_json(metadata).find("\"eta_seconds\": 0"), std::string::npos);
}

TEST(Json, StringsAreEscaped) {
  EXPECT_EQ(json_string("a\"b\\c\n\x01\xc3\xbc"), "\"a\\\"b\\\\c\\n\\u0001\xc3\xbc\"");
}

TEST(Json, TimesHaveAsManyDigitsAsTheyNeed) {
  EXPECT_EQ(rfc3339(to_timestamp(0)), "1970-01-01T00:00:00Z");
  EXPECT_EQ(rfc3339(to_timestamp(1'000'001'000)), "1970-01-01T00:00:01.000001Z");
  EXPECT_EQ(rfc3339(to_timestamp(1'000'000'001)), "1970-01-01T00:00:01.000000001Z");
}

TEST(Attach, TheUriNamesExportAndSocket) {
  const NbdAddress address{"/run/obraz/nbd.sock", ""};
  EXPECT_EQ(nbd_uri(address, "disk/vm1"), "nbd+unix:///disk/vm1?socket=/run/obraz/nbd.sock");
  EXPECT_EQ(nbd_uri({"/a b&c", ""}, "disk/vm1"), "nbd+unix:///disk/vm1?socket=/a%20b%26c");
  EXPECT_EQ(nbd_uri({"", "127.0.0.1:10809"}, "disk/vm1"), "nbd://127.0.0.1:10809/disk/vm1");
}

TEST(Attach, ExportNamesHideTheDefaultFolder) {
  EXPECT_EQ(export_name("disk", "default", "vm1", "1x"), "disk/vm1");
  EXPECT_EQ(export_name("disk", "team", "vm1", "1x"), "disk/team/vm1");
  EXPECT_EQ(export_name("disk", "default", "", "1x"), "1x");
}

TEST(Attach, RecipesAreQuotedForTheirReaders) {
  EXPECT_EQ(attach_args(Consumer::qemu, {"/a,b/nbd.sock", ""}, "disk/vm1"),
            "-drive "
            "'file=nbd+unix:///disk/vm1?socket=/a%2Cb/nbd.sock,format=raw,if=virtio,cache=none,discard=unmap,"
            "detect-zeroes=off'");
  EXPECT_EQ(attach_args(Consumer::nbd_client, {"/it's/nbd.sock", ""}, "disk/vm1"),
            "nbd-client -unix '/it'\\''s/nbd.sock' /dev/nbd0 -N disk/vm1 -b 512");
  EXPECT_EQ(attach_args(Consumer::nbd_client, {"", "[::1]:10809"}, "disk/vm1"),
            "nbd-client ::1 10809 /dev/nbd0 -N disk/vm1 -b 512");
  const std::string libvirt = attach_args(Consumer::libvirt, {"/a<b'", ""}, "disk/vm1");
  EXPECT_NE(libvirt.find("socket='/a&lt;b&apos;'"), std::string::npos);
  EXPECT_NE(libvirt.find("name='disk/vm1'"), std::string::npos);
}

TEST(Attach, AGuestGetsTheMachineThatItNeeds) {
  const NbdAddress address{"/s", ""};
  const std::string plain = attach_args(Consumer::qemu, address, "disk/vm1");
  EXPECT_EQ(attach_args(Consumer::qemu, address, "disk/vm1", {.uefi = true}),
            plain + " -machine q35 -bios /usr/share/ovmf/OVMF.fd");
  const std::string windows = attach_args(Consumer::qemu, address, "disk/vm1", {.windows = true});
  EXPECT_NE(windows.find(" -cpu host,hv-relaxed,"), std::string::npos);
  EXPECT_NE(windows.find(" -rtc base=localtime"), std::string::npos);
  EXPECT_EQ(windows.find("OVMF"), std::string::npos);
  const std::string both =
      attach_args(Consumer::libvirt, address, "disk/vm1", {.windows = true, .uefi = true});
  EXPECT_NE(both.find("<os firmware='efi'>"), std::string::npos);
  EXPECT_NE(both.find("<hyperv>"), std::string::npos);
  EXPECT_NE(both.find("<clock offset='localtime'>"), std::string::npos);
  // What serves a host has nothing to do with a guest.
  EXPECT_EQ(attach_args(Consumer::nbd_client, address, "disk/vm1", {.windows = true, .uefi = true}),
            attach_args(Consumer::nbd_client, address, "disk/vm1"));
}

v1::OperationMetadata half_done() {
  v1::OperationMetadata metadata;
  metadata.set_phase("copying");
  metadata.set_bytes_total(2 << 20);
  metadata.set_bytes_done(1 << 20);
  metadata.set_bytes_per_second(1 << 19);
  metadata.set_eta_seconds(2);
  return metadata;
}

TEST(Progress, ABarFitsTheTerminal) {
  EXPECT_EQ(ProgressDisplay::bar(half_done(), 80),
            "copying [#############-------------]  50%  1 MiB of 2 MiB  512 KiB/s  0:02 left");
  for (unsigned columns = 0; columns < 300; ++columns)
    EXPECT_LE(ProgressDisplay::bar(half_done(), columns).size(), columns ? columns - 1 : 0) << columns;
}

TEST(Progress, ALineSaysTheSame) {
  EXPECT_EQ(ProgressDisplay::line(half_done()), "copying: 50%, 1 MiB of 2 MiB, 512 KiB/s, 0:02 left");
  v1::OperationMetadata unknown;
  unknown.set_phase("opening");
  EXPECT_EQ(ProgressDisplay::line(unknown), "opening");
}

TEST(Output, ColumnsAreAlignedByCharacters) {
  EXPECT_EQ(table({{"A", "B"}, {"\xc3\xbc\xc3\xbc", "x"}, {"", "y"}}), "A   B\n\xc3\xbc\xc3\xbc  x\n    y\n");
  EXPECT_EQ(table({}), "");
}

int run_words(std::vector<std::string> words) {
  words.insert(words.begin(), "obraz");
  std::vector<char*> arguments;
  for (std::string& word : words)
    arguments.push_back(word.data());
  return run(int(arguments.size()), arguments.data());
}

TEST(Cli, AWrongCommandLineIsStatusTwo) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {},
           {"nonsense"},
           {"disk"},
           {"disk", "nonsense"},
           {"disk", "create", "--name", "a"},
           {"disk", "create", "--size", "1G"},
           {"disk", "create", "--name", "a", "--size", "x"},
           {"disk", "create", "--name", "a", "--size", "-1"},
           {"disk", "create", "--name", "a", "--image", "i", "--family", "f"},
           {"disk", "create", "--name", "a", "--size", "1G", "--label", "novalue"},
           {"disk", "get"},
           {"disk", "get", "a", "b"},
           {"disk", "attach-args", "a", "--for", "vmware"},
           {"image", "create", "--name", "i"},
           {"image", "create", "--name", "i", "--from-disk", "d", "--from-image", "i"},
           {"image", "import", "f", "--name", "i", "--format", "iso"},
           {"snapshot", "create", "--name", "a", "--disk", "d", "--disk", "e"},
           {"diff", "disk/a"},
           {"status", "--unknown"},
           {"--quiet", "--json", "disk", "list"},
           {"status", "\xff"}})
    EXPECT_EQ(run_words(words), 2) << testing::PrintToString(words);
}

TEST(Cli, AMistypedWordIsAnsweredWithTheNearest) {
  for (const auto& [words, meant] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"disc", "list"}, "disc; did you mean disk?"},
           {{"image", "lst"}, "lst; did you mean list?"},
           {{"disk", "list", "--fliter", "x"}, "--fliter; did you mean --filter?"},
           {{"disk", "list", "--jsn"}, "--jsn; did you mean --json?"},
           {{"frobnicate"}, "frobnicate\n"}}) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(run_words(words), 2);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("there is no command or option " + meant), std::string::npos) << said;
  }
}

TEST(Cli, WithoutADaemonItIsStatusOne) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"status"},
           {"status", "--json"},
           {"--json", "disk", "create", "--name", "a", "--size", "1G"},
           {"disk", "create", "--name", "a", "--image", "i", "--size", "99999999T", "--label", "a=b",
            "--label", "c="},
           {"snapshot", "create", "--disk", "d", "--name", "a", "--disk", "e", "--name", "b"},
           {"image", "import", "f", "--name", "i", "--folder", "x", "--async"}}) {
    auto with_socket = words;
    with_socket.insert(with_socket.begin(), {"--control", "/nonexistent/control.sock"});
    EXPECT_EQ(run_words(with_socket), 1) << testing::PrintToString(words);
  }
}

TEST(Cli, HelpIsNoFailure) {
  EXPECT_EQ(run_words({"disk", "create", "--help"}), 0);
}

}  // namespace
}  // namespace obraz::client
