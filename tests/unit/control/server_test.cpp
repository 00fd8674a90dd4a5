#include "control/server.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "unit/control/harness.h"

namespace obraz::test {
namespace {

class ControlServerTest : public testing::Test {
 protected:
  ControlHarness harness;
  static std::string list_disks(uint64_t id) {
    return RawClient::frame(id, "DiskService.List", v1::ListDisksRequest());
  }
};

TEST_F(ControlServerTest, ARequestIsAnswered) {
  const auto connection = harness.connect();
  v1::CreateDiskRequest request;
  request.set_name("vm1");
  request.set_size(4 * limits::MiB);
  v1::Operation operation;
  ASSERT_TRUE(connection->call("DiskService.Create", request, operation));
  EXPECT_TRUE(operation.done());
  ASSERT_EQ(operation.response().disks_size(), 1);
  EXPECT_EQ(operation.response().disks(0).name(), "vm1");
  v1::DaemonStatus status;
  ASSERT_TRUE(connection->call("StatusService.Get", v1::GetStatusRequest(), status));
  EXPECT_EQ(status.health(), "ok");
  EXPECT_EQ(status.resources().disks(), 1);
}

TEST_F(ControlServerTest, ARefusalLeavesTheConnectionUsable) {
  const auto connection = harness.connect();
  v1::GetDiskRequest request;
  v1::Disk disk;
  const auto refused = connection->call("DiskService.Get", request, disk);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), v1::Error::INVALID_ARGUMENT);
  EXPECT_EQ(refused.error().field(), "disk_id");
  const auto unknown = connection->call("DiskService.Explode", request, disk);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().field(), "method");
  v1::ListDisksResponse disks;
  EXPECT_TRUE(connection->call("DiskService.List", v1::ListDisksRequest(), disks));
}

TEST_F(ControlServerTest, ARequestThatDoesNotDecodeIsRefused) {
  RawClient client(harness.path());
  v1::Request request;
  request.set_id(1);
  request.set_method("DiskService.Get");
  request.set_message("\xff\xff");
  client.send(*encode_frame(request, 1000));
  const auto response = client.receive();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->id(), 1u);
  EXPECT_EQ(response->error().code(), v1::Error::INVALID_ARGUMENT);
}

TEST_F(ControlServerTest, ABrokenFrameIsToldAndEndsTheConnection) {
  std::string no_id;
  {
    v1::Request request;
    request.set_method("StatusService.Get");
    no_id = *encode_frame(request, 1000);
  }
  const std::string empty("\0\0\0\0", 4), huge("\xff\xff\xff\x7f", 4), garbage("\x02\0\0\0\xff\xff", 6);
  for (const std::string& bytes : {empty, huge, garbage, no_id}) {
    RawClient client(harness.path());
    client.send(bytes);
    const auto response = client.receive();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->id(), 0u);
    EXPECT_EQ(response->error().code(), v1::Error::INVALID_ARGUMENT);
    EXPECT_FALSE(client.receive());
  }
  v1::ListDisksResponse disks;
  EXPECT_TRUE(harness.connect()->call("DiskService.List", v1::ListDisksRequest(), disks));
}

TEST_F(ControlServerTest, ManyRequestsAreInFlightAtOnce) {
  RawClient client(harness.path());
  constexpr uint64_t kRequests = 3 * limits::kMaxControlInFlight;
  std::string bytes;
  for (uint64_t id = 1; id <= kRequests; ++id)
    bytes += list_disks(id);
  client.send(bytes);
  client.end_sending();
  std::set<uint64_t> answered;
  while (const auto response = client.receive()) {
    EXPECT_FALSE(response->has_error());
    answered.insert(response->id());
  }
  EXPECT_EQ(answered.size(), kRequests);
}

// Calls of several connections in flight together, `per_client` of each.
class ControlServerCommitTest : public ControlServerTest {
 protected:
  using Begin = std::function<client::Outcome<uint64_t>(client::Connection&, const std::string& name)>;

  // Begins them all while a commit is held, and lets it end when the store has all their changes. The commits
  // that this took, with the one that was held.
  uint64_t commits_for(unsigned connections, unsigned per_client, unsigned records_each, const Begin& begin) {
    const StoreStats before = harness.base.store_stats();
    harness.base.hold_commits();
    const auto first = harness.connect();
    EXPECT_TRUE(create(*first, ""));
    harness.base.wait_until_a_commit_is_held();
    const uint64_t records = harness.base.store_stats().records;
    std::vector<std::unique_ptr<client::Connection>> clients;
    for (unsigned i = 0; i < connections; ++i) {
      clients.push_back(harness.connect());
      for (unsigned k = 0; k < per_client; ++k)
        EXPECT_TRUE(begin(*clients.back(), "vm-" + std::to_string(i) + "-" + std::to_string(k)));
    }
    EXPECT_TRUE(harness.base.wait_until_records(records + records_each * connections * per_client))
        << "calls wait for the commit of another";
    EXPECT_EQ(harness.base.store_stats().commits, before.commits);
    harness.base.release_commits();
    EXPECT_TRUE(ended_well(*first));
    for (const auto& client : clients) {
      for (unsigned k = 0; k < per_client; ++k)
        EXPECT_TRUE(ended_well(*client));
    }
    return harness.base.store_stats().commits - before.commits;
  }
  // A volume, a resource and an operation; and usage.
  static constexpr unsigned kRecordsOfCreate = 3, kRecordsOfDelete = 4;
  static client::Outcome<uint64_t> create(client::Connection& connection, const std::string& name) {
    v1::CreateDiskRequest request;
    request.set_name(name);
    request.set_size(4 * limits::MiB);
    return connection.begin("DiskService.Create", request);
  }
  static client::Outcome<uint64_t> remove(client::Connection& connection, const std::string& name) {
    return connection.begin("DiskService.Delete", Harness::to_delete(name));
  }
  static bool ended_well(client::Connection& connection) {
    const auto response = connection.next();
    v1::Operation operation;
    return response && !response->has_error() && operation.ParseFromString(response->message()) &&
           operation.done() && !operation.has_error();
  }
};

