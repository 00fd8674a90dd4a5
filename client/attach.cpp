#include "client/attach.h"

#include <fmt/core.h>

#include <algorithm>

namespace obraz::client {
namespace {

bool is_unreserved(char c) {  // of RFC 3986, and the slash
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~/").find(c) != std::string_view::npos;
}

std::string percent_encoded(std::string_view text) {
  std::string encoded;
  for (const char c : text)
    encoded += is_unreserved(c) ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  return encoded;
}

// A value among qemu's comma-separated options.
std::string qemu_value(std::string_view text) {
  std::string value;
  for (const char c : text)
    value += c == ',' ? std::string(",,") : std::string(1, c);
  return value;
}

std::string xml_attribute(std::string_view text) {
  std::string value;
  for (const char c : text) {
    switch (c) {
      case '&':
        value += "&amp;";
        break;
      case '<':
        value += "&lt;";
        break;
      case '\'':
        value += "&apos;";
        break;
      default:
        value += c;
    }
  }
  return value;
}

struct HostPort {
  std::string_view host, port;
};
HostPort split_tcp(std::string_view address) {
  const size_t colon = address.rfind(':');
  std::string_view host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']'))
    host = host.substr(1, host.size() - 2);
  return {host, colon == std::string_view::npos ? "10809" : address.substr(colon + 1)};
}

std::string libvirt_disk(const NbdAddress& address, std::string_view name) {
  const HostPort tcp = split_tcp(address.tcp);
  const std::string host =
      address.unix_path.empty()
          ? fmt::format("<host name='{}' port='{}'/>", xml_attribute(tcp.host), tcp.port)
          : fmt::format("<host transport='unix' socket='{}'/>", xml_attribute(address.unix_path));
  return fmt::format(
      "<disk type='network' device='disk'>\n"
      "  <driver name='qemu' type='raw' cache='none' discard='unmap' detect_zeroes='off'/>\n"
      "  <source protocol='nbd' name='{}'>\n"
      "    {}\n"
      "  </source>\n"
      "  <target dev='vda' bus='virtio'/>\n"
      "</disk>",
      xml_attribute(name), host);
}

// What Microsoft documents as recommendations of a hypervisor, and qemu's name for each
// (docs/system/i386/hyperv); without them a guest of Windows polls timers and waits for locks that nobody
// holds. Interrupts of the clock that came too late are made up for, since Windows counts them.
std::string qemu_needs(GuestNeeds needs) {
  std::string options;
  if (needs.uefi)
    options += " -machine q35 -bios /usr/share/ovmf/OVMF.fd";
  if (needs.windows)
    options +=
        " -cpu host,hv-relaxed,hv-vapic,hv-spinlocks=0x1fff,hv-vpindex,hv-runtime,hv-time,hv-synic,hv-stimer"
        " -rtc base=localtime,driftfix=slew";
  return options;
}

// libvirt's words for the same.
std::string libvirt_needs(GuestNeeds needs) {
  std::string elements;
  if (needs.uefi)
    elements += "\n<os firmware='efi'>\n  <type machine='q35'>hvm</type>\n</os>";
  if (needs.windows)
    elements +=
        "\n<features>\n"
        "  <acpi/>\n"
        "  <apic/>\n"
        "  <hyperv>\n"
        "    <relaxed state='on'/>\n"
        "    <vapic state='on'/>\n"
        "    <spinlocks state='on' retries='8191'/>\n"
        "    <vpindex state='on'/>\n"
        "    <runtime state='on'/>\n"
        "    <synic state='on'/>\n"
        "    <stimer state='on'/>\n"
        "  </hyperv>\n"
        "</features>\n"
        "<cpu mode='host-passthrough'/>\n"
        "<clock offset='localtime'>\n"
        "  <timer name='rtc' tickpolicy='catchup'/>\n"
        "  <timer name='pit' tickpolicy='delay'/>\n"
        "  <timer name='hpet' present='no'/>\n"
        "  <timer name='hypervclock' present='yes'/>\n"
        "</clock>";
  return elements;
}

}  // namespace

std::string export_name(std::string_view kind, std::string_view folder, std::string_view name,
                        std::string_view id) {
  if (name.empty())
    return std::string(id);
  return folder == "default" ? fmt::format("{}/{}", kind, name) : fmt::format("{}/{}/{}", kind, folder, name);
}

std::string nbd_uri(const NbdAddress& address, std::string_view export_name) {
  const std::string path = percent_encoded(export_name);
  return address.unix_path.empty()
             ? fmt::format("nbd://{}/{}", address.tcp, path)
             : fmt::format("nbd+unix:///{}?socket={}", path, percent_encoded(address.unix_path));
}

std::string shell_quoted(std::string_view word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](char c) {
    return is_unreserved(c) ? c != '~' : std::string_view("+:,=%@").find(c) != std::string_view::npos;
  });
  if (plain)
    return std::string(word);
  std::string quoted = "'";
  for (const char c : word)
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string attach_args(Consumer consumer, const NbdAddress& address, std::string_view export_name,
                        GuestNeeds needs) {
  switch (consumer) {
    case Consumer::qemu:
      return "-drive " +
             shell_quoted(
                 fmt::format("file={},format=raw,if=virtio,cache=none,discard=unmap,detect-zeroes=off",
                             qemu_value(nbd_uri(address, export_name)))) +
             qemu_needs(needs);
    case Consumer::libvirt:
      return libvirt_disk(address, export_name) + libvirt_needs(needs);
    case Consumer::nbd_client: {
      const HostPort tcp = split_tcp(address.tcp);
      const std::string where = address.unix_path.empty()
                                    ? shell_quoted(tcp.host) + " " + std::string(tcp.port)
                                    : "-unix " + shell_quoted(address.unix_path);
      return fmt::format("nbd-client {} /dev/nbd0 -N {} -b 512", where, shell_quoted(export_name));
    }
  }
  return {};
}

}  // namespace obraz::client
