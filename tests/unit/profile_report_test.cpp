#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/cpu/bench/profile_report.h"

/// Shares, limits and the line of advice, from profiles written by hand.
namespace infer::test {
namespace {

using cpu::bench::Limits;
using cpu::bench::profile_report;
using cpu::bench::ProfiledTest;
using cpu::bench::ProfileReport;
using cpu::bench::ProfileRow;
using cpu::bench::roofline_chart;
using cpu::bench::RooflinePoint;
using cpu::bench::RooflineReport;
using graph::OpKind;
using runtime::OpProfile;
using testing::HasSubstr;
using testing::StartsWith;

/// 10 GB/s, 100 GOP/s on f32, 400 on 8 bits; ten steps of 1 ms with two threads that ran.
ProfiledTest ten_steps(bool prompt = false) {
  ProfiledTest test;
  test.name = prompt ? "pp8" : "tg10";
  test.prompt = prompt;
  test.wall_s = 10e-3;
  test.cpu_s = 20e-3;
  test.n_threads = 2;
  test.isa = "avx2";
  test.limits = {10e9, {100e9, "f32_fma"}, {400e9, "int8_maddubs"}, {800e9, "wide"}};
  return test;
}

struct Op {
  const char* name;
  OpKind kind;
  double ms, mb, f32_mop, int8_mop, int4_mop = 0;  ///< a step
};
ProfileReport report_of(const ProfiledTest& test, const std::vector<Op>& ops,
                        double between_ops_ms = 0.0) {
  OpProfile profile;
  double step_s = between_ops_ms * 1e-3;
  for (const Op& op : ops) {
    *profile.watch(op.name, op.kind) = {
        op.kind,           20, op.ms * 10e-3, op.mb * 10e6, op.f32_mop * 10e6, op.int8_mop * 10e6,
        op.int4_mop * 10e6};
    step_s += op.ms * 1e-3;
  }
  for (int i = 0; i < 10; ++i) profile.add_step(step_s);
  return profile_report(test, profile);
}

const Op kSmallNorm = {"norm", OpKind::kNorm, 0.05, 0.01, 0.01, 0};

TEST(ProfileReport, SharesAddUp) {
  const ProfileReport r = report_of(ten_steps(),
                                    {kSmallNorm,
                                     {"unused", OpKind::kAdd, 0, 0, 0, 0},
                                     {"linear a q4_0", OpKind::kLinearGroup, 0.6, 4, 0, 40},
                                     {"attention f16", OpKind::kAttention, 0.2, 0.5, 10, 0}},
                                    0.1);
  EXPECT_EQ(r.n_step, 10);
  EXPECT_NEAR(r.step_s, 1e-3, 1e-9);
  EXPECT_NEAR(r.between_ops_s, 0.1e-3, 1e-9);
  EXPECT_NEAR(r.between_steps_s, 0.05e-3, 1e-9);
  ASSERT_EQ(r.rows.size(), 4u);
  double share = r.share(r.between_ops_s) + r.share(r.between_steps_s);
  for (const ProfileRow& row : r.rows) share += r.share(row.seconds);
  EXPECT_NEAR(share, 1.0, 1e-9);
  EXPECT_EQ(r.rows[0].name, "linear a q4_0");
  EXPECT_EQ(r.rows[1].name, "attention f16");
  EXPECT_EQ(r.rows[0].n_call, 2.0);
  // 4 MB take 0.4 ms, 40 MOP on 8 bits 0.1 ms: two thirds of 0.6 ms.
  EXPECT_TRUE(r.rows[0].bound_by_read());
  EXPECT_NEAR(r.rows[0].roofline(), 2.0 / 3.0, 1e-9);
  // 0.5 MB take 0.05 ms, 10 MOP on f32 0.1 ms: half of 0.2 ms.
  EXPECT_FALSE(r.rows[1].bound_by_read());
  EXPECT_NEAR(r.rows[1].roofline(), 0.5, 1e-9);
}

TEST(ProfileReport, AKindThatNeverRanIsNoRow) {
  OpProfile profile;
  profile.watch("norm", OpKind::kNorm);
  const ProfileReport r = profile_report(ten_steps(), profile);
  EXPECT_TRUE(r.rows.empty());
  EXPECT_THAT(r.advice, HasSubstr("outside of ops"));
}

TEST(ProfileAdvice, SaysWhatBounds) {
  struct Case {
    bool prompt;
    std::vector<Op> ops;
    double between_ops_ms;
    const char* starts;
    const char* has;
  };
  const OpKind linear = OpKind::kLinearGroup, attention = OpKind::kAttention;
  const std::vector<Case> cases = {
      {false,
       {{"w", linear, 0.9, 7, 0, 40}},
       0,
       "generation is bound by reading weights",
       "78 % of the 10.0 GB/s"},
      {false,
       {{"w", linear, 0.9, 3, 0, 40}},
       0,
       "generation spends 90 % of the time on weights",
       "33 % of the 10.0 GB/s that this machine reads: the kernels bound it"},
      {true,
       {{"w", linear, 0.9, 1, 0, 280}},
       0,
       "prompt processing is bound by multiply-adds",
       "78 % of the 400 GOP/s that avx2 reaches (int8_maddubs)"},
      {true,
       {{"w", linear, 0.9, 1, 70, 0}},
       0,
       "prompt processing is bound by multiply-adds",
       "78 % of the 100 GOP/s that avx2 reaches (f32_fma)"},
      {true,
       {{"w", linear, 0.9, 1, 0, 0, 560}},
       0,
       "prompt processing is bound by multiply-adds",
       "78 % of the 800 GOP/s that avx2 reaches (wide)"},
      {true,
       {{"near", linear, 0.5, 1, 0, 180}, {"far", linear, 0.4, 1, 0, 10}},
       0,
       "prompt processing spends 90 % of the time on weights",
       "most is lost in far"},
      {false,
       {{"w", linear, 0.3, 2, 0, 40}, {"a", attention, 0.6, 5, 10, 0}},
       0,
       "generation is bound by reading K and V (60 % of the time)",
       "--cache-type-k"},
      {true,
       {{"a", attention, 0.8, 1, 70, 0}},
       0,
       "prompt processing is bound by attention's multiply-adds",
       "88 % of the 100 GOP/s"},
      {false,
       {{"a", attention, 0.8, 0.96, 9, 0}},
       0,
       "generation spends 80 % of the time on attention",
       "12 % of the 10.0 GB/s"},
      {false,
       {{"w", linear, 0.3, 2, 0, 40},
        {"norm", OpKind::kNorm, 0.3, 0.01, 0.01, 0},
        {"add", OpKind::kAdd, 0.2, 0.01, 0.01, 0},
        {"embed", OpKind::kEmbed, 0.1, 0.01, 0, 0}},
       0,
       "generation spends 60 % of the time on ops too small to share out (norm and add)",
       "wait for each other"},
      {false,
       {{"w", linear, 0.3, 2, 0, 40}},
       0.1,
       "generation spends 70 % of the time outside of ops",
       "scheduler"},
      {false,
       {{"w", linear, 0.3, 2, 0, 40}},
       0.6,
       "generation spends 70 % of the time outside of ops",
       "logits"},
  };
  for (const Case& c : cases) {
    const std::string advice = report_of(ten_steps(c.prompt), c.ops, c.between_ops_ms).advice;
    EXPECT_THAT(advice, StartsWith(c.starts));
    EXPECT_THAT(advice, HasSubstr(c.has));
    EXPECT_EQ(std::ranges::count(advice, '\n'), 0);
  }
}

TEST(ProfileAdvice, ThreadsThatDidNotRunAreNotJudged) {
  ProfiledTest test = ten_steps();
  const std::vector<Op> ops = {{"w", OpKind::kLinearGroup, 1.0, 7, 0, 40}};
  test.cpu_s = 14e-3;
  EXPECT_THAT(report_of(test, ops).advice, StartsWith("the 2 threads ran only 70 % of the time"));
  test.cpu_s = 16e-3;
  EXPECT_THAT(report_of(test, ops).advice, StartsWith("generation is bound"));
  test.n_threads = 1;
  test.cpu_s = 6e-3;  // one thread waits for nobody
  EXPECT_THAT(report_of(test, ops).advice, StartsWith("generation is bound"));
}

RooflineReport roofline() {
  RooflineReport r;
  r.points = {{"avx2", "read", "", RooflinePoint::Kind::kRead, 2, {9e9, 10e9}},
              {"avx2", "f32_fma", "", RooflinePoint::Kind::kF32, 2, {100e9, 90e9}},
              {"avx2", "slow", "", RooflinePoint::Kind::kInt8, 2, {200e9}},
              {"avx2", "fast", "", RooflinePoint::Kind::kInt8, 2, {400e9}},
              {"avx2", "wide", "", RooflinePoint::Kind::kInt4, 2, {700e9}},
              {"avx2", "other", "", RooflinePoint::Kind::kInt8, 1, {900e9}},
              {"avx512", "other", "", RooflinePoint::Kind::kInt8, 2, {800e9}}};
  return r;
}

TEST(ProfileLimits, AreOfTheLevelAndTheThreads) {
  const Limits l = limits_of(roofline(), "avx2", 2);
  EXPECT_EQ(l.read_per_s, 10e9);
  EXPECT_EQ(l.f32.per_s, 100e9);
  EXPECT_EQ(l.int8.per_s, 400e9);
  EXPECT_EQ(l.int8.name, "fast");
  EXPECT_EQ(l.int4.name, "wide");
  RooflineReport r = roofline();  // what multiplies 8 bits multiplies 4 as well
  std::erase_if(r.points, [](const RooflinePoint& p) { return p.name == "wide"; });
  EXPECT_EQ(limits_of(r, "avx2", 2).int4.name, "fast");
  EXPECT_EQ(limits_of(roofline(), "generic", 2).read_per_s, 0.0);
}

TEST(ProfileChart, IsADrawingOfEveryTest) {
  const ProfileReport pp = report_of(
      ten_steps(true), {{"linear <a>", OpKind::kLinearGroup, 0.5, 1, 0, 180}, kSmallNorm});
  const ProfileReport tg = report_of(ten_steps(), {{"embed", OpKind::kEmbed, 0.5, 1, 0, 0}});
  const std::string svg = roofline_chart("a & b", {pp, tg}, roofline());
  EXPECT_THAT(svg, StartsWith("<svg "));
  for (const char* word : {"a &amp; b", "pp8: 1.00 ms a step, 2 threads, avx2",
                           "tg10: ", "linear &lt;a&gt;", "read 10.0 GB/s", "fast 400 GOP/s",
                           "slow 200", "50.0 % of the time, 90 % of roofline (ops)"})
    EXPECT_THAT(svg, HasSubstr(word));
  for (const char* word : {"nan", "inf\"", "other 800", "other 900"})
    EXPECT_EQ(svg.find(word), std::string::npos) << word;
  // Nothing was measured, nothing ran: still a drawing.
  const std::string empty = roofline_chart("", {report_of({}, {})}, {});
  EXPECT_EQ(empty.find("nan"), std::string::npos);
}

}  // namespace
}  // namespace infer::test
