// Times of resources: nanoseconds since 1970 (UTC), as protobuf has them, and a clock that never says the
// same twice.
//
// Invariant: each time that Clock gives is later than every one before it, also across restarts
// (advance_past()), so the order of creation is always defined. Thread: one.
#pragma once

#include <google/protobuf/timestamp.pb.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>

namespace obraz {

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

inline int64_t to_nanoseconds(const google::protobuf::Timestamp& time) {
  return time.seconds() * kNanosecondsPerSecond + time.nanos();
}
inline google::protobuf::Timestamp to_timestamp(int64_t nanoseconds) {
  google::protobuf::Timestamp time;
  time.set_seconds(nanoseconds / kNanosecondsPerSecond);
  time.set_nanos(int32_t(nanoseconds % kNanosecondsPerSecond));
  return time;
}

class Clock {
 public:
  using Now = std::function<int64_t()>;  // nanoseconds since 1970
  explicit Clock(Now now = &system_now) : now_(std::move(now)) {}

  google::protobuf::Timestamp next() {
    last_ = std::max(now_(), last_ + 1);
    return to_timestamp(last_);
  }
  void advance_past(const google::protobuf::Timestamp& time) {
    last_ = std::max(last_, to_nanoseconds(time));
  }

  static int64_t system_now() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return int64_t(now.tv_sec) * kNanosecondsPerSecond + now.tv_nsec;
  }

 private:
  Now now_;
  int64_t last_ = 0;
};

}  // namespace obraz
