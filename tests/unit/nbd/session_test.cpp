// Transmission, through a whole server in the test: bytes on a socket in, bytes on a socket out.
#include "nbd/session.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "harness.h"

namespace obraz::nbd {
namespace {

using test::be32;
using test::Client;
using test::from_be;
using test::Harness;
using test::pattern;
using test::ReplyChunk;

constexpr uint32_t KiB = 1024, MiB = 1024 * KiB;
using Status = Client::Status;

TEST(NbdSession, WhatWasWrittenIsReadAtAnyAlignment) {
  Harness server;
  server.add_disk("d");
  for (const unsigned features : {Client::kSimple, Client::kStructured}) {
    Client client = server.attach("d", features);
    const std::pair<uint64_t, uint32_t> ranges[] = {{0, 4096},
                                                    {4096, 1},
                                                    {8191, 2},
                                                    {12345, 6789},
                                                    {1 * MiB, 128 * KiB},
                                                    {2 * MiB + 513, 300'001},
                                                    {5 * MiB - 1, 4098},
                                                    {64 * MiB - 7, 7}};
    for (const auto& [offset, length] : ranges)
      ASSERT_EQ(client.write(offset, pattern(offset, length, features)), 0u) << offset;
    for (const auto& [offset, length] : ranges)
      EXPECT_EQ(client.read(offset, length), pattern(offset, length, features)) << offset;
  }
}

TEST(NbdSession, LargestRequests) {
  Harness server({.arena_bytes = 256 * MiB});
  server.add_disk("d");
  Client client = server.attach("d");
  ASSERT_EQ(client.write(4096, pattern(4096, 32 * MiB)), 0u);
  EXPECT_EQ(client.read(4096, 32 * MiB), pattern(4096, 32 * MiB));
  // Not aligned, so the buffer behind it is larger still.
  ASSERT_EQ(client.write(777, pattern(777, 32 * MiB, 2)), 0u);
  EXPECT_EQ(client.read(777, 32 * MiB), pattern(777, 32 * MiB, 2));
}

TEST(NbdSession, NewDiskReadsAsOneHole) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d", Client::kStructured);
  const std::vector<ReplyChunk> chunks = client.read_chunks(1000, 1 * MiB);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].type, 2u);
  EXPECT_EQ(chunks[0].data, test::be64(1000) + be32(1 * MiB));
  EXPECT_EQ(server.attach("d").read(1000, 1 * MiB), std::string(1 * MiB, '\0'));
}

TEST(NbdSession, HolesBetweenDataAreChunksWhenTheyAreWorthOne) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d", Client::kStructured);
  // Data at 64K and 256K, each 4K: long holes around them.
  for (const uint64_t offset : {64 * KiB, 256 * KiB})
    ASSERT_EQ(client.write(offset, pattern(offset, 4096)), 0u);
  const std::vector<ReplyChunk> chunks = client.read_chunks(0, 512 * KiB);
  std::vector<unsigned> types;
  for (const ReplyChunk& chunk : chunks)
    types.push_back(chunk.type);
  EXPECT_EQ(types, (std::vector<unsigned>{2, 1, 2, 1, 2}));
  EXPECT_EQ(client.read(0, 512 * KiB), std::string(64 * KiB, '\0') + pattern(64 * KiB, 4096) +
                                           std::string(188 * KiB, '\0') + pattern(256 * KiB, 4096) +
                                           std::string(252 * KiB, '\0'));
}

TEST(NbdSession, ShortHolesAreSentAsZerosAndTheNumberOfChunksIsBounded) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d", Client::kStructured);
  // Every other block of 1 MiB: holes too short for chunks of their own. Then every 20 KiB of 16 MiB: too
  // many.
  for (uint64_t offset = 0; offset < 1 * MiB; offset += 8 * KiB)
    ASSERT_EQ(client.write(offset, pattern(offset, 4 * KiB)), 0u);
  for (uint64_t offset = 1 * MiB; offset < 17 * MiB; offset += 20 * KiB)
    ASSERT_EQ(client.write(offset, pattern(offset, 4 * KiB)), 0u);
  EXPECT_EQ(client.read_chunks(0, 1 * MiB - 4 * KiB).size(), 1u);
  EXPECT_EQ(client.read_chunks(1 * MiB, 16 * MiB).size(), limits::kMaxReadChunks);
  std::string expected(17 * MiB, '\0');
  for (uint64_t offset = 0; offset < 17 * MiB; offset += offset < 1 * MiB ? 8 * KiB : 20 * KiB)
    expected.replace(offset, 4 * KiB, pattern(offset, 4 * KiB), 0,
                     std::min<size_t>(4 * KiB, 17 * MiB - offset));
  EXPECT_EQ(client.read(0, 17 * MiB), expected.substr(0, 17 * MiB));
}

