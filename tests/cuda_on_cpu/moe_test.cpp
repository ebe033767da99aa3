#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/cuda_on_cpu/moe_case.h"

namespace infer::cuda::test {
namespace {

using infer::test::seed_of_test;

class Moe : public Emulated {};

// --- Routing

/// The pairs of the route, by expert, ascending; beyond them nothing was written.
void expect_grouped(const Routes& r, int live, int n_expert, int n_used) {
  std::vector<int32_t> pair, begin = {0};
  for (int e = 0; e < n_expert; ++e) {
    for (int p = 0; p < live * n_used; ++p)
      if (r.route[static_cast<size_t>(p / n_used * 2 * n_used + p % n_used)] ==
          static_cast<float>(e))
        pair.push_back(p);
    begin.push_back(static_cast<int32_t>(pair.size()));
  }
  pair.resize(r.pair.size(), -1);
  EXPECT_EQ(r.begin, begin);
  EXPECT_EQ(r.pair, pair);
}

TEST_F(Moe, RouteIsSoftmaxOfTheLikeliest) {
  std::mt19937_64 rng(seed_of_test());
  struct Shape {
    int m, live, n_expert, n_used;
  };
  for (const Shape& s : {Shape{1, 1, 4, 2},
                         {1, 1, 1, 1},
                         {8, 5, 8, 2},
                         {7, 7, 128, 8},
                         {9, 9, 60, 4},
                         {40, 33, 257, 6},
                         {65, 64, 31, 31}}) {
    for (const bool normalise : {true, false}) {
      auto logits = random_floats(rng, static_cast<size_t>(s.live * s.n_expert), 3.0f);
      logits[static_cast<size_t>(s.n_expert / 2)] = logits[0];  // a tie
      const Routes r = run_route(logits, s.m, s.live, s.n_expert, s.n_used, normalise);
      expect_grouped(r, s.live, s.n_expert, s.n_used);
      for (int row = 0; row < s.live; ++row) {
        const float* l = logits.data() + row * s.n_expert;
        std::vector<int> order(static_cast<size_t>(s.n_expert));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return l[a] > l[b]; });
        double sum = 0.0, used = 0.0;
        for (int e = 0; e < s.n_expert; ++e)
          sum += std::exp(static_cast<double>(l[e]) - l[order[0]]);
        for (int j = 0; j < s.n_used; ++j)
          used +=
              std::exp(static_cast<double>(l[order[static_cast<size_t>(j)]]) - l[order[0]]) / sum;
        const double spread = static_cast<double>(l[order[0]]) - l[order.back()];
        // exp: its rounded argument and 2 ulp; a sum in 32 lanes; two divisions, a sum of n_used.
        const double chain = std::ceil(s.n_expert / 32.0) + 5;
        const double error = kU * (2 * (2 * spread + 8 + chain) + s.n_used + 2);
        for (int j = 0; j < s.n_used; ++j) {
          const auto at = static_cast<size_t>(row * 2 * s.n_used + j);
          const int id = order[static_cast<size_t>(j)];
          ASSERT_EQ(r.route[at], static_cast<float>(id)) << "row " << row << " choice " << j;
          double p = std::exp(static_cast<double>(l[id]) - l[order[0]]) / sum;
          if (normalise) p /= used;
          const double weight = r.route[at + static_cast<size_t>(s.n_used)];
          ASSERT_FALSE(!(std::fabs(weight - p) <= error * p)) << weight << " " << p;
        }
      }
      for (size_t i = static_cast<size_t>(s.live * 2 * s.n_used); i < r.route.size(); ++i)
        EXPECT_EQ(r.route[i], kUntouched);
    }
  }
}

TEST_F(Moe, RouteOfEqualLogitsTakesTheFirst) {
  const Routes r = run_route(std::vector<float>(40, 1.5f), 1, 1, 40, 3, true);
  EXPECT_EQ(std::vector<float>(r.route.begin(), r.route.begin() + 3),
            (std::vector<float>{0, 1, 2}));
}

// Weights of a row with a NaN are NaN, whichever expert it came from; the ids stay ids.
TEST_F(Moe, NotANumberStaysVisible) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const bool normalise : {true, false}) {
      std::mt19937_64 rng(seed_of_test());
      auto logits = random_floats(rng, 3 * 16);
      logits[16 + 9] = bad;
      const Routes r = run_route(logits, 3, 3, 16, 4, normalise);
      expect_grouped(r, 3, 16, 4);
      EXPECT_EQ(r.begin.back(), 12);
      for (size_t i = 0; i < 24; ++i)
        EXPECT_EQ(std::isnan(r.route[i]), i / 8 == 1 && i % 8 >= 4) << i;
    }
  }
  const Routes none =
      run_route(std::vector<float>(16, -std::numeric_limits<float>::infinity()), 1, 1, 16, 2, true);
  EXPECT_TRUE(std::isnan(none.route[2]));
  EXPECT_EQ(none.route[1], 1.0f);
}

