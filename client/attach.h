// How clients of NBD reach an export: its URI, and recipes for qemu, libvirt and nbd-client. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace obraz::client {

// Where the daemon listens: a Unix socket, or HOST:PORT when that is empty.
struct NbdAddress {
  std::string unix_path;
  std::string tcp;
};

// disk/NAME in the folder default, disk/FOLDER/NAME elsewhere, the id when there is no name.
std::string export_name(std::string_view kind, std::string_view folder, std::string_view name,
                        std::string_view id);

// nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT.
std::string nbd_uri(const NbdAddress& address, std::string_view export_name);

enum class Consumer { qemu, libvirt, nbd_client };
// What the system on the disk wants of the machine that boots from it.
struct GuestNeeds {
  bool windows = false;  // enlightenments of the processor, a clock that shows local time
  bool uefi = false;     // firmware; else a BIOS
};
// A line for a shell (qemu: options; nbd-client: a command), or elements for libvirt's <domain>, <disk>
// first.
std::string attach_args(Consumer consumer, const NbdAddress& address, std::string_view export_name,
                        GuestNeeds needs = {});

// As one word of a POSIX shell.
std::string shell_quoted(std::string_view word);

}  // namespace obraz::client
