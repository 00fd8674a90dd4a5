#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "base/check.h"
#include "base/refusal.h"

namespace obraz {
namespace {

Status first_failure(const Status& a, const Status& b) {
  OBRAZ_TRY(a);
  OBRAZ_TRY(b);
  return {};
}

TEST(Result, TryHandsTheFirstErrorOn) {
  EXPECT_TRUE(first_failure({}, {}));
  const Status failed = first_failure({}, fail(ErrorCode::not_found, "no such thing"));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::not_found);
  EXPECT_STREQ(failed.error().text, "no such thing");
  EXPECT_EQ(first_failure(fail(ErrorCode::io, ""), fail(ErrorCode::not_found, "")).error().code,
            ErrorCode::io);
}

TEST(Result, AFullFileSystemIsNoSpaceAndTheRestIsIo) {
  EXPECT_EQ(fail_os(ENOSPC, "").error().code, ErrorCode::no_space);
  EXPECT_EQ(fail_os(EDQUOT, "").error().code, ErrorCode::no_space);
  EXPECT_EQ(fail_os(EIO, "").error().code, ErrorCode::io);
  EXPECT_EQ(fail_os(EIO, "").error().os_error, EIO);
}

TEST(Result, DescriptionNamesWhatTheCodeAndTheSystemsWords) {
  EXPECT_EQ(describe(fail(ErrorCode::corruption, "bad superblock").error()), "bad superblock: corruption");
  EXPECT_EQ(describe(fail_os(EIO, "flush failed").error()), "flush failed: I/O error (Input/output error)");
  EXPECT_EQ(describe(fail(ErrorCode::cancelled, "").error()), "cancelled");
}

TEST(Result, EveryCodeHasAName) {
  for (int code = 0; code <= int(ErrorCode::protocol); ++code)
    EXPECT_STRNE(name_of(ErrorCode(code)), "unknown error") << code;
}

TEST(Refusal, CarriesCodeFieldAndSentence) {
  const Answer<std::unique_ptr<int>> answer = refuse(ErrorCode::already_exists, "name", "The name is taken.");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::already_exists);
  EXPECT_EQ(answer.error().field, "name");
  EXPECT_EQ(answer.error().message, "The name is taken.");
}

TEST(Check, AbortsInEveryBuildAndNamesThePlace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(OBRAZ_CHECK(1 + 1 == 3), "bug: 1 \\+ 1 == 3 is false at .*result_test.cpp");
}

}  // namespace
}  // namespace obraz
