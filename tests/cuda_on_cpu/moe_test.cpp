#include "kernels/cuda/moe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "core/base/quant_types.h"
#include "tests/cuda_on_cpu/linear_case.h"

namespace infer::cuda::test {
namespace {

using infer::test::seed_of_test;

constexpr float kUntouched = -12345.0f;

class Moe : public Emulated {};

// --- Routing
// ----------------------------------------------------------------------------------------

struct Routes {
  std::vector<float> route;
  std::vector<int32_t> begin, pair;
};

Routes run_route(const std::vector<float>& logits, int m, int live, int n_expert, int n_used,
                 bool normalise) {
  const DeviceArray<float> device_logits(logits),
      route(std::vector<float>(static_cast<size_t>(m * 2 * n_used), kUntouched));
  const DeviceArray<int32_t> n_live(std::vector<int32_t>{live}),
      begin(static_cast<size_t>(n_expert + 1)),
      pair(std::vector<int32_t>(static_cast<size_t>(m * n_used), -1));
  MoeRouteArgs args;
  args.logits = device_logits.data(), args.m = m, args.n_live = n_live.data();
  args.n_expert = n_expert, args.n_used = n_used, args.normalise = normalise;
  args.route = route.data(), args.pairs = {begin.data(), pair.data()};
  EXPECT_EQ(moe_route(args, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (const std::string& report : take_reports()) ADD_FAILURE() << report;
  return {route.host(), begin.host(), pair.host()};
}

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
// ---------------------------------------------------------------------------------------

struct MoeCase {
  DType type = DType::kF32;
  int n_expert = 4, n_used = 2, m = 1, live = 1, n = 0, k = 0;
  bool precise = false;
  GluKind glu = GluKind::kSilu;
};

/// Routes are random; so a row may go to any experts, some of which nobody wants.
class MoeRun {
 public:
  explicit MoeRun(const MoeCase& c) : c_(c), rng_(seed_of_test()) {
    for (int e = 0; e < c.n_expert; ++e)
      for (auto* matrices : {&gate_, &up_}) matrices->emplace_back(rng_, c.type, c.n, c.k);
    device_gate_ = std::make_unique<DeviceMatrix>(gate_);
    device_up_ = std::make_unique<DeviceMatrix>(up_);
    logits_ = random_floats(rng_, static_cast<size_t>(c.live * c.n_expert));
    for (int row = 0; row < c.live; ++row) logits_[static_cast<size_t>(row * c.n_expert)] = -20.0f;
    r_ = run_route(logits_, c.m, c.live, c.n_expert, c.n_used, true);
    route_ = std::make_unique<DeviceArray<float>>(r_.route);
    begin_ = std::make_unique<DeviceArray<int32_t>>(r_.begin);
    pair_ = std::make_unique<DeviceArray<int32_t>>(r_.pair);
    n_live_ = std::make_unique<DeviceArray<int32_t>>(std::vector<int32_t>{c.live});
  }

  std::vector<float> glu() {
    const MoeCase& c = c_;
    x_ = random_floats(rng_, static_cast<size_t>(c.live * c.k));
    device_x_ = std::make_unique<DeviceArray<float>>(x_);
    return run_glu();
  }
  std::vector<float> run_glu() const {
    const MoeCase& c = c_;
    const DeviceArray<float> h(
        std::vector<float>(static_cast<size_t>(c.m * c.n_used * c.n), kUntouched));
    MoeGluArgs args;
    args.x = device_x_->data(), args.m = c.m, args.n_used = c.n_used;
    args.n_live = n_live_->data(), args.gate = device_gate_->get(), args.up = device_up_->get();
    args.glu = c.glu, args.pairs = {begin_->data(), pair_->data()}, args.h = h.data();
    args.precise = c.precise;
    finish(moe_glu(args, nullptr));
    return h.host();
  }
  Bounded glu_reference() const {
    const MoeCase& c = c_;
    const Bounded x = seen(x_, c.live, c.k);
    Bounded out;
    for (int pair = 0; pair < c.live * c.n_used; ++pair) {
      const Bounded row = row_of(x, pair / c.n_used);
      const auto e = static_cast<size_t>(expert_of(pair));
      const double steps = gemv_steps(c.type, c.k, c.precise);
      const Bounded gate = scaled({}, product(gate_[e], row, 1, steps), {});
      const Bounded up = scaled({}, product(up_[e], row, 1, steps), {});
      append(out, multiplied(activated(c.glu, gate), up));
    }
    return out;
  }

  std::vector<float> down() {
    const MoeCase& c = c_;
    x_ = random_floats(rng_, static_cast<size_t>(c.live * c.n_used * c.k));
    residual_ = random_floats(rng_, static_cast<size_t>(c.live * c.n));
    device_x_ = std::make_unique<DeviceArray<float>>(x_);
    device_residual_ = std::make_unique<DeviceArray<float>>(residual_);
    return run_down();
  }
  std::vector<float> run_down() const {
    const MoeCase& c = c_;
    const DeviceArray<float> out(std::vector<float>(static_cast<size_t>(c.m * c.n), kUntouched)),
        scratch(static_cast<size_t>(c.m * c.n_used * c.n));
    MoeDownArgs args;
    args.h = device_x_->data(), args.m = c.m, args.n_used = c.n_used;
    args.n_live = n_live_->data(), args.down = device_gate_->get();
    args.pairs = {begin_->data(), pair_->data()}, args.route = route_->data();
    args.residual = device_residual_->data(), args.scratch = scratch.data(), args.out = out.data();
    args.precise = c.precise;
    finish(moe_down(args, nullptr));
    return out.host();
  }
  Bounded down_reference() const {
    const MoeCase& c = c_;
    const Bounded x = seen(x_, c.live * c.n_used, c.k);
    Bounded out;
    for (int row = 0; row < c.live; ++row) {
      Bounded sum = {std::vector<double>(static_cast<size_t>(c.n)),
                     std::vector<double>(static_cast<size_t>(c.n))};
      for (int j = 0; j < c.n_used; ++j) {
        const int pair = row * c.n_used + j;
        const double weight = r_.route[static_cast<size_t>(row * 2 * c.n_used + c.n_used + j)];
        const Bounded y = product(gate_[static_cast<size_t>(expert_of(pair))], row_of(x, pair), 1,
                                  gemv_steps(c.type, c.k, c.precise));
        for (size_t i = 0; i < y.value.size(); ++i) {
          sum.value[i] += weight * y.value[i];
          // Rounded to f32, and a product and a sum of each of the others.
          sum.bound[i] += weight * (y.bound[i] + (c.n_used + 1) * kU * std::fabs(y.value[i]));
        }
      }
      append(out, added(sum, {residual_.begin() + row * c.n, residual_.begin() + (row + 1) * c.n}));
    }
    return out;
  }

  std::string name() const {
    return std::string(name_of(c_.type)) + " experts " + std::to_string(c_.n_expert) + " used " +
           std::to_string(c_.n_used) + " m " + std::to_string(c_.m) + " n " + std::to_string(c_.n) +
           " k " + std::to_string(c_.k);
  }

 private:
  static void append(Bounded& to, const Bounded& more) {
    to.value.insert(to.value.end(), more.value.begin(), more.value.end());
    to.bound.insert(to.bound.end(), more.bound.begin(), more.bound.end());
  }
  void finish(cudaError_t error) const {
    EXPECT_EQ(error, cudaSuccess) << name();
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << name();
    for (const std::string& report : take_reports()) ADD_FAILURE() << name() << ": " << report;
  }
  Bounded seen(const std::vector<float>& x, int m, int k) const {
    const Bounded y = normalised({}, x, m, k);
    return c_.precise || weight_layout(c_.type).block_len == 1 ? y : rounded_q8(y, m, k);
  }
  Bounded row_of(const Bounded& x, int row) const {
    const auto cut = [&](const std::vector<double>& v) {
      return std::vector<double>(v.begin() + row * c_.k, v.begin() + (row + 1) * c_.k);
    };
    return {cut(x.value), cut(x.bound)};
  }
  int expert_of(int pair) const {
    return static_cast<int>(
        r_.route[static_cast<size_t>(pair / c_.n_used * 2 * c_.n_used + pair % c_.n_used)]);
  }

  MoeCase c_;
  std::mt19937_64 rng_;
  std::vector<HostMatrix> gate_, up_;
  std::unique_ptr<DeviceMatrix> device_gate_, device_up_;
  std::vector<float> logits_, x_, residual_;
  Routes r_;
  std::unique_ptr<DeviceArray<float>> route_, device_x_, device_residual_;
  std::unique_ptr<DeviceArray<int32_t>> begin_, pair_, n_live_;
};

void check(const MoeCase& c) {
  MoeRun run(c);
  auto out = run.glu();
  expect_near(out, run.glu_reference(), kUntouched, "glu " + run.name());
  out = run.down();
  expect_near(out, run.down_reference(), kUntouched, "down " + run.name());
}

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
