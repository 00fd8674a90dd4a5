// ImportSource: where an image comes from, as one disk of bytes: a raw file or block device, read directly; a
// qcow2, vmdk, vpc, vhdx or vdi file, inspected by us and then read through a confined qemu-nbd; or an export
// of an NBD server.
//
// Invariants: the source is never written; no file but the named one is opened; every refusal comes with a
// sentence for the user and the field at fault ("source" or "format"). All calls block, and every wait ends
// when a stop is asked for. Thread: one worker's, the same from open to destruction (the child dies with its
// thread).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/file_identity.h"
#include "image/format.h"
#include "image/nbd_client.h"
#include "image/progress.h"
#include "image/stop_signal.h"

namespace obraz {

struct ImportSpec {
  std::string location;  // a path, or an NBD URI (nbd://, nbds://, nbd+unix://, nbds+unix://)
  std::optional<ImageFormat> format = {};  // detected when absent; raw or absent for an NBD URI
  FileIdentityRef as = nullptr;            // whose rights count when a file is opened
  // Of the bytes of the file, 64 hexadecimal digits; empty: whatever they are. Nothing else is done with a
  // file that has another one. Refused for an NBD URI.
  std::string sha256 = {};
  Progress* progress = nullptr;  // of reading the file for that; null: nobody wants to know
};

class ImportSource {
 public:
  static Answer<std::unique_ptr<ImportSource>> open(const ImportSpec& spec, std::stop_token stop = {});
  virtual ~ImportSource() = default;

  ImageFormat format() const { return format_; }
  uint64_t size_bytes() const { return size_bytes_; }  // of the disk inside, any number of bytes from 1 on

  // --- for copy_to_volume
  // ------------------------------------------------------------------------------------------- Reads begin
  // at multiples of alignment() and end at one or at the end; they have at most max_request() bytes.
  virtual uint64_t alignment() const { return 1; }
  virtual uint64_t max_request() const { return UINT64_MAX; }
  // Appends the runs of a prefix of the range, at least one, clipped to it.
  virtual Answer<void> extents(uint64_t offset, uint64_t length, std::vector<SourceExtent>& out,
                               const StopSignal& stop) = 0;
  // The read may be done on return. The transfer and its bytes stay until it is done or the source is
  // abandoned.
  virtual Answer<void> start_read(Transfer& transfer) = 0;
  // Why a transfer failed.
  virtual Refusal explain_failed(const Transfer& transfer) const;
  // Waits until something may have been done, or wake_fd is readable.
  virtual Answer<void> wait(const StopSignal& stop, int wake_fd) = 0;
  // What the disk begins with, once it is read: refuses what is no disk.
  virtual Answer<void> check_beginning(ConstBytes) const { return {}; }
  // After the last read: whether what was read is one state of the source.
  virtual Answer<void> finish() { return {}; }
  // Ends all reads; none touches its bytes any more. Nothing but destruction is allowed then.
  virtual void abandon() {}

 protected:
  ImportSource(ImageFormat format, uint64_t size_bytes) : format_(format), size_bytes_(size_bytes) {}

 private:
  ImageFormat format_;
  uint64_t size_bytes_;
};

}  // namespace obraz
