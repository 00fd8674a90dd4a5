// A foreign image file, served by qemu-nbd to us alone: the child gets the very descriptor that was
// inspected, by its number, with the driver named and no backing file allowed, so that neither the file's
// name nor a swap of the file under its name nor its content can make it open another. The socket has no name
// in the file system any more when the child starts. Thread: the worker's, which outlives the child.
#pragma once

#include <memory>

#include "image/confined_child.h"
#include "image/format.h"
#include "image/nbd_client.h"

namespace obraz {

struct ServedFile {
  std::unique_ptr<ConfinedChild> child;
  std::unique_ptr<NbdClient> client;  // destroyed first
};

struct ServeOptions {
  ImageFormat format = ImageFormat::qcow2;
  bool block_device = false;  // the descriptor is of one
  bool writable = false;
  bool size_from_geometry = false;  // see Inspection
};

Answer<ServedFile> serve_file(int fd, const ServeOptions& options, const StopSignal& stop);

// Writes an empty qcow2 image of that virtual size into the (empty) file.
Answer<void> make_qcow2(int fd, uint64_t size_bytes, const StopSignal& stop);

}  // namespace obraz
