#include "core/text/stop_matcher.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace infer::text {
namespace {

TEST(StopMatcher, HoldsBackWhatMayBeAStop) {
  StopMatcher m({"END"});
  EXPECT_EQ(m.push("abE"), "ab");
  EXPECT_EQ(m.push("N"), "");
  EXPECT_EQ(m.push("x"), "ENx");
  EXPECT_EQ(m.push("yEN"), "y");
  EXPECT_FALSE(m.matched());
  EXPECT_EQ(m.push("Dz"), "");
  EXPECT_TRUE(m.matched());
  EXPECT_EQ(m.push("more"), "");
  EXPECT_EQ(m.finish(), "");
  EXPECT_EQ(m.n_out(), 6);
}

TEST(StopMatcher, GivesBackAtTheEndWhatWasNoStop) {
  StopMatcher m({"\n\n"});
  EXPECT_EQ(m.push("a\n"), "a");
  EXPECT_EQ(m.finish(), "\n");
  EXPECT_EQ(m.finish(), "");
  EXPECT_FALSE(m.matched());
}

TEST(StopMatcher, WithoutStopsTextPasses) {
  StopMatcher m({});
  EXPECT_EQ(m.push("abc"), "abc");
  EXPECT_EQ(m.push(""), "");
  EXPECT_EQ(m.finish(), "");
}

TEST(StopMatcher, TheStopThatIsCompleteFirstWins) {
  StopMatcher inner({"abcdef", "cd"});
  EXPECT_EQ(inner.push("xabcdef"), "xab");
  StopMatcher longest({"cd", "bcd"});
  EXPECT_EQ(longest.push("abcd"), "a");
}

/// However the text is cut into pieces, the outcome is that of looking at all of it.
TEST(StopMatcher, DoesNotDependOnThePieces) {
  std::mt19937 rng(21);
  int n_match = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + rng() % 3);
    for (std::string& s : stops) {
      for (size_t n = 1 + rng() % 5; n > 0; --n) s += static_cast<char>('a' + rng() % 2);
    }
    std::string text;
    for (size_t n = rng() % 30; n > 0; --n) text += static_cast<char>('a' + rng() % 3);
    size_t begin = std::string::npos, end = std::string::npos;
    for (size_t e = 1; e <= text.size() && end == std::string::npos; ++e) {
      for (const std::string& s : stops) {
        if (!text.substr(0, e).ends_with(s)) continue;
        end = e;
        begin = std::min(begin, e - s.size());
      }
    }
    StopMatcher m(stops);
    std::string got;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + rng() % 6;
      got += m.push(text.substr(at, n));
      at += n;
      EXPECT_EQ(m.n_out(), static_cast<int64_t>(got.size()));
    }
    EXPECT_EQ(m.matched(), end != std::string::npos);
    n_match += m.matched();
    got += m.finish();
    EXPECT_EQ(got, text.substr(0, begin)) << text;
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  EXPECT_GT(n_match, 500);
}

}  // namespace
}  // namespace infer::text
