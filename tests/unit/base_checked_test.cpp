#include "core/base/checked.h"

#include <cstdint>
#include <limits>
#include <optional>

#include <gtest/gtest.h>

namespace infer {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

TEST(Checked, AddRefusesWhatDoesNotFit) {
  EXPECT_EQ(checked_add<int64_t>(kMax - 1, 1), kMax);
  EXPECT_EQ(checked_add<int64_t>(kMax, 1), std::nullopt);
  EXPECT_EQ(checked_add<int64_t>(kMin, -1), std::nullopt);
  EXPECT_EQ(checked_add<uint64_t>(~uint64_t{0}, 1), std::nullopt);
  EXPECT_EQ(checked_add<uint8_t>(200, 55), 255);
  EXPECT_EQ(checked_add<uint8_t>(200, 56), std::nullopt);
}

TEST(Checked, MulRefusesWhatDoesNotFit) {
  EXPECT_EQ(checked_mul<int64_t>(int64_t{1} << 31, int64_t{1} << 31), int64_t{1} << 62);
  EXPECT_EQ(checked_mul<int64_t>(int64_t{1} << 32, int64_t{1} << 31), std::nullopt);
  EXPECT_EQ(checked_mul<int64_t>(kMin, -1), std::nullopt);
  EXPECT_EQ(checked_mul<int64_t>(kMax, 0), 0);
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 61, 8), std::nullopt);  // wraps to 0
}

TEST(Checked, AlignUpRefusesToWrap) {
  EXPECT_EQ(checked_align_up<int64_t>(0, 32), 0);
  EXPECT_EQ(checked_align_up<int64_t>(1, 32), 32);
  EXPECT_EQ(checked_align_up<int64_t>(32, 32), 32);
  EXPECT_EQ(checked_align_up<int64_t>(33, 12), 36);
  EXPECT_EQ(checked_align_up<int64_t>(kMax, 32), std::nullopt);
  EXPECT_EQ(checked_align_up<int64_t>(kMax - 31, 32), kMax - 31);  // a multiple already
}

TEST(Checked, UncheckedHelpers) {
  EXPECT_EQ(align_up<int64_t>(65, 64), 128);
  EXPECT_EQ(ceil_div<int64_t>(9, 4), 3);
  EXPECT_EQ(ceil_div<int64_t>(8, 4), 2);
}

}  // namespace
}  // namespace infer
