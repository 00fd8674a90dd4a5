// Fuzzes the handshake: the input is all that a client sends before it closes its sending side. It must end,
// without reading beyond the handshake, and every attach() must be one that the caller is told of.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <optional>

#include "base/check.h"
#include "nbd/handshake.h"

using namespace obraz;
using namespace obraz::nbd;

namespace {

class OneExport final : public ExportSource {
 public:
  boost::asio::awaitable<Answer<Export>> find(std::string name, Peer) override {
    OBRAZ_CHECK(!name.empty() && name.size() <= limits::kMaxExportName);
    if (name != "d")
      co_return refuse(ErrorCode::not_found, "", "there is no export " + name);
    co_return Export{
        .volume = VolumeId{1}, .size_bytes = 4 << 20, .name = "d", .description = "the only one"};
  }
  boost::asio::awaitable<Answer<std::vector<ListedExport>>> list(Peer) override {
    co_return std::vector<ListedExport>{{"d", "the only one"}};
  }
  boost::asio::awaitable<Answer<void>> attach(Export, Peer) override {
    ++attached;
    co_return Answer<void>();
  }
  void detach(const Export&) override { --attached; }

  int attached = 0;
};

// Takes what the server answers, so that it never waits for room.
void swallow(int socket) {
  char bytes[65536];
  while (::recv(socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 60'000)  // must fit the socket's buffer, for there is no second thread
    return 0;
  int pair[2];
  OBRAZ_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  OBRAZ_CHECK(size == 0 || ::send(pair[1], data, size, MSG_NOSIGNAL) == ssize_t(size));
  ::shutdown(pair[1], SHUT_WR);

  boost::asio::io_context context;
  OneExport source;
  std::optional<Result<Negotiated>> result;
  {
    Stream stream(context, boost::asio::generic::stream_protocol(AF_UNIX, 0), pair[0]);
    boost::asio::co_spawn(context, negotiate(stream, source, Peer{"fuzz", {}}),
                          [&result](std::exception_ptr error, Result<Negotiated> value) {
                            OBRAZ_CHECK(!error);
                            result = std::move(value);
                          });
    while (!result) {
      context.run_one();
      swallow(pair[1]);
    }
  }
  ::close(pair[1]);
  OBRAZ_CHECK(source.attached == (result->has_value() ? 1 : 0));
  return 0;
}