TEST(NbdSession, DontFragmentMeansOneChunk) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d", Client::kStructured);
  ASSERT_EQ(client.write(64 * KiB, pattern(64 * KiB, 4096)), 0u);
  const std::vector<ReplyChunk> chunks = client.read_chunks(0, 256 * KiB, test::kFlagDf);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].type, 1u);
  EXPECT_EQ(chunks[0].data.substr(8 + 64 * KiB, 4096), pattern(64 * KiB, 4096));
  EXPECT_EQ(chunks[0].data.substr(8, 64 * KiB), std::string(64 * KiB, '\0'));
}

TEST(NbdSession, BlockStatusTellsDataAndHoles) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d", Client::kStatus);
  ASSERT_EQ(client.write(1 * MiB, pattern(1 * MiB, 64 * KiB)), 0u);
  EXPECT_EQ(client.block_status(0, 4 * MiB),
            (std::vector<Status>{{1 * MiB, 3}, {64 * KiB, 0}, {3 * MiB - 64 * KiB, 3}}));
  EXPECT_EQ(client.block_status(0, 4 * MiB, test::kFlagReqOne), (std::vector<Status>{{1 * MiB, 3}}));
  EXPECT_EQ(client.block_status(1 * MiB + 100, 10), (std::vector<Status>{{10, 0}}));
}

TEST(NbdSession, BlockStatusHasAtMostSoManyExtentsAndCoversAPrefix) {
  Harness server;
  server.add_disk("d", 256 * MiB);
  Client client = server.attach("d", Client::kStatus);
  // Alternating blocks, more runs than one reply holds; many writes to a socket at once, to be quick.
  const unsigned count = limits::kMaxStatusExtents / 2 + 100;
  std::string batch;
  for (unsigned i = 0; i < count; ++i) {
    batch += Client::request(test::kCmdWrite, i, uint64_t(i) * 8 * KiB, 4 * KiB) + pattern(i, 4 * KiB);
    if (i % 64 == 63 || i + 1 == count) {
      client.send(batch);
      batch.clear();
      for (unsigned n = 0; n < i % 64 + 1; ++n)
        ASSERT_EQ(client.simple_reply().error, 0u);
    }
  }
  const std::vector<Status> extents = client.block_status(0, 256 * MiB);
  ASSERT_EQ(extents.size(), limits::kMaxStatusExtents);
  for (size_t i = 0; i < extents.size(); ++i) {
    ASSERT_EQ(extents[i].length, 4 * KiB) << i;
    ASSERT_EQ(extents[i].flags & 2, i % 2 ? 2u : 0u) << i;  // a hole or not: that is the store's to say
  }
}

TEST(NbdSession, TrimAndWriteZeroesReadAsZeros) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d", Client::kStatus);
  ASSERT_EQ(client.write(0, pattern(0, 1 * MiB)), 0u);
  EXPECT_EQ(client.call(test::kCmdTrim, 0, 64 * KiB), 0u);
  EXPECT_EQ(client.call(test::kCmdTrim, 64 * KiB, 64 * KiB, test::kFlagFua), 0u);
  EXPECT_EQ(client.call(test::kCmdZeroes, 128 * KiB + 10, 100), 0u);
  EXPECT_EQ(client.call(test::kCmdZeroes, 256 * KiB, 64 * KiB, test::kFlagFastZero | test::kFlagFua), 0u);
  EXPECT_EQ(client.call(test::kCmdZeroes, 320 * KiB, 64 * KiB, test::kFlagNoHole), 0u);
  EXPECT_EQ(client.call(test::kCmdZeroes, 512 * KiB, 64 * KiB, test::kFlagFastZero | test::kFlagNoHole), 95u);
  std::string expected = pattern(0, 1 * MiB);
  expected.replace(0, 128 * KiB, 128 * KiB, '\0');
  expected.replace(128 * KiB + 10, 100, 100, '\0');
  expected.replace(256 * KiB, 128 * KiB, 128 * KiB, '\0');
  EXPECT_EQ(client.read(0, 1 * MiB), expected);
  // NO_HOLE: zeros that take space.
  EXPECT_EQ(client.block_status(320 * KiB, 64 * KiB), (std::vector<Status>{{64 * KiB, 0}}));
  EXPECT_EQ(client.block_status(256 * KiB, 64 * KiB), (std::vector<Status>{{64 * KiB, 3}}));
}

