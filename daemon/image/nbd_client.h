// NbdClient: one connection of libnbd to a server, with several requests in flight, for a thread that may
// block.
//
// Everything a server sends is input: it may lie, stall or vanish, and each of these is a refusal. A transfer
// that was started lives, with its bytes, until it is done or the client is destroyed: destruction ends all
// of them without touching their bytes again. Thread: one, the worker's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "image/file_view.h"
#include "image/stop_signal.h"

struct nbd_handle;

namespace obraz {

// One read or write on its way.
struct Transfer {
  uint64_t offset = 0;
  Bytes bytes;
  bool done = false;
  int os_error = 0;  // once done; 0: it went well
};

// A run of bytes of a source. zero: it reads as zeros and need not be read.
struct SourceExtent {
  uint64_t offset = 0, length = 0;
  bool zero = false;
};

class NbdClient {
 public:
  // nbd, nbds, nbd+unix and nbds+unix URIs.
  static Answer<std::unique_ptr<NbdClient>> connect(const std::string& uri, const StopSignal& stop);
  // A socket connected to a server with one export, the default one.
  static Answer<std::unique_ptr<NbdClient>> adopt(OwnedFd socket, const StopSignal& stop);
  ~NbdClient();
  NbdClient(const NbdClient&) = delete;

  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t alignment() const { return alignment_; }      // of requests; the last one may end at the end
  uint64_t max_request() const { return max_request_; }  // bytes

  Answer<void> start_read(Transfer& transfer);
  Answer<void> start_write(Transfer& transfer);
  // Waits until the server has sent something, which may complete transfers, or wake_fd (unless -1) is
  // readable. Only while transfers are under way: look for done ones first.
  Answer<void> wait(const StopSignal& stop, int wake_fd);

  // The runs of a prefix of the range, at least one, clipped to it; what the server does not tell is data.
  // Transfers go on meanwhile.
  Answer<void> extents(uint64_t offset, uint64_t length, std::vector<SourceExtent>& out,
                       const StopSignal& stop);
  Answer<void> flush(const StopSignal& stop);
  // Takes leave, so that the server knows that nothing more comes.
  Answer<void> disconnect(const StopSignal& stop);

 private:
  // What a block status command reports; a member, because a command given up may still report.
  struct StatusRun {
    uint32_t length, flags;
  };
  struct Command {
    bool done = false;
    int os_error = 0;
  };

  explicit NbdClient(nbd_handle* handle) : handle_(handle) {}
  static Answer<std::unique_ptr<NbdClient>> create();
  Answer<void> greet(const StopSignal& stop);
  Answer<void> turn(const StopSignal& stop, int wake_fd);
  Answer<void> run_to_end(Command& command, const StopSignal& stop);
  template <typename Condition>
  Answer<void> turn_until(const StopSignal& stop, Condition condition);

  static int on_transfer(void* user, int* error);
  static int on_command(void* user, int* error);
  static int on_status(void* user, const char* context, uint64_t offset, uint32_t* entries, size_t count,
                       int* error);

  nbd_handle* handle_;
  uint64_t size_bytes_ = 0, alignment_ = 1, max_request_ = 0;
  bool tells_status_ = false;
  Command command_;  // the flush or block status under way
  std::vector<StatusRun> status_;
};

}  // namespace obraz
