#include "control/jobs.h"

#include <gtest/gtest.h>

#include "unit/control/harness.h"

namespace obraz::test {
namespace {

class JobsTest : public testing::Test {
 protected:
  ControlHarness harness;
  std::unique_ptr<client::Connection> connection = harness.connect();

  client::Outcome<v1::Operation> import(const std::string& name, const std::string& source = "/source") {
    v1::ImportImageRequest request;
    request.set_name(name);
    request.set_source(source);
    v1::Operation operation;
    const auto called = connection->call("ImageService.Import", request, operation);
    if (!called)
      return std::unexpected(called.error());
    return operation;
  }
  // All the states that a watcher saw; the last is the end.
  std::vector<v1::Operation> watch(const std::string& id) {
    v1::WatchOperationRequest request;
    request.set_operation_id(id);
    v1::Operation operation;
    std::vector<v1::Operation> seen;
    EXPECT_TRUE(connection->call_stream("OperationService.Watch", request, operation,
                                        [&] { seen.push_back(operation); }));
    return seen;
  }
  // The operation's id.
  client::Outcome<std::string> verify(const std::string& image) {
    v1::VerifyImageRequest request;
    request.set_image_id(image);
    v1::Operation operation;
    const auto called = connection->call("ImageService.Verify", request, operation);
    if (!called)
      return std::unexpected(called.error());
    return operation.id();
  }
  v1::Operation cancel(const std::string& id) {
    v1::CancelOperationRequest request;
    request.set_operation_id(id);
    v1::Operation operation;
    EXPECT_TRUE(connection->call("OperationService.Cancel", request, operation));
    return operation;
  }
  int images() {
    v1::ListImagesResponse response;
    EXPECT_TRUE(connection->call("ImageService.List", v1::ListImagesRequest(), response));
    return response.images_size();
  }
  int64_t running() {
    v1::DaemonStatus status;
    EXPECT_TRUE(connection->call("StatusService.Get", v1::GetStatusRequest(), status));
    return status.resources().running_operations();
  }
};

TEST_F(JobsTest, AnImportIsWatchedToItsImage) {
  const auto begun = import("i1");
  ASSERT_TRUE(begun);
  EXPECT_FALSE(begun->done());
  const auto seen = watch(begun->id());
  ASSERT_TRUE(seen.back().done());
  ASSERT_EQ(seen.back().response().images_size(), 1);
  const v1::Image& image = seen.back().response().images(0);
  EXPECT_EQ(image.name(), "i1");
  EXPECT_EQ(image.status(), v1::READY);
  EXPECT_EQ(image.size(), 8 * limits::MiB);
  EXPECT_EQ(seen.back().metadata().bytes_done(), 5 * limits::MiB);
  EXPECT_EQ(seen.back().metadata().bytes_total(), 5 * limits::MiB);
}

TEST_F(JobsTest, AnImportedImageSaysWhatIsOnIt) {
  harness.transfer.layout->set_table(v1::Layout::GPT);
  harness.transfer.layout->set_windows(v1::Layout::WINDOWS_DATA);
  const auto seen = watch(import("i1")->id());
  ASSERT_EQ(seen.back().response().images_size(), 1);
  EXPECT_EQ(seen.back().response().images(0).layout().table(), v1::Layout::GPT);
}

TEST_F(JobsTest, ABootDiskOfWindowsIsNotImported) {
  harness.transfer.layout->set_windows(v1::Layout::WINDOWS_BOOT);
  harness.transfer.layout->set_windows_evidence("partition 1 has the file bootmgr");
  const auto seen = watch(import("i1")->id());
  EXPECT_EQ(seen.back().error().code(), v1::Error::FAILED_PRECONDITION);
  EXPECT_EQ(seen.back().error().field(), "source");
  EXPECT_EQ(seen.back().error().message(),
            "a boot disk of Windows cannot be imported: partition 1 has the file bootmgr");
  EXPECT_EQ(images(), 0);
  harness.transfer.layout = v1::Layout();
  EXPECT_TRUE(watch(import("i1")->id()).back().has_response());
}

TEST_F(JobsTest, AnImageThatCannotBeLookedAtIsImportedAllTheSame) {
  harness.transfer.layout.reset();
  const auto seen = watch(import("i1")->id());
  ASSERT_EQ(seen.back().response().images_size(), 1);
  EXPECT_FALSE(seen.back().response().images(0).has_layout());
}

TEST_F(JobsTest, AMissingSourceFailsTheOperationAndLeavesNothing) {
  const auto begun = import("i1", "/missing");
  ASSERT_TRUE(begun);
  const auto seen = watch(begun->id());
  EXPECT_EQ(seen.back().error().code(), v1::Error::NOT_FOUND);
  EXPECT_EQ(seen.back().error().field(), "source");
  EXPECT_EQ(images(), 0);
  EXPECT_TRUE(import("i1"));  // the name is free again
}

TEST_F(JobsTest, ACancelledImportLeavesNothing) {
  harness.transfer.wait_for_stop = true;
  const auto begun = import("i1");
  ASSERT_TRUE(begun);
  EXPECT_EQ(running(), 1);
  const v1::Operation ended = cancel(begun->id());
  EXPECT_TRUE(ended.done());
  EXPECT_EQ(ended.error().code(), v1::Error::CANCELLED);
  EXPECT_EQ(ended.error().message().substr(0, 18), "cancelled by user:");
  EXPECT_EQ(images(), 0);
  EXPECT_EQ(cancel(begun->id()).error().code(), v1::Error::CANCELLED);  // again: nothing changes
}

TEST_F(JobsTest, StoppingEndsWhatRunsAndItsWatchers) {
  harness.transfer.wait_for_stop = true;
  const auto begun = import("i1");
  ASSERT_TRUE(begun);
  auto watcher = harness.connect();
  auto ended = std::async(std::launch::async, [&] {
    v1::WatchOperationRequest request;
    request.set_operation_id(begun->id());
    v1::Operation operation;
    std::optional<v1::Operation> last;
    const auto watched =
        watcher->call_stream("OperationService.Watch", request, operation, [&] { last = operation; });
    return last;
  });
  harness.stop();
  const auto last = ended.get();
  // A watcher that came too late saw nothing; one that came sees the end.
  if (last) {
    EXPECT_EQ(last->error().code(), v1::Error::UNAVAILABLE);
  }
  EXPECT_EQ(harness.base.volumes(), 0u);
  EXPECT_EQ(harness.base.catalog().operations().find(begun->id())->message.error().code(),
            v1::Error::UNAVAILABLE);
}

TEST_F(JobsTest, SoManyRunAtOnceAndNoMore) {
  harness.transfer.wait_for_stop = true;
  std::vector<std::string> ids;
  for (unsigned i = 0; i < limits::kMaxRunningOperations; ++i) {
    const auto begun = import("i" + std::to_string(i));
    ASSERT_TRUE(begun);
    ids.push_back(begun->id());
  }
  const auto refused = import("one-more");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), v1::Error::RESOURCE_EXHAUSTED);
  EXPECT_EQ(cancel(ids[0]).error().code(), v1::Error::CANCELLED);
  EXPECT_TRUE(import("one-more"));
}