TEST(NbdSession, FlushFuaAndCacheSucceed) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  EXPECT_EQ(client.write(0, pattern(0, 4096), test::kFlagFua), 0u);
  EXPECT_EQ(client.call(test::kCmdFlush, 0, 0), 0u);
  EXPECT_EQ(client.call(test::kCmdCache, 0, 1 * MiB), 0u);
}

TEST(NbdSession, EmptyRequestsSucceed) {
  Harness server;
  server.add_disk("d");
  for (const unsigned features : {Client::kSimple, Client::kStructured}) {
    Client client = server.attach("d", features);
    for (const uint16_t command : {test::kCmdWrite, test::kCmdTrim, test::kCmdZeroes, test::kCmdCache})
      EXPECT_EQ(client.call(command, 4096, 0), 0u) << command;
    if (features == Client::kSimple) {
      EXPECT_EQ(client.call(test::kCmdRead, 4096, 0), 0u);
      continue;
    }
    const std::vector<ReplyChunk> chunks = client.read_chunks(4096, 0);
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].type, 0u);
  }
}

TEST(NbdSession, BadRequestsAreAnsweredAndTheSessionGoesOn) {
  Harness server;
  const VolumeId disk = server.add_disk("d");
  for (const unsigned features : {Client::kSimple, Client::kStructured, Client::kStatus}) {
    Client client = server.attach("d", features);
    ASSERT_EQ(client.write(0, pattern(0, 8192)), 0u);
    EXPECT_EQ(client.call(99, 0, 0), test::kEinval);
    EXPECT_EQ(client.call(test::kCmdRead, 0, 4096, 0x8000), test::kEinval);
    EXPECT_EQ(client.call(test::kCmdRead, 64 * MiB, 1), test::kEinval);
    EXPECT_EQ(client.call(test::kCmdRead, UINT64_MAX - 5, 4096), test::kEinval);
    EXPECT_EQ(client.call(test::kCmdRead, 0, 32 * MiB + 1), test::kEinval);
    EXPECT_EQ(client.call(test::kCmdTrim, 64 * MiB - 1, 2), test::kEinval);
    EXPECT_EQ(client.call(test::kCmdZeroes, 64 * MiB - 1, 2), test::kEnospc);
    EXPECT_EQ(client.call(test::kCmdFlush, 1, 0), test::kEinval);
    EXPECT_EQ(client.write(64 * MiB - 1, "two"), test::kEnospc);
    EXPECT_EQ(client.write(UINT64_MAX - 100, std::string(100'000, 'x')), test::kEnospc);
    EXPECT_EQ(client.write(0, std::string(4096, 'x'), test::kFlagReqOne), test::kEinval);
    if (features != Client::kStatus) {
      EXPECT_EQ(client.call(test::kCmdStatus, 0, 4096), test::kEinval);
    }
    // Longer than allowed, all of it sent: thrown away, and the stream stays in step.
    EXPECT_EQ(client.write(0, std::string(32 * MiB + 1, 'x')), test::kEinval);
    EXPECT_EQ(client.read(0, 8192), pattern(0, 8192));
  }
  server.add_frozen("f", disk);
  Client client = server.attach("f");
  EXPECT_EQ(client.write(0, "no"), test::kEperm);
  EXPECT_EQ(client.call(test::kCmdTrim, 0, 4096), test::kEperm);
  EXPECT_EQ(client.call(test::kCmdZeroes, 0, 4096), test::kEperm);
  EXPECT_EQ(client.call(test::kCmdFlush, 0, 0), 0u);
  EXPECT_EQ(client.read(0, 8192), pattern(0, 8192));
}

TEST(NbdSession, AnAbsurdlyLongWriteIsAnsweredAndEndsTheSession) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  client.send(Client::request(test::kCmdWrite, 7, 0, UINT32_MAX));
  const test::SimpleReply reply = client.simple_reply();
  EXPECT_EQ(reply.error, test::kEinval);
  EXPECT_EQ(reply.cookie, 7u);
  EXPECT_TRUE(client.at_end());
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

TEST(NbdSession, AWrongMagicEndsTheSession) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  client.send(Client::request(test::kCmdFlush, 1, 0, 0) + std::string(28, 'x'));
  EXPECT_EQ(client.simple_reply().error, 0u);  // what came before it is answered
  EXPECT_TRUE(client.at_end());
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

TEST(NbdSession, RequestsInFlightAreAllAnswered) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  // More than may be in flight, in one piece: writes of all sizes, none overlapping.
  std::mt19937_64 random(1);
  std::string stream;
  std::map<uint64_t, uint32_t> written;
  uint64_t at = 0;
  for (unsigned i = 0; i < 400; ++i) {
    const auto length = uint32_t(1 + random() % (i % 10 == 0 ? 200'000 : 9'000));
    stream += Client::request(test::kCmdWrite, at, at, length) + pattern(at, length);
    written[at] = length;
    at += length + random() % 3 * 1000;
  }
  client.send(stream);
  std::set<uint64_t> cookies;
  for (unsigned i = 0; i < written.size(); ++i) {
    const test::SimpleReply reply = client.simple_reply();
    EXPECT_EQ(reply.error, 0u);
    EXPECT_TRUE(cookies.insert(reply.cookie).second);
  }
  stream.clear();
  for (const auto& [offset, length] : written)
    stream += Client::request(test::kCmdRead, offset, offset, length);
  client.send(stream);
  for (unsigned i = 0; i < written.size(); ++i) {
    const test::SimpleReply reply = client.simple_reply();
    ASSERT_EQ(reply.error, 0u);
    ASSERT_EQ(written.count(reply.cookie), 1u);
    ASSERT_EQ(client.receive(written[reply.cookie]), pattern(reply.cookie, written[reply.cookie]));
  }
}

TEST(NbdSession, RequestsMayArriveByteByByte) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  const std::string stream = Client::request(test::kCmdWrite, 1, 100, 50) + pattern(100, 50) +
                             Client::request(test::kCmdRead, 2, 100, 50);
  // The read must not overtake the write it depends on.
  for (size_t i = 0; i < 78; ++i)
    client.send(stream.substr(i, 1));
  EXPECT_EQ(client.simple_reply().cookie, 1u);
  for (size_t i = 78; i < stream.size(); ++i)
    client.send(stream.substr(i, 1));
  EXPECT_EQ(client.simple_reply().cookie, 2u);
  EXPECT_EQ(client.receive(50), pattern(100, 50));
}

TEST(NbdSession, DisconnectAnswersWhatCameBeforeAndNothingAfter) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  client.send(Client::request(test::kCmdWrite, 1, 0, 4096) + pattern(0, 4096) +
              Client::request(test::kCmdDisc, 2, 0, 0) + Client::request(test::kCmdWrite, 3, 0, 4) + "late");
  EXPECT_EQ(client.simple_reply().cookie, 1u);
  EXPECT_EQ(client.receive_all(), "");
  EXPECT_TRUE(server.source.wait_attached("d", 0));
  EXPECT_EQ(server.attach("d").read(0, 4096), pattern(0, 4096));
}

