// bench_control SOCKET: a kept connection to the daemon's control socket, driven by lines on standard input,
// so that what calls it measures calls and not the start of a program. Each line is one call:
//
//   disk-create NAME IMAGE      disk-delete NAME
//   snapshot-create NAME DISK   snapshot-delete NAME
//   image-create NAME DISK      image-delete NAME
//
// Its answer is one line: "ok MICROSECONDS" (from the call to the end of its operation) or "error SENTENCE".
#include <chrono>
#include <iostream>
#include <sstream>
#include <string>

#include "client/connection.h"
#include "obraz/v1/disk_service.pb.h"
#include "obraz/v1/image_service.pb.h"
#include "obraz/v1/operation.pb.h"
#include "obraz/v1/snapshot_service.pb.h"

namespace obraz::bench {
namespace {

using client::Connection;
using client::Outcome;

Outcome<void> operate(Connection& connection, const std::string& method,
                      const google::protobuf::MessageLite& request) {
  v1::Operation operation;
  if (auto called = connection.call(method, request, operation); !called)
    return called;
  if (operation.has_error())
    return std::unexpected(operation.error());
  if (!operation.done())  // only imports and exports take time, and none is among these
    return client::failed(v1::Error::INTERNAL, method + " is not done when it is answered");
  return {};
}

Outcome<void> call(Connection& connection, const std::string& verb, const std::string& name,
                   const std::string& source) {
  if (verb == "disk-create") {
    v1::CreateDiskRequest request;
    request.set_name(name);
    request.set_image_id(source);
    return operate(connection, "DiskService.Create", request);
  }
  if (verb == "disk-delete") {
    v1::DeleteDiskRequest request;
    request.set_disk_id(name);
    return operate(connection, "DiskService.Delete", request);
  }
  if (verb == "snapshot-create") {
    v1::CreateSnapshotsRequest request;
    v1::SnapshotOfDisk* snapshot = request.add_snapshots();
    snapshot->set_name(name);
    snapshot->set_disk_id(source);
    return operate(connection, "SnapshotService.Create", request);
  }
  if (verb == "snapshot-delete") {
    v1::DeleteSnapshotRequest request;
    request.set_snapshot_id(name);
    return operate(connection, "SnapshotService.Delete", request);
  }
  if (verb == "image-create") {
    v1::CreateImageRequest request;
    request.set_name(name);
    request.set_disk_id(source);
    return operate(connection, "ImageService.Create", request);
  }
  if (verb == "image-delete") {
    v1::DeleteImageRequest request;
    request.set_image_id(name);
    return operate(connection, "ImageService.Delete", request);
  }
  return client::failed(v1::Error::INVALID_ARGUMENT, "there is no call " + verb);
}

int run(const std::string& path) {
  auto connection = Connection::open(path);
  if (!connection) {
    std::cerr << "bench_control: " << connection.error().message() << "\n";
    return 1;
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, name, source;
    words >> verb >> name >> source;
    const auto begin = std::chrono::steady_clock::now();
    const auto called = call(**connection, verb, name, source);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    if (called)
      std::cout << "ok " << took.count() << std::endl;
    else
      std::cout << "error " << called.error().message() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace obraz::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: bench_control SOCKET\n";
    return 2;
  }
  return obraz::bench::run(argv[1]);
}
