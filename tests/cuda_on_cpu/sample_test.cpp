#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/cuda/row_ops.h"
#include "tests/cuda_on_cpu/fixture.h"

namespace infer::cuda::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Sampled {
  std::vector<RowStats> stats;
  std::vector<float> logit;
  std::vector<int32_t> id;
};

/// The m rows of `logits`, of which `live` are alive: the others have no memory behind them.
class SampleRun {
 public:
  SampleRun(const std::vector<float>& logits, int m, int live, int n_top)
      : n_vocab_(static_cast<int>(logits.size()) / live),
        m_(m),
        n_top_(n_top),
        logits_(logits),
        n_live_(std::vector<int32_t>{live}),
        counter_(std::vector<int32_t>(static_cast<size_t>(m))),
        scratch_(static_cast<size_t>(sample_scratch_bytes(m, n_vocab_, n_top))) {}

  Sampled run() const {
    const size_t n = static_cast<size_t>(m_ * n_top_);
    const DeviceArray<RowStats> stats(std::vector<RowStats>(static_cast<size_t>(m_), kOther));
    const DeviceArray<float> logit(std::vector<float>(std::max<size_t>(n, 1), 77.0f));
    const DeviceArray<int32_t> id(std::vector<int32_t>(std::max<size_t>(n, 1), 77));
    SampleArgs args;
    args.logits = logits_.data();
    args.m = m_;
    args.n_vocab = n_vocab_;
    args.n_live = n_live_.data();
    args.n_top = n_top_;
    args.stats = stats.data();
    args.top_logit = n_top_ > 0 ? logit.data() : nullptr;
    args.top_id = n_top_ > 0 ? id.data() : nullptr;
    args.counter = counter_.data();
    args.scratch = scratch_.data();
    EXPECT_EQ(sample(args, nullptr), cudaSuccess);
    return {stats.host(), logit.host(), id.host()};
  }

  static constexpr RowStats kOther = {7.0f, 7, 7.0, 7, 7};

 private:
  int n_vocab_, m_, n_top_;
  DeviceArray<float> logits_;
  DeviceArray<int32_t> n_live_;
  DeviceArray<int32_t> counter_;
  DeviceArray<std::byte> scratch_;
};

/// What one row of a finite maximum must give.
void expect_row(const float* x, int n, const Sampled& got, size_t row, int n_top) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto first = [x](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
  const int n_sorted = std::min(n, std::max(n_top, 1));
  std::partial_sort(order.begin(), order.begin() + n_sorted, order.end(), first);
  double sum = 0.0;
  for (int i = 0; i < n; ++i) sum += std::exp(double{x[i]} - double{x[order[0]]});
  const RowStats& s = got.stats[row];
  EXPECT_EQ(s.argmax, order[0]);
  EXPECT_EQ(s.max, x[order[0]]);
  EXPECT_EQ(s.has_nan, 0);
  // Of a term e^-d: the difference rounds (d 2^-24, where d e^-d <= 0.37), the exponential is off
  // by 2 ulp; those below 2^-126 may be 0.
  EXPECT_TRUE(std::fabs(s.sum_exp - sum) <= 1e-6 * sum) << s.sum_exp << " " << sum;
  for (int i = 0; i < n_top; ++i) {
    const auto at = row * static_cast<size_t>(n_top) + static_cast<size_t>(i);
    EXPECT_EQ(got.id[at], i < n ? order[static_cast<size_t>(i)] : -1) << i;
    EXPECT_EQ(got.logit[at], i < n ? x[order[static_cast<size_t>(i)]] : -kInf) << i;
  }
}

void expect_others_untouched(const Sampled& got, int live, int n_top) {
  for (size_t r = static_cast<size_t>(live); r < got.stats.size(); ++r) {
    EXPECT_EQ(got.stats[r].argmax, 7);
    for (size_t i = 0; i < static_cast<size_t>(n_top); ++i)
      EXPECT_EQ(got.id[r * static_cast<size_t>(n_top) + i], 77);
  }
}

bool same(const Sampled& a, const Sampled& b) {
  return std::memcmp(a.stats.data(), b.stats.data(), a.stats.size() * sizeof(RowStats)) == 0 &&
         a.id == b.id && a.logit == b.logit;
}

using Sample = Emulated;