TEST(NbdSession, AClientThatHasClosedItsSendingSideIsAnswered) {
  Harness server;
  server.add_disk("d");
  Client client = server.attach("d");
  ASSERT_EQ(client.write(0, pattern(0, 4 * MiB)), 0u);
  client.send(Client::request(test::kCmdRead, 1, 0, 4 * MiB) + Client::request(test::kCmdFlush, 2, 0, 0));
  client.close_sending();
  EXPECT_EQ(client.receive_all().size(), 16 + 4 * MiB + 16);
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

TEST(NbdSession, AClientThatVanishesInAWriteHasWrittenNothing) {
  Harness server;
  server.add_disk("d");
  {
    Client client = server.attach("d");
    client.send(Client::request(test::kCmdWrite, 1, 0, 1 * MiB) + pattern(0, 512 * KiB));
  }
  {
    Client client = server.attach("d");
    client.send(Client::request(test::kCmdWrite, 1, 0, 4096).substr(0, 13));
  }
  EXPECT_TRUE(server.source.wait_attached("d", 0));
  EXPECT_EQ(server.attach("d").read(0, 1 * MiB), std::string(1 * MiB, '\0'));
}

TEST(NbdSession, AClientThatVanishesWithoutTakingItsRepliesIsForgotten) {
  Harness server;
  server.add_disk("d");
  {
    Client client = server.attach("d");
    for (unsigned i = 0; i < 100; ++i)
      client.send(Client::request(test::kCmdRead, i, 0, 1 * MiB));
  }
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

TEST(NbdSession, AClientThatReadsNothingHoldsNobodyUp) {
  Harness server;
  server.add_disk("d");
  Client mute = server.attach("d");
  // It may hold its share of the arena (half of it here), and not a byte more.
  for (unsigned i = 0; i < 100; ++i)
    mute.send(Client::request(test::kCmdRead, i, 0, 1 * MiB));
  Client other = server.attach("d", Client::kStructured);
  for (unsigned i = 0; i < 50; ++i) {
    const uint64_t offset = i * 128 * KiB;
    ASSERT_EQ(other.write(offset, pattern(offset, 128 * KiB)), 0u);
    ASSERT_EQ(other.read(offset, 128 * KiB), pattern(offset, 128 * KiB));
  }
  for (unsigned i = 0; i < 100; ++i) {  // and it gets all of its replies when it wants them
    EXPECT_EQ(mute.simple_reply().error, 0u);
    mute.receive(1 * MiB);
  }
}

TEST(NbdSession, PeersThatTakeNothingYieldTheirMemoryToThoseWhoWait) {
  Harness server({.sessions = {.stall_us = 100'000}});
  server.add_disk("d");
  Client first = server.attach("d"), second = server.attach("d");
  for (Client* client : {&first, &second})  // the whole arena
    client->send(Client::request(test::kCmdRead, 1, 0, 32 * MiB));
  // A receive of the first byte proves that the buffers are taken.
  first.receive(1);
  second.receive(1);
  Client third = server.attach("d");
  EXPECT_EQ(third.read(0, 1 * MiB).size(), 1 * MiB);
  // One of them was enough, perhaps.
  EXPECT_TRUE(test::eventually([&] { return server.sessions().size() <= 2; }));
}

TEST(NbdSession, SoDoPeersThatAnnounceWritesAndSendNothing) {
  Harness server({.sessions = {.stall_us = 100'000}});
  server.add_disk("d");
  Client first = server.attach("d"), second = server.attach("d");
  for (Client* client : {&first, &second})
    client->send(Client::request(test::kCmdWrite, 1, 0, 32 * MiB) + "a few bytes");
  // Begun means that they have their buffers: together the whole arena.
  ASSERT_TRUE(test::eventually([&] {
    const std::vector<SessionInfo> all = server.sessions();
    return all.size() == 2 && all[0].requests == 1 && all[1].requests == 1;
  }));
  Client third = server.attach("d");
  EXPECT_EQ(third.write(0, pattern(0, 32 * MiB)), 0u);
  EXPECT_EQ(third.read(0, 32 * MiB), pattern(0, 32 * MiB));
}

TEST(NbdSessions, ListTellsWhatEachHasDone) {
  Harness server;
  const VolumeId disk = server.add_disk("d");
  server.add_frozen("f", disk);
  Client one = server.attach("d", Client::kStructured), two = server.attach("f");
  ASSERT_EQ(one.write(0, pattern(0, 8192)), 0u);
  one.read(0, 4096);
  one.call(99, 0, 0);
  two.read(0, 512);
  const std::vector<SessionInfo> all = server.sessions();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].export_name, "d");
  EXPECT_EQ(all[0].volume, disk);
  EXPECT_FALSE(all[0].read_only);
  EXPECT_EQ(all[0].requests, 3u);
  EXPECT_EQ(all[0].errors, 1u);
  EXPECT_EQ(all[0].bytes_written, 8192u);
  EXPECT_NE(all[0].since, 0);
  EXPECT_NE(all[0].id, all[1].id);
  EXPECT_NE(all[0].peer.find("unix pid"), std::string::npos);
  EXPECT_TRUE(all[1].read_only);
  EXPECT_EQ(all[1].bytes_written, 0u);
}

TEST(NbdSessions, ClosingThoseOfOneVolumeLeavesTheOthers) {
  Harness server;
  const VolumeId doomed = server.add_disk("doomed");
  server.add_disk("other");
  Client one = server.attach("doomed"), two = server.attach("doomed"), three = server.attach("other");
  EXPECT_EQ(server.close_sessions_of(doomed), 2u);
  EXPECT_TRUE(server.source.wait_attached("doomed", 0));
  EXPECT_TRUE(one.at_end());
  EXPECT_TRUE(two.at_end());
  EXPECT_EQ(three.call(test::kCmdFlush, 0, 0), 0u);
  EXPECT_EQ(server.close_sessions_of(doomed), 0u);
}

TEST(NbdSessions, ADeletedVolumeIsNotServed) {
  Harness server;
  const VolumeId disk = server.add_disk("d");
  server.commit({DeleteVolume{disk}});
  Client client = server.attach("d");  // the source does not know yet
  EXPECT_TRUE(client.at_end());
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

TEST(NbdSessions, StopFinishesWhatIsInFlightAndRefusesTheRest) {
  Harness server;
  server.add_disk("d");
  Client idle = server.attach("d"), busy = server.attach("d");
  ASSERT_EQ(busy.write(0, pattern(0, 32 * MiB)), 0u);
  // The first takes all of the session's share of memory until it is read; the second waits for that; the
  // others have been received but not looked at.
  std::string stream =
      Client::request(test::kCmdRead, 0, 0, 32 * MiB) + Client::request(test::kCmdRead, 1, 0, 512);
  for (unsigned i = 2; i < 10; ++i)
    stream += Client::request(test::kCmdRead, i, 0, 512);
  busy.send(stream);
  busy.receive(1);
  server.stop_server();
  server.begin_stop();
  EXPECT_EQ(busy.receive(15 + 32 * MiB).substr(15), pattern(0, 32 * MiB));
  std::set<uint64_t> answered;
  for (unsigned i = 1; i < 10; ++i) {  // in any order
    const test::SimpleReply reply = busy.simple_reply();
    EXPECT_EQ(reply.error, reply.cookie == 1 ? 0u : uint32_t(test::kEshutdown));
    if (reply.cookie == 1) {
      EXPECT_EQ(busy.receive(512), pattern(0, 512));
    }
    answered.insert(reply.cookie);
  }
  EXPECT_EQ(answered.size(), 9u);
  EXPECT_TRUE(busy.at_end());
  EXPECT_TRUE(idle.at_end());
  server.wait_stopped();
}

TEST(NbdSessions, StopWaitsForNobodyForEver) {
  Harness server({.sessions = {.grace_us = 50'000}});
  server.add_disk("d");
  Client mute = server.attach("d"), half = server.attach("d"), waiting = server.attach("d");
  for (unsigned i = 0; i < 60; ++i)
    mute.send(Client::request(test::kCmdRead, i, 0, 1 * MiB));
  half.send(Client::request(test::kCmdWrite, 1, 0, 32 * MiB) + pattern(0, 1 * MiB));
  waiting.send(Client::request(test::kCmdRead, 1, 0, 32 * MiB));  // for memory that the others hold, perhaps
  mute.receive(1);
  server.stop_server();
  server.begin_stop();
  server.wait_stopped();
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

TEST(NbdSessions, AfterStopNobodyIsServed) {
  Harness server;
  server.add_disk("d");
  server.begin_stop();
  server.wait_stopped();
  Client client = server.attach("d");  // the door is still open, but behind it is nobody
  EXPECT_TRUE(client.at_end());
  EXPECT_TRUE(server.source.wait_attached("d", 0));
}

}  // namespace
}  // namespace obraz::nbd
