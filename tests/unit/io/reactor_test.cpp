// The reactor with all it can register, and with each of its fallbacks.
#include "io/reactor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "io/buffer_pool.h"

namespace obraz {
namespace {

// Runs the reactor until the task has ended.
Task<void> then_stop(Reactor& reactor, Task<void> task) {
  co_await std::move(task);
  reactor.stop();
}
void run(Reactor& reactor, Task<void> task) {
  Gate gate(reactor);
  gate.spawn(then_stop(reactor, std::move(task)));
  reactor.run();
  ASSERT_EQ(gate.count(), 0u);
}

struct Pair {
  Pair() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0); }
  ~Pair() {
    close(0);
    close(1);
  }
  void close(int i) {
    if (ends[i] >= 0)
      ::close(std::exchange(ends[i], -1));
  }
  int ends[2];
};

class ReactorTest : public testing::TestWithParam<ReactorOptions> {
 protected:
  void SetUp() override {
    auto made = Reactor::create(GetParam());
    ASSERT_TRUE(made) << describe(made.error());
    reactor = std::move(*made);
  }
  std::unique_ptr<Reactor> reactor;
};

INSTANTIATE_TEST_SUITE_P(Features, ReactorTest,
                         testing::Values(ReactorOptions{}, ReactorOptions{.register_files = false},
                                         ReactorOptions{.register_buffers = false},
                                         ReactorOptions{.deferred_task_run = false},
                                         ReactorOptions{.spin_us = 100},
                                         ReactorOptions{.deferred_task_run = false, .spin_us = 100},
                                         ReactorOptions{.entries = 4,
                                                        .register_files = false,
                                                        .register_buffers = false,
                                                        .deferred_task_run = false}),
                         [](const auto& info) {
                           const ReactorOptions& o = info.param;
                           return std::string(o.register_files ? "files" : "plainfiles") +
                                  (o.register_buffers ? "_buffers" : "_plainbuffers") +
                                  (o.deferred_task_run ? "_deferred" : "_direct") +
                                  (o.entries < 8 ? "_tiny" : "") + (o.spin_us > 0 ? "_spinning" : "");
                         });

TEST_P(ReactorTest, SaysWhatWasGranted) {
  const std::string features = reactor->features();
  if (!GetParam().register_files) {
    EXPECT_NE(features.find("plain files"), std::string::npos) << features;
  }
  if (!GetParam().deferred_task_run) {
    EXPECT_EQ(features.find("deferred"), std::string::npos) << features;
  }
}

TEST_P(ReactorTest, PostedWorkRunsInOrderOnItsThread) {
  std::vector<int> log;
  std::thread::id where;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i)
      reactor->post([&, i] {
        log.push_back(i);
        where = std::this_thread::get_id();
      });
    reactor->stop();
  });
  reactor->run();
  other.join();
  std::vector<int> expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(log, expected);
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST_P(ReactorTest, PostsFromManyThreadsAllArrive) {
  constexpr int kThreads = 4, kPosts = 2000;
  int ran = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < kPosts; ++i)
        reactor->post([&] {
          if (++ran == kThreads * kPosts)
            reactor->stop();
        });
    });
  reactor->run();
  for (auto& thread : threads)
    thread.join();
  EXPECT_EQ(ran, kThreads * kPosts);
}

TEST_P(ReactorTest, WorkMayOwnWhatCannotBeCopiedAndMayPostMore) {
  auto value = std::make_unique<int>(5);
  int got = 0;
  reactor->post([this, value = std::move(value), &got]() mutable {
    reactor->post([this, value = std::move(value), &got] {
      got = *value;
      reactor->stop();
    });
  });
  reactor->run();
  EXPECT_EQ(got, 5);
}

TEST_P(ReactorTest, WorkPostedAfterTheEndNeverRunsAndIsDestroyed) {
  reactor->stop();
  reactor->run();
  auto alive = std::make_shared<int>(1);
  bool ran = false;
  reactor->post([alive, &ran] { ran = true; });
  EXPECT_EQ(alive.use_count(), 2);
  reactor.reset();
  EXPECT_EQ(alive.use_count(), 1);
  EXPECT_FALSE(ran);
}