TEST_F(ControlServerCommitTest, CallsOfOneConnectionShareACommit) {
  EXPECT_EQ(commits_for(1, limits::kMaxControlInFlight, kRecordsOfCreate, create), 2u);
  EXPECT_EQ(commits_for(1, limits::kMaxControlInFlight, kRecordsOfDelete, remove), 2u);
}

TEST_F(ControlServerCommitTest, CallsOfSeveralConnectionsShareACommit) {
  EXPECT_EQ(commits_for(4, 16, kRecordsOfCreate, create), 2u);
  EXPECT_EQ(commits_for(4, 16, kRecordsOfDelete, remove), 2u);
}

TEST_F(ControlServerTest, AClientThatLeavesInTheMiddleHurtsNobody) {
  {
    RawClient client(harness.path());
    client.send(list_disks(1) + list_disks(2).substr(0, 7));
  }
  v1::ListDisksResponse disks;
  EXPECT_TRUE(harness.connect()->call("DiskService.List", v1::ListDisksRequest(), disks));
}

TEST_F(ControlServerTest, StoppingDoesNotWaitForIdleClients) {
  RawClient idle(harness.path()), half(harness.path());
  half.send(list_disks(1).substr(0, 3));
  harness.stop();
  EXPECT_FALSE(idle.receive());
  EXPECT_FALSE(half.receive());
  EXPECT_FALSE(std::filesystem::exists(harness.path()));
}

TEST_F(ControlServerTest, StoppingDoesNotWaitForClientsThatDoNotRead) {
  v1::CreateDiskRequest request;
  request.set_size(4 * limits::MiB);
  for (unsigned i = 0; i < limits::kMaxLabels; ++i)
    (*request.mutable_labels())["k" + std::to_string(i)] = std::string(limits::kMaxLabelLength, 'v');
  const auto connection = harness.connect();
  v1::Operation operation;
  for (int i = 0; i < 80; ++i)
    ASSERT_TRUE(connection->call("DiskService.Create", request, operation));
  // One page of these is more than a socket holds: its first byte here means that the server waits with the
  // rest.
  RawClient client(harness.path());
  client.send(list_disks(1));
  ASSERT_TRUE(client.receive_byte());
  harness.stop();
}

TEST_F(ControlServerTest, ASecondServerOnTheSocketIsRefused) {
  boost::asio::io_context context;
  MethodTable methods;
  const auto second = ControlServer::listen(context.get_executor(), harness.path(), methods);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another process listens"), std::string::npos);
}

TEST(ControlServerListen, ASocketLeftBehindIsReplacedAndAFileIsNot) {
  std::string directory = testing::TempDir() + "/obraz-listen-XXXXXX";
  ASSERT_TRUE(::mkdtemp(directory.data()));
  const std::string path = directory + "/control.sock";
  boost::asio::io_context context;
  MethodTable methods;
  {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ::close(fd);
  }
  EXPECT_TRUE(ControlServer::listen(context.get_executor(), path, methods));
  const std::string file = directory + "/file";
  std::ofstream(file) << "kept";
  EXPECT_FALSE(ControlServer::listen(context.get_executor(), file, methods));
  EXPECT_EQ(std::filesystem::file_size(file), 4u);
  EXPECT_FALSE(ControlServer::listen(context.get_executor(), directory + std::string(200, 'x'), methods));
  std::filesystem::remove_all(directory);
}

TEST_F(ControlServerTest, EveryMethodOfTheProtocolIsThere) {
  std::set<std::string> declared;
  for (const auto* file :
       {v1::GetImageRequest::descriptor()->file(), v1::GetDiskRequest::descriptor()->file(),
        v1::GetSnapshotRequest::descriptor()->file(), v1::GetOperationRequest::descriptor()->file(),
        v1::DiffRequest::descriptor()->file(), v1::GetFolderRequest::descriptor()->file(),
        v1::GetStatusRequest::descriptor()->file(), v1::ListTrashRequest::descriptor()->file(),
        v1::GetUsageRequest::descriptor()->file(), v1::GetSnapshotScheduleRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      for (int k = 0; k < file->service(i)->method_count(); ++k)
        declared.insert(file->service(i)->name() + "." + file->service(i)->method(k)->name());
    }
  }
  const auto names = harness.services->methods().names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), declared);
}

TEST_F(ControlServerTest, TheSameKeyAndRequestAnswerTheSameOperation) {
  const auto connection = harness.connect();
  v1::CreateDiskRequest request;
  request.set_name("vm1");
  request.set_size(4 * limits::MiB);
  request.set_idempotency_key("key-1");
  (*request.mutable_labels())["a"] = "1";
  (*request.mutable_labels())["b"] = "2";
  v1::Operation first, second;
  ASSERT_TRUE(connection->call("DiskService.Create", request, first));
  ASSERT_TRUE(connection->call("DiskService.Create", request, second));
  EXPECT_EQ(first.id(), second.id());
  request.set_name("vm2");
  const auto refused = connection->call("DiskService.Create", request, second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field(), "idempotency_key");
}

}  // namespace
}  // namespace obraz::test
