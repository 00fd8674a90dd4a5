// The world outside of the server, run where the server would enter the kernel to wait for it
// (cost_ring.cpp).
#pragma once

namespace obraz::bench {

// What stands at the other end of the socket.
class Outside {
 public:
  virtual ~Outside() = default;
  // Called when the server has nothing left to do. Whether anything was sent, received or closed.
  virtual bool step() = 0;
};

// From now on devices complete before each call of the kernel returns, in the order of submission, and
// `outside` is run instead of waiting; nullptr: no longer.
void run_outside(Outside* outside);

}  // namespace obraz::bench
