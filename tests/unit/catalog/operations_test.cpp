#include "catalog/operations.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "base/limits.h"

namespace obraz {
namespace {

const OperationTable::Visible kAll = [](const OperationState&) { return true; };

class OperationTableTest : public testing::Test {
 protected:
  boost::asio::io_context context;
  Clock clock;
  OperationTable table{context.get_executor(), clock};
  static constexpr uint64_t kHash = 17;

  Caller caller(std::string key, uint64_t hash = kHash, std::string subject = "user:a") {
    return Caller{std::make_shared<const Subject>(Subject{std::move(subject), {}, false}), std::move(key),
                  hash};
  }
  // What a committed call does.
  Transaction finish(const OperationRef& operation) {
    Transaction transaction;
    table.append_finished(*operation, nullptr, transaction);
    operation->stored = true;
    table.finish(operation, nullptr);
    return transaction;
  }
};

TEST_F(OperationTableTest, TheSameKeyAndRequestNameTheSameOperation) {
  const OperationRef operation = table.begin(caller("k"), "Create", {"id"});
  EXPECT_EQ(table.find_duplicate(caller("k")).value(), operation);
  finish(operation);
  EXPECT_EQ(table.find_duplicate(caller("k")).value(), operation);
  EXPECT_EQ(table.find_duplicate(caller("other")).value(), nullptr);
  EXPECT_EQ(table.find_duplicate(caller("")).value(), nullptr);
  EXPECT_EQ(table.find_duplicate(caller("k", kHash, "user:b")).value(), nullptr);
}

TEST_F(OperationTableTest, TheSameKeyWithAnotherRequestIsRefused) {
  table.begin(caller("k"), "Create", {"id"});
  const auto refused = table.find_duplicate(caller("k", kHash + 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field, "idempotency_key");
}

TEST_F(OperationTableTest, TheOldestFinishedOnesAreForgotten) {
  const OperationRef running = table.begin(caller(""), "runs", {});
  const OperationRef first = table.begin(caller("first"), "first", {});
  finish(first);
  for (unsigned i = 1; i < limits::kMaxOperations; ++i)
    EXPECT_EQ(finish(table.begin(caller(""), "more", {})).size(), 1u);
  EXPECT_TRUE(table.find(first->message.id()));
  const Transaction last = finish(table.begin(caller(""), "one too many", {}));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(std::get<RemoveResource>(last[1]).key, "operation/" + first->message.id());
  EXPECT_FALSE(table.find(first->message.id()));
  EXPECT_EQ(table.find_duplicate(caller("first")).value(), nullptr);
  EXPECT_TRUE(table.find(running->message.id()));
}

TEST_F(OperationTableTest, AFailedOneKeepsItsRefusalAcrossARestart) {
  const OperationRef operation = table.begin(caller("k"), "Import", {"id"});
  const Refusal refusal{ErrorCode::not_found, "source", "there is no such file"};
  Transaction transaction;
  table.append_finished(*operation, &refusal, transaction);
  table.finish(operation, &refusal);
  v1::ResourceRecord record;
  ASSERT_TRUE(record.ParseFromString(std::get<PutResource>(transaction[0]).value));

  OperationTable restored{context.get_executor(), clock};
  restored.restore(record);
  const OperationRef found = restored.find(operation->message.id());
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->message.done());
  EXPECT_EQ(found->message.error().field(), "source");
  EXPECT_EQ(restored.find_duplicate(caller("k")).value(), found);
  EXPECT_EQ(restored.running(), 0u);
}

TEST_F(OperationTableTest, PagesListTheNewestFirst) {
  for (const char* description : {"one", "two", "three"})
    table.begin(caller(""), description, {});
  const auto first = table.list(2, "", kAll);
  ASSERT_EQ(first->operations.size(), 2u);
  EXPECT_EQ(first->operations[0]->message.description(), "three");
  table.begin(caller(""), "four", {});
  const auto second = table.list(2, first->next_page_token, kAll);
  ASSERT_EQ(second->operations.size(), 1u);
  EXPECT_EQ(second->operations[0]->message.description(), "one");
  EXPECT_EQ(second->next_page_token, "");
  EXPECT_FALSE(table.list(2, "x", kAll));
}

// With the end of another one, and not all at once: they must fit its transaction.
TEST_F(OperationTableTest, FinishedOnesExpire) {
  const auto restored = [this](int days_ago, bool done) {
    const int64_t then = to_nanoseconds(clock.next()) - days_ago * 24 * 3600 * kNanosecondsPerSecond;
    v1::ResourceRecord record;
    v1::Operation& message = *record.mutable_operation();
    message.set_id(new_operation_id());
    *message.mutable_created_at() = to_timestamp(then);
    *message.mutable_modified_at() = to_timestamp(then);
    message.set_done(done);
    table.restore(record);
    return message.id();
  };
  std::vector<std::string> old;
  for (unsigned i = 0; i < limits::kMaxExpiredOperations + 1; ++i)
    old.push_back(restored(40, true));
  const std::string running = restored(40, false), young = restored(29, true);
  const auto end_one = [this] {
    const OperationRef operation = table.begin(caller(""), "another", {});
    Transaction transaction;
    table.append_finished(*operation, nullptr, transaction);
    table.finish(operation, nullptr);
    return transaction.size();
  };
  EXPECT_EQ(end_one(), 1 + limits::kMaxExpiredOperations);
  EXPECT_FALSE(table.find(old.front()));
  EXPECT_TRUE(table.find(old.back()));
  EXPECT_EQ(end_one(), 2u);
  EXPECT_FALSE(table.find(old.back()));
  EXPECT_TRUE(table.find(running));
  EXPECT_TRUE(table.find(young));
}

TEST_F(OperationTableTest, TimesNeverRepeat) {
  int64_t last = 0;
  for (int i = 0; i < 1000; ++i) {
    const int64_t now = to_nanoseconds(clock.next());
    ASSERT_GT(now, last);
    last = now;
  }
  clock.advance_past(to_timestamp(last + kNanosecondsPerSecond * 1000));
  EXPECT_GT(to_nanoseconds(clock.next()), last + kNanosecondsPerSecond * 1000);
}

}  // namespace
}  // namespace obraz