TEST_P(ReactorTest, RunsAgainAfterStop) {
  for (int i = 0; i < 3; ++i) {
    bool ran = false;
    reactor->post([&] {
      ran = true;
      reactor->stop();
    });
    reactor->run();
    EXPECT_TRUE(ran);
  }
}

Task<void> timers(Reactor& reactor, std::vector<int>& log) {
  Timer timer(reactor);
  const uint64_t start = reactor.now_us();
  const bool passed = co_await timer.wait_us(2000);
  EXPECT_TRUE(passed);
  EXPECT_GE(reactor.now_us(), start + 2000);
  log.push_back(1);
}

TEST_P(ReactorTest, TimersFireNotBeforeTheirTime) {
  std::vector<int> log;
  run(*reactor, timers(*reactor, log));
  EXPECT_EQ(log, (std::vector{1}));
}

Task<void> spin(Reactor& reactor, const bool& done) {
  while (!done)
    co_await yield(reactor);
}
Task<void> end_by_timer(Reactor& reactor, bool& done) {
  Gate gate(reactor);
  gate.spawn(spin(reactor, done));
  Timer timer(reactor);
  co_await timer.wait_us(100);
  done = true;
  co_await gate.close();
}

TEST_P(ReactorTest, TimersFireWhileOthersAreAlwaysReady) {
  bool done = false;
  run(*reactor, end_by_timer(*reactor, done));
  EXPECT_TRUE(done);
}

Task<void> end_by_post(Reactor& reactor, bool& done) {
  reactor.post([&done] { done = true; });
  co_await spin(reactor, done);
}

TEST_P(ReactorTest, PostsArriveWhileOthersAreAlwaysReady) {
  bool done = false;
  run(*reactor, end_by_post(*reactor, done));
  EXPECT_TRUE(done);
}

Task<void> send_all(Reactor& reactor, RingFile file, ConstBytes bytes) {
  while (!bytes.empty()) {
    iovec vectors[2] = {
        {const_cast<std::byte*>(bytes.data()), bytes.size() / 2},
        {const_cast<std::byte*>(bytes.data()) + bytes.size() / 2, bytes.size() - bytes.size() / 2}};
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = 2;
    const int n = co_await reactor.send_message(file, message);
    EXPECT_GT(n, 0);
    if (n <= 0)
      co_return;
    bytes = bytes.subspan(size_t(n));
  }
}

Task<void> receive_all(Reactor& reactor, RingFile file, Bytes bytes) {
  while (!bytes.empty()) {
    const int n = co_await reactor.receive(file, bytes);
    EXPECT_GT(n, 0);
    if (n <= 0)
      co_return;
    bytes = bytes.subspan(size_t(n));
  }
}

Task<void> transfer(Reactor& reactor, Pair& pair, ConstBytes out, Bytes in) {
  RingFile left = reactor.register_file(pair.ends[0]), right = reactor.register_file(pair.ends[1]);
  Gate gate(reactor);
  gate.spawn(send_all(reactor, left, out));
  gate.spawn(receive_all(reactor, right, in));
  co_await gate.close();
  reactor.unregister_file(left);
  reactor.unregister_file(right);
  EXPECT_EQ(left.slot, -1);
}

TEST_P(ReactorTest, SocketsCarryMoreThanTheirBuffers) {
  Pair pair;
  std::vector<std::byte> out(8u << 20), in(out.size());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = std::byte(i * 2654435761u >> 24);
  run(*reactor, transfer(*reactor, pair, out, in));
  EXPECT_TRUE(out == in);
}

Task<void> end_of_stream(Reactor& reactor, Pair& pair) {
  std::byte byte[16];
  pair.close(1);
  const int n = co_await reactor.receive(RingFile{pair.ends[0], -1}, byte);
  EXPECT_EQ(n, 0);
  iovec vector{byte, sizeof byte};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  const int sent = co_await reactor.send_message(RingFile{pair.ends[0], -1}, message);
  EXPECT_EQ(sent, -EPIPE);  // and no SIGPIPE
  const int bad = co_await reactor.receive(RingFile{9999, -1}, byte);
  EXPECT_EQ(bad, -EBADF);
}

TEST_P(ReactorTest, APeerThatIsGoneIsAResult) {
  Pair pair;
  run(*reactor, end_of_stream(*reactor, pair));
}

