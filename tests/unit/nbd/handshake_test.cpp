#include "nbd/handshake.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <future>
#include <thread>

#include "harness.h"

namespace obraz::nbd {
namespace {

using test::be16;
using test::be32;
using test::be64;
using test::Client;
using test::counted;
using test::from_be;
using test::OptionAnswer;

// One end of a socket pair is negotiated with; the other is the client's.
class NbdHandshake : public testing::Test {
 protected:
  NbdHandshake() {
    source.add({.volume = VolumeId{1}, .size_bytes = 64 << 20, .name = "disk/a", .description = "the first"});
    source.add({.volume = VolumeId{2}, .read_only = true, .size_bytes = 4 << 20, .name = "image/b"});
    source.alias("id-of-a", "disk/a");
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    client = std::make_unique<Client>(pair[1]);
    stream = std::make_unique<Stream>(context, boost::asio::generic::stream_protocol(AF_UNIX, 0), pair[0]);
    outcome =
        boost::asio::co_spawn(context, negotiate(*stream, source, Peer{"test", {}}), boost::asio::use_future);
    thread = std::thread([this] {
      context.run();
      char bytes[64];
      const ssize_t n = ::recv(stream->native_handle(), bytes, sizeof bytes, MSG_DONTWAIT);
      unread.assign(bytes, n > 0 ? size_t(n) : 0);
      boost::system::error_code ignored;
      stream->close(ignored);  // as the server does when the handshake is over without a session
    });
  }
  ~NbdHandshake() override {
    client->close();
    if (thread.joinable())
      thread.join();
  }
  // What came of it; the client must have ended the handshake.
  Result<Negotiated> result() { return outcome.get(); }

  test::FakeSource source;
  boost::asio::io_context context;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<Client> client;
  std::future<Result<Negotiated>> outcome;
  std::string unread;  // what the negotiation left in the socket; after join()
  std::thread thread;
};

std::string query(const std::string& name, std::initializer_list<uint16_t> infos = {}) {
  std::string data = counted(name) + be16(uint16_t(infos.size()));
  for (const uint16_t info : infos)
    data += be16(info);
  return data;
}
std::string contexts(const std::string& name, std::initializer_list<std::string> queries) {
  std::string data = counted(name) + be32(uint32_t(queries.size()));
  for (const std::string& text : queries)
    data += counted(text);
  return data;
}

TEST_F(NbdHandshake, GoAnswersSizeFlagsAndWhatWasAsked) {
  client->greet();
  client->option(test::kOptGo, query("id-of-a", {3, 1, 2, 99}));
  const std::vector<OptionAnswer> all = client->answers();
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0].data, be16(0) + be64(64 << 20) + be16(transmission_flags(false, false)));
  EXPECT_EQ(all[1].data, be16(1) + "disk/a");  // the canonical name
  EXPECT_EQ(all[2].data, be16(2) + "the first");
  EXPECT_EQ(all[3].data, be16(3) + be32(1) + be32(4096) + be32(32 << 20));
  EXPECT_EQ(all[4].type, test::kRepAck);
  const auto negotiated = result();
  ASSERT_TRUE(negotiated);
  EXPECT_EQ(negotiated->exported.volume, VolumeId{1});
  EXPECT_FALSE(negotiated->structured);
  EXPECT_EQ(source.attached("disk/a"), 1u);
}

TEST_F(NbdHandshake, NothingBeyondTheHandshakeIsRead) {
  // A client may send requests without waiting for the answer; they belong to the session.
  client->greet();
  client->send("IHAVEOPT" + be32(7) + be32(uint32_t(query("disk/a").size())) + query("disk/a") +
               "first request");
  client->answers();
  ASSERT_TRUE(result());
  thread.join();
  EXPECT_EQ(unread, "first request");
}

TEST_F(NbdHandshake, InfoTellsTheSameAndAttachesNobody) {
  client->greet();
  EXPECT_EQ(client->ask(test::kOptStructured), test::kRepAck);
  client->option(test::kOptInfo, query("image/b"));
  const std::vector<OptionAnswer> all = client->answers();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].data, be16(0) + be64(4 << 20) + be16(transmission_flags(true, true)));
  EXPECT_EQ(source.attached("image/b"), 0u);
  EXPECT_EQ(client->ask(test::kOptAbort), test::kRepAck);
  EXPECT_EQ(result().error().code, ErrorCode::disconnected);
}

