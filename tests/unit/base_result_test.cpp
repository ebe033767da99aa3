#include "core/base/result.h"

#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace infer {
namespace {

Result<int> half_of(int v) {
  if (v % 2 != 0) return make_error(ErrorCode::kInvalidArgument, "{} is odd", v);
  return v / 2;
}

Result<void> must_be_even(int v) {
  INFER_TRY(half_of(v));
  return {};
}

Result<std::string> quarter_of(int v) {
  INFER_ASSIGN(const int half, half_of(v));
  INFER_ASSIGN(const int quarter, half_of(half));
  return std::to_string(quarter);
}

TEST(Result, HoldsAValueOrAnError) {
  const Result<int> good = half_of(8);
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(static_cast<bool>(good));
  EXPECT_EQ(*good, 4);
  const Result<int> bad = half_of(7);
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(bad.error().message, "7 is odd");
}

TEST(Result, VoidIsGoodUnlessGivenAnError) {
  EXPECT_TRUE(Result<void>().ok());
  EXPECT_TRUE(must_be_even(2).ok());
  ASSERT_FALSE(must_be_even(3).ok());
  EXPECT_EQ(must_be_even(3).error().message, "3 is odd");
}

TEST(Result, AssignPassesTheFirstErrorOn) {
  ASSERT_TRUE(quarter_of(12).ok());
  EXPECT_EQ(*quarter_of(12), "3");
  EXPECT_EQ(quarter_of(5).error().message, "5 is odd");
  EXPECT_EQ(quarter_of(6).error().message, "3 is odd");
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> r = std::make_unique<int>(5);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(**r, 5);
  const std::unique_ptr<int> out = std::move(r).value();
  EXPECT_EQ(*out, 5);
}

TEST(ResultDeathTest, ValueOfAnErrorIsOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH((void)half_of(7).value(), "7 is odd");
}

}  // namespace
}  // namespace infer