// --- Products

TEST_F(Moe, EveryType) {
  for (const DType type : infer::test::kLinearTypes) {
    for (const bool precise : {false, true}) {
      MoeCase c;
      c.type = type, c.precise = precise;
      c.n = 21, c.k = 512;
      check(c);
      c.m = 5, c.live = 4;
      check(c);
    }
  }
}

// More pairs of an expert than a pass takes, experts without any, tiles' edges.
TEST_F(Moe, ManyRows) {
  for (const GluKind glu : {GluKind::kSilu, GluKind::kGeluTanh, GluKind::kGeluErf}) {
    MoeCase c;
    c.type = DType::kQ4_K, c.glu = glu;
    c.n_expert = 3, c.m = 40, c.live = 37, c.n = 65, c.k = 256;
    check(c);
    c.type = DType::kQ8_0;
    c.n_expert = 60, c.n_used = 4, c.m = 12, c.live = 12, c.n = 8, c.k = 96;
    check(c);
  }
}

TEST_F(Moe, ChunksOfK) {
  MoeCase c;
  c.type = DType::kQ6_K;
  c.m = 9, c.live = 9, c.n = 17, c.k = 8192 + 256;
  check(c);
}

TEST_F(Moe, SeedsAndArchitectures) {
  MoeCase c;
  c.type = DType::kQ4_K;
  c.n_expert = 3, c.m = 12, c.live = 11, c.n = 70, c.k = 512;
  std::vector<float> first_glu, first_down;
  for (const int architecture : {75, 80}) {
    emulated::Options options;
    options.architecture = architecture;
    reset(options);
    MoeRun glu(c), down(c);
    glu.glu();
    down.down();
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      const auto a = glu.run_glu(), b = down.run_down();
      if (first_glu.empty()) first_glu = a, first_down = b;
      ASSERT_EQ(a, first_glu) << "seed " << seed << ", sm_" << architecture;
      ASSERT_EQ(b, first_down) << "seed " << seed << ", sm_" << architecture;
    }
  }
}

TEST_F(Moe, RoutesAreTheSameForEverySeed) {
  std::mt19937_64 rng(seed_of_test());
  for (const int m : {8, 50}) {
    const auto logits = random_floats(rng, static_cast<size_t>(m * 64));
    const Routes first = run_route(logits, m, m, 64, 8, true);
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      emulated::set_seed(seed);
      const Routes r = run_route(logits, m, m, 64, 8, true);
      ASSERT_EQ(r.route, first.route);
      ASSERT_EQ(r.begin, first.begin);
      ASSERT_EQ(r.pair, first.pair);
    }
  }
}

// Rows that a count too large would make, of which there is no memory.
TEST_F(Moe, NoMoreRowsLiveThanThereAre) {
  std::mt19937_64 rng(seed_of_test());
  for (const int m : {3, 9}) {
    const auto logits = random_floats(rng, static_cast<size_t>(m * 16));
    const Routes r = run_route(logits, m, m + 3, 16, 4, true),
                 right = run_route(logits, m, m, 16, 4, true);
    EXPECT_EQ(r.route, right.route);
    EXPECT_EQ(r.begin, right.begin);
    EXPECT_EQ(r.pair, right.pair);
  }
}

TEST_F(Moe, NoRows) {
  EXPECT_EQ(moe_route({}, nullptr), cudaSuccess);
  EXPECT_EQ(moe_glu({}, nullptr), cudaSuccess);
  EXPECT_EQ(moe_down({}, nullptr), cudaSuccess);
}

TEST_F(Moe, NothingAlive) {
  const Routes r = run_route(std::vector<float>(1), 2, 0, 16, 4, true);
  EXPECT_EQ(r.begin, std::vector<int32_t>(17, 0));
  MoeCase c;
  c.type = DType::kQ4_0;
  c.m = 2, c.live = 0, c.n = 5, c.k = 64;
  for (const bool glu : {true, false}) {
    MoeRun run(c);
    const auto out = glu ? run.glu() : run.down();
    EXPECT_EQ(out, std::vector<float>(out.size(), kUntouched));
  }
}

}  // namespace
}  // namespace infer::cuda::test