TEST_F(NbdHandshake, ExportNameAnswersWithoutZeroesWhenAgreed) {
  client->greet(3);
  client->option(test::kOptExportName, "disk/a");
  EXPECT_EQ(client->receive(10), be64(64 << 20) + be16(transmission_flags(false, false)));
  EXPECT_TRUE(result());
  EXPECT_EQ(source.attached("disk/a"), 1u);
  EXPECT_TRUE(client->at_end());  // no zeroes: the fixture closed the stream
}

TEST_F(NbdHandshake, ExportNameOfAnOldClientHasItsZeroes) {
  client->greet(0);
  client->option(test::kOptExportName, "disk/a");
  EXPECT_EQ(client->receive(134),
            be64(64 << 20) + be16(transmission_flags(false, false)) + std::string(124, '\0'));
  EXPECT_TRUE(result());
}

TEST_F(NbdHandshake, ExportNameThatIsUnknownEndsIt) {
  client->greet();
  client->option(test::kOptExportName, "disk/none");
  EXPECT_TRUE(client->at_end());
  EXPECT_FALSE(result());
}

TEST_F(NbdHandshake, UnknownForbiddenAndDefaultExportsAreRefusedWithASentence) {
  client->greet();
  for (const uint32_t option : {test::kOptInfo, test::kOptGo}) {
    client->option(option, query("disk/none"));
    OptionAnswer answer = client->answer();
    EXPECT_EQ(answer.type, test::kRepUnknown);
    EXPECT_EQ(answer.data, "there is no export disk/none");
    EXPECT_EQ(client->ask(option, query("forbidden")), test::kRepPolicy);
    EXPECT_EQ(client->ask(option, query("a\nb")), test::kRepUnknown);
    client->option(option, query(""));
    answer = client->answer();
    EXPECT_EQ(answer.type, test::kRepUnknown);
    EXPECT_NE(answer.data.find("no default export"), std::string::npos);
  }
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepAck);  // and the handshake goes on
}

TEST_F(NbdHandshake, WhatCannotBeAttachedIsRefusedAndMayBeAskedAgain) {
  client->greet();
  source.refuse_attaching(true);
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepShutdown);
  source.refuse_attaching(false);
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepAck);
}

TEST_F(NbdHandshake, ListNamesEveryExport) {
  client->greet();
  client->option(test::kOptList);
  const std::vector<OptionAnswer> all = client->answers();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].data, counted("disk/a") + "the first");
  EXPECT_EQ(all[1].data, counted("image/b"));
  EXPECT_EQ(client->ask(test::kOptList, "x"), test::kRepInvalid);
}

TEST_F(NbdHandshake, LongListArrivesWhole) {
  for (unsigned i = 0; i < 5000; ++i)
    source.add({.volume = VolumeId{i + 10},
                .name = "disk/many-" + std::to_string(i),
                .description = std::string(50, 'd')});
  client->greet();
  client->option(test::kOptList);
  EXPECT_EQ(client->answers().size(), 5003u);
}

TEST_F(NbdHandshake, UnknownOptionsAreDrainedAndRefused) {
  client->greet();
  EXPECT_EQ(client->ask(test::kOptStartTls), test::kRepUnsupported);
  EXPECT_EQ(client->ask(test::kOptExtended), test::kRepUnsupported);
  EXPECT_EQ(client->ask(4711, std::string(65536, 'x')), test::kRepUnsupported);
  EXPECT_EQ(client->ask(4711, std::string(65537, 'x')), test::kRepTooBig);
  EXPECT_EQ(client->ask(test::kOptGo, std::string(1 << 20, 'x')), test::kRepTooBig);
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepAck);
}

TEST_F(NbdHandshake, AnOptionBeyondAllMeasureEndsIt) {
  client->greet();
  client->send("IHAVEOPT" + be32(4711) + be32(0xffffffff));
  EXPECT_TRUE(client->at_end());
  EXPECT_EQ(result().error().code, ErrorCode::resource_exhausted);
}

TEST_F(NbdHandshake, TooManyOptionsEndIt) {
  client->greet();
  for (unsigned i = 0; i < limits::kMaxOptions; ++i)
    EXPECT_EQ(client->ask(4711), test::kRepUnsupported);
  EXPECT_TRUE(client->at_end());
  EXPECT_EQ(result().error().code, ErrorCode::resource_exhausted);
}