Task<void> wait_readable(Reactor& reactor, Pair& pair, bool& ready) {
  const int events = co_await reactor.poll(RingFile{pair.ends[0], -1}, POLLIN);
  EXPECT_TRUE(events & POLLIN);
  ready = true;
}
Task<void> poll_then_write(Reactor& reactor, Pair& pair) {
  bool ready = false;
  Gate gate(reactor);
  gate.spawn(wait_readable(reactor, pair, ready));
  co_await yield(reactor);
  EXPECT_FALSE(ready);
  const char byte = 'x';
  EXPECT_EQ(::write(pair.ends[1], &byte, 1), 1);
  co_await gate.close();
  EXPECT_TRUE(ready);
}

TEST_P(ReactorTest, PollEndsWhenThereIsSomething) {
  Pair pair;
  run(*reactor, poll_then_write(*reactor, pair));
}

// More operations at once than the ring has entries.
Task<void> receive_one(Reactor& reactor, int fd, int& got) {
  std::byte byte;
  const int n = co_await reactor.receive(RingFile{fd, -1}, Bytes(&byte, 1));
  EXPECT_EQ(n, 1);
  ++got;
}
Task<void> flood(Reactor& reactor, std::vector<Pair>& pairs, int& got) {
  Gate gate(reactor);
  for (Pair& pair : pairs)
    gate.spawn(receive_one(reactor, pair.ends[0], got));
  for (Pair& pair : pairs)
    EXPECT_EQ(::write(pair.ends[1], "x", 1), 1);
  co_await gate.close();
}

TEST_P(ReactorTest, MoreOperationsThanEntries) {
  std::vector<Pair> pairs(200);
  int got = 0;
  run(*reactor, flood(*reactor, pairs, got));
  EXPECT_EQ(got, 200);
}

Task<void> file_round_trip(Reactor& reactor, int fd, Buffer out, Buffer in) {
  RingFile file = reactor.register_file(fd);
  std::memset(out.data(), 0x5a, out.size());
  const int written = co_await reactor.write(file, out.bytes(), 4096);
  EXPECT_EQ(written, int(out.size()));
  const int synced = co_await reactor.data_sync(file);
  EXPECT_EQ(synced, 0);
  const int read = co_await reactor.read(file, in.bytes(), 4096);
  EXPECT_EQ(read, int(in.size()));
  EXPECT_EQ(std::memcmp(out.data(), in.data(), in.size()), 0);
  const int beyond = co_await reactor.read(file, in.bytes(), 1 << 20);
  EXPECT_EQ(beyond, 0);
  reactor.unregister_file(file);
}

TEST_P(ReactorTest, FilesThroughRegisteredAndPlainBuffers) {
  const int fd = ::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  BufferPool pool(*reactor, 1), other(*reactor, 1);
  reactor->register_arena(pool.arena());
  run(*reactor, file_round_trip(*reactor, fd, pool.try_acquire(65536), pool.try_acquire(65536)));
  run(*reactor, file_round_trip(*reactor, fd, other.try_acquire(65536), other.try_acquire(65536)));
  ::close(fd);
}

Task<void> reuse_slots(Reactor& reactor, Pair& pair) {
  for (int i = 0; i < 10'000; ++i) {  // more than there are slots
    RingFile file = reactor.register_file(pair.ends[0]);
    EXPECT_EQ(file.fd, pair.ends[0]);
    reactor.unregister_file(file);
  }
  co_return;
}

TEST_P(ReactorTest, SlotsOfFilesAreReused) {
  Pair pair;
  run(*reactor, reuse_slots(*reactor, pair));
}

Task<void> exhaust_slots(Reactor& reactor, Pair& pair) {
  std::vector<RingFile> files;
  for (int i = 0; i < 5000; ++i)
    files.push_back(reactor.register_file(pair.ends[0]));
  const char byte = 'y';
  EXPECT_EQ(::write(pair.ends[1], &byte, 1), 1);
  std::byte got;
  const int n = co_await reactor.receive(files.back(), Bytes(&got, 1));
  EXPECT_EQ(n, 1);
  for (RingFile& file : files)
    reactor.unregister_file(file);
}

TEST_P(ReactorTest, WithoutAFreeSlotThePlainDescriptorServes) {
  Pair pair;
  run(*reactor, exhaust_slots(*reactor, pair));
}

}  // namespace
}  // namespace obraz