TEST_F(JobsTest, ASourceIsCheckedBeforeAnOperationBegins) {
  EXPECT_EQ(import("i1", "relative").error().field(), "source");
  EXPECT_EQ(import("I1").error().field(), "name");
  v1::ListOperationsResponse operations;
  ASSERT_TRUE(connection->call("OperationService.List", v1::ListOperationsRequest(), operations));
  EXPECT_EQ(operations.operations_size(), 0);
}

TEST_F(JobsTest, AnExportKeepsItsImageUntilItEnds) {
  ASSERT_TRUE(watch(import("i1")->id()).back().done());
  harness.transfer.wait_for_stop = true;
  v1::ExportImageRequest request;
  request.set_image_id("i1");
  request.set_path("/file");
  v1::Operation begun;
  ASSERT_TRUE(connection->call("ImageService.Export", request, begun));
  v1::DeleteImageRequest remove;
  remove.set_image_id("i1");
  v1::Operation removed;
  const auto refused = connection->call("ImageService.Delete", remove, removed);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), v1::Error::FAILED_PRECONDITION);
  EXPECT_EQ(cancel(begun.id()).error().code(), v1::Error::CANCELLED);
  EXPECT_TRUE(connection->call("ImageService.Delete", remove, removed));
}

TEST_F(JobsTest, AnImageIsVerifiedAgainstItsDigest) {
  ASSERT_TRUE(watch(import("i1")->id()).back().has_response());
  const auto verified = watch(verify("i1").value());
  ASSERT_EQ(verified.back().response().images_size(), 1);
  EXPECT_EQ(verified.back().response().images(0).digest(), "sha256-tree:0");
  EXPECT_EQ(verified.back().metadata().bytes_done(), 5 * limits::MiB);
  harness.transfer.content = 1;
  const auto changed = watch(verify("i1").value());
  EXPECT_EQ(changed.back().error().code(), v1::Error::DATA_LOSS);
  EXPECT_EQ(changed.back().error().message(),
            "image i1 is not what it was: its digest was sha256-tree:0 and is sha256-tree:1");
  harness.transfer.content = -1;
  EXPECT_EQ(watch(verify("i1").value()).back().error().code(), v1::Error::INTERNAL);
  harness.transfer.content = 0;
  EXPECT_TRUE(watch(verify("i1").value()).back().has_response());
  EXPECT_EQ(verify("i2").error().code(), v1::Error::NOT_FOUND);
}

TEST_F(JobsTest, AVerificationKeepsItsImageUntilItIsCancelled) {
  ASSERT_TRUE(watch(import("i1")->id()).back().done());
  harness.transfer.wait_for_stop = true;
  const auto begun = verify("i1");
  ASSERT_TRUE(begun);
  v1::DeleteImageRequest remove;
  remove.set_image_id("i1");
  v1::Operation removed;
  EXPECT_EQ(connection->call("ImageService.Delete", remove, removed).error().code(),
            v1::Error::FAILED_PRECONDITION);
  EXPECT_EQ(cancel(*begun).error().code(), v1::Error::CANCELLED);
  EXPECT_TRUE(connection->call("ImageService.Delete", remove, removed));
}

TEST_F(JobsTest, TheSha256OfASourceIsCheckedFirst) {
  v1::ImportImageRequest request;
  request.set_name("i1");
  request.set_source("/source");
  v1::Operation operation;
  for (const std::string& wrong : {std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'g')}) {
    request.set_sha256(wrong);
    const auto refused = connection->call("ImageService.Import", request, operation);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), v1::Error::INVALID_ARGUMENT);
    EXPECT_EQ(refused.error().field(), "sha256");
  }
  request.set_sha256(std::string(64, 'A'));
  ASSERT_TRUE(connection->call("ImageService.Import", request, operation));
  const auto seen = watch(operation.id());
  EXPECT_EQ(harness.transfer.asked_sha256(), std::string(64, 'a'));
  ASSERT_EQ(seen.back().response().images_size(), 1);
  EXPECT_EQ(seen.back().response().images(0).source().sha256(), std::string(64, 'a'));
  EXPECT_EQ(seen.back().metadata().bytes_done(), 5 * limits::MiB);  // of the copy, not of the file
}

}  // namespace
}  // namespace obraz::test
