// The handshake of one client, fixed newstyle: from the server's greeting to the moment transmission begins.
// Which options are understood and how each is answered is told in docs/nbd.md.
//
// Invariants: exactly the bytes of the handshake are read, none of what follows, so the bare descriptor can
// be handed over afterwards; what a client can make us hold is one option's data (kMaxOptionLength) and one
// reply to it; the number of options is bounded. There is no clock in here: the server closes the stream when
// time is up, and every step then ends with `disconnected`. Thread: the control thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <string>

#include "base/result.h"
#include "nbd/export.h"
#include "nbd/wire.h"

namespace obraz::nbd {

using Stream = boost::asio::generic::stream_protocol::socket;

struct Negotiated {
  Export exported;
  bool structured = false;
  bool base_allocation = false;
};

// On success ExportSource::attach() has succeeded for `exported` and the caller owes the detach(). Errors:
// `disconnected` when the client left or was told to (ABORT, an unknown export by EXPORT_NAME), `protocol`
// when it broke the protocol, `resource_exhausted` when it passed a limit. The stream is left open in any
// case.
boost::asio::awaitable<Result<Negotiated>> negotiate(Stream& stream, ExportSource& source, Peer peer);

}  // namespace obraz::nbd