/// Two live rows of three: one of normals, one of few values, so that most are equal to others.
std::vector<float> two_rows(int n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<float> x(static_cast<size_t>(2 * n));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = 6.0f * std::normal_distribution<float>()(rng);
    if (i >= static_cast<size_t>(n)) x[i] = 0.5f * std::round(x[i] / 12.0f);
    if (i >= static_cast<size_t>(n) && rng() % 5 == 0) x[i] = -kInf;
  }
  x[static_cast<size_t>(n)] = 1.0f;
  return x;
}

TEST_F(Sample, StatsAndBestOfOddSizes) {
  for (const int n : {1, 2, 63, 255, 256, 257, 4095, 4096, 4097, 20001}) {
    const auto x = two_rows(n, static_cast<uint64_t>(n));
    for (const int n_top : {0, 1, 5, 64}) {
      if (n > 5000 && n_top == 64) continue;  // TenSeeds has it
      SCOPED_TRACE(testing::Message() << "n_vocab " << n << " n_top " << n_top);
      const SampleRun run(x, 3, 2, n_top);
      const Sampled got = run.run();
      expect_row(x.data(), n, got, 0, n_top);
      expect_row(x.data() + n, n, got, 1, n_top);
      expect_others_untouched(got, 2, n_top);
    }
  }
}

TEST_F(Sample, TenSeedsGiveTheSameBitsFromTheSameScratch) {
  constexpr int kVocab = 9001, kTop = 64;
  const auto x = two_rows(kVocab, 1);
  for (const int architecture : {75, 80}) {
    reset({.architecture = architecture});
    const SampleRun run(x, 2, 2, kTop);
    Sampled first;
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      const Sampled got = run.run();
      if (seed == 1) {
        first = got;
        expect_row(x.data(), kVocab, got, 0, kTop);
        expect_row(x.data() + kVocab, kVocab, got, 1, kTop);
      }
      EXPECT_TRUE(same(got, first)) << "seed " << seed;
    }
  }
}

TEST_F(Sample, MoreLogitsThanABlockTakesInOneTurn) {
  constexpr int kVocab = 64 * 4096 + 65, kTop = 9;
  std::vector<float> x(kVocab);
  std::mt19937_64 rng(1);
  for (float& v : x) v = std::normal_distribution<float>()(rng);
  const SampleRun run(x, 1, 1, kTop);
  expect_row(x.data(), kVocab, run.run(), 0, kTop);
}

TEST_F(Sample, NaNAndInfinityAreReported) {
  constexpr int kVocab = 5000;
  for (const float bad : {kNaN, -kNaN, kInf}) {
    for (const size_t at : {size_t{0}, size_t{4999}, size_t{2500}}) {
      std::vector<float> x(kVocab, 1.0f);
      x[at] = bad;
      const auto got = SampleRun(x, 1, 1, 3).run();
      EXPECT_NE(got.stats[0].has_nan, 0);
      EXPECT_TRUE(std::isnan(got.stats[0].sum_exp));
    }
  }
  for (const float all : {-kInf, kNaN}) {
    const auto got = SampleRun(std::vector<float>(kVocab, all), 1, 1, 3).run();
    EXPECT_NE(got.stats[0].has_nan, 0);
    EXPECT_EQ(got.stats[0].argmax, 0);
    EXPECT_EQ(got.stats[0].max, -kInf);
  }
}

TEST_F(Sample, ZerosOfBothSignsAreEqual) {
  std::vector<float> x(300, -1.0f);
  x[7] = -0.0f;
  x[8] = 0.0f;
  const auto got = SampleRun(x, 1, 1, 2).run();
  EXPECT_EQ(got.id, (std::vector<int32_t>{7, 8}));
}

TEST_F(Sample, NoRows) {
  SampleArgs args;
  args.n_vocab = 10;
  EXPECT_EQ(sample(args, nullptr), cudaSuccess);
  const DeviceArray<int32_t> none(std::vector<int32_t>{0});
  const DeviceArray<RowStats> stats(std::vector<RowStats>(2, SampleRun::kOther));
  args.m = 2;
  args.n_live = none.data();
  args.stats = stats.data();
  EXPECT_EQ(sample(args, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (const RowStats& s : stats.host()) EXPECT_EQ(s.argmax, SampleRun::kOther.argmax);
}

TEST_F(Sample, RefusesMoreCandidatesThanItKeeps) {
  SampleArgs args;
  args.m = args.n_vocab = 1;
  args.n_top = kMaxTop + 1;
  EXPECT_EQ(sample(args, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace infer::cuda::test