TEST_F(NbdHandshake, MalformedOptionsAreInvalidAndItGoesOn) {
  client->greet();
  EXPECT_EQ(client->ask(test::kOptStructured, "x"), test::kRepInvalid);
  EXPECT_EQ(client->ask(test::kOptStructured), test::kRepAck);
  for (const uint32_t option : {test::kOptInfo, test::kOptGo, test::kOptListMeta, test::kOptSetMeta}) {
    EXPECT_EQ(client->ask(option), test::kRepInvalid) << option;
    EXPECT_EQ(client->ask(option, be32(0xffffffff) + "disk/a"), test::kRepInvalid) << option;
    EXPECT_EQ(client->ask(option, counted("disk/a") + be32(0x7fffffff)), test::kRepInvalid) << option;
  }
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepAck);
}

TEST_F(NbdHandshake, WrongOptionMagicEndsIt) {
  client->greet();
  client->send(std::string(16, 'x'));
  EXPECT_TRUE(client->at_end());
  EXPECT_EQ(result().error().code, ErrorCode::protocol);
}

TEST_F(NbdHandshake, UnknownClientFlagsEndIt) {
  client->greet(0x10);
  EXPECT_TRUE(client->at_end());
  EXPECT_EQ(result().error().code, ErrorCode::protocol);
}

TEST_F(NbdHandshake, OptionsNeedFixedNewstyle) {
  client->greet(2);
  client->option(test::kOptList);
  EXPECT_TRUE(client->at_end());
  EXPECT_EQ(result().error().code, ErrorCode::protocol);
}

TEST_F(NbdHandshake, LeavingAtAnyMomentEndsIt) {
  client->greet();
  client->send("IHAVEOPT" + be32(7));
  client->close_sending();
  EXPECT_EQ(result().error().code, ErrorCode::disconnected);
}

TEST_F(NbdHandshake, MetaContextsNeedStructuredReplies) {
  client->greet();
  EXPECT_EQ(client->ask(test::kOptSetMeta, contexts("disk/a", {"base:allocation"})), test::kRepInvalid);
  EXPECT_EQ(client->ask(test::kOptListMeta, contexts("disk/a", {})), test::kRepInvalid);
}

TEST_F(NbdHandshake, MetaContextsAreListed) {
  client->greet();
  client->ask(test::kOptStructured);
  for (const auto& queries : {contexts("disk/a", {}), contexts("disk/a", {"base:"}),
                              contexts("disk/a", {"x:y", "base:allocation", "base:allocation"})}) {
    client->option(test::kOptListMeta, queries);
    const std::vector<OptionAnswer> all = client->answers();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].type, test::kRepMeta);
    EXPECT_EQ(all[0].data.substr(4), "base:allocation");
  }
  client->option(test::kOptListMeta, contexts("disk/a", {"qemu:"}));
  EXPECT_EQ(client->answers().size(), 1u);
  EXPECT_EQ(client->ask(test::kOptListMeta, contexts("disk/none", {})), test::kRepUnknown);
}

TEST_F(NbdHandshake, AContextChosenForTheExportHolds) {
  client->greet();
  client->ask(test::kOptStructured);
  client->option(test::kOptSetMeta, contexts("disk/a", {"base:allocation"}));
  const std::vector<OptionAnswer> all = client->answers();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].data, be32(1) + "base:allocation");
  EXPECT_EQ(client->ask(test::kOptGo, query("id-of-a")), test::kRepAck);  // the same export by another name
  const auto negotiated = result();
  ASSERT_TRUE(negotiated);
  EXPECT_TRUE(negotiated->structured);
  EXPECT_TRUE(negotiated->base_allocation);
}

TEST_F(NbdHandshake, AContextChosenForAnotherExportDoesNot) {
  client->greet();
  client->ask(test::kOptStructured);
  client->ask(test::kOptSetMeta, contexts("image/b", {"base:allocation"}));
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepAck);
  EXPECT_FALSE(result()->base_allocation);
}

TEST_F(NbdHandshake, ALaterChoiceReplacesTheEarlierOneEvenWhenItFails) {
  client->greet();
  client->ask(test::kOptStructured);
  client->ask(test::kOptSetMeta, contexts("disk/a", {"base:allocation"}));
  EXPECT_EQ(client->ask(test::kOptSetMeta, contexts("disk/none", {"base:allocation"})), test::kRepUnknown);
  EXPECT_EQ(client->ask(test::kOptGo, query("disk/a")), test::kRepAck);
  EXPECT_FALSE(result()->base_allocation);
}

}  // namespace
}  // namespace obraz::nbd
