#include "tests/cuda_on_cpu/moe_case.h"

#include <algorithm>
#include <cmath>

#include "core/base/half.h"
#include "core/base/quant_types.h"
#include "tests/cuda_on_cpu/linear_gemm_case.h"

namespace infer::cuda::test {

using infer::test::seed_of_test;

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

namespace {

void append(Bounded& to, const Bounded& more) {
  to.value.insert(to.value.end(), more.value.begin(), more.value.end());
  to.bound.insert(to.bound.end(), more.bound.begin(), more.bound.end());
}

}  // namespace

/// Prepared activations, and what holds them.
struct MoeRun::Act {
  std::unique_ptr<DeviceArray<int8_t>> q;
  std::unique_ptr<DeviceArray<float2>> ds;
  std::unique_ptr<DeviceArray<uint16_t>> half;
  ExpertAct get() const {
    ExpertAct act;
    if (q) act.q8 = {q->data(), ds->data()};
    if (half) act.half = half->data();
    return act;
  }
};

MoeRun::MoeRun(const MoeCase& c) : c_(c), rng_(seed_of_test()) {
  bf16_ = c.type == DType::kBF16 && emulated::options().architecture >= 80;
  for (int e = 0; e < c.n_expert; ++e)
    for (auto* matrices : {&gate_, &up_}) matrices->emplace_back(rng_, c.type, c.n, c.k);
  device_gate_ = std::make_unique<DeviceMatrix>(gate_);
  device_up_ = std::make_unique<DeviceMatrix>(up_);
  logits_ = chosen_logits();
  r_ = run_route(logits_, c.m, c.live, c.n_expert, c.n_used, true);
  route_ = std::make_unique<DeviceArray<float>>(r_.route);
  begin_ = std::make_unique<DeviceArray<int32_t>>(r_.begin);
  pair_ = std::make_unique<DeviceArray<int32_t>>(r_.pair);
  n_live_ = std::make_unique<DeviceArray<int32_t>>(std::vector<int32_t>{c.live});
}

std::vector<float> MoeRun::chosen_logits() {
  const MoeCase& c = c_;
  auto logits = random_floats(rng_, static_cast<size_t>(c.live * c.n_expert));
  std::vector<int> expert;
  for (size_t e = 0; e < c.rows.size(); ++e)
    expert.insert(expert.end(), static_cast<size_t>(c.rows[e]), static_cast<int>(e));
  std::shuffle(expert.begin(), expert.end(), rng_);
  for (int row = 0; row < c.live; ++row) {
    float* of_row = logits.data() + row * c.n_expert;
    if (expert.empty())
      of_row[0] = -20.0f;
    else
      of_row[expert[static_cast<size_t>(row)]] = 20.0f;
  }
  return logits;
}

MoeRun::Act MoeRun::prepare(int m, int live, const int32_t* n_live) const {
  Act act;
  if (c_.kernel == MoeKernel::kGemv) return act;
  PrepareArgs args;
  args.x = device_x_->data(), args.m = m, args.k = c_.k, args.n_live = n_live;
  const auto n = static_cast<size_t>(live * c_.k);
  if (c_.kernel == MoeKernel::kQ8) {
    act.q = std::make_unique<DeviceArray<int8_t>>(n);
    act.ds = std::make_unique<DeviceArray<float2>>(n / 32);
    args.q8 = {act.q->data(), act.ds->data()};
  } else {
    act.half = std::make_unique<DeviceArray<uint16_t>>(n);
    (bf16_ ? args.bf16 : args.f16) = act.half->data();
  }
  EXPECT_EQ(prepare_act(args, nullptr), cudaSuccess);
  return act;
}

std::vector<float> MoeRun::glu() {
  const MoeCase& c = c_;
  x_ = random_floats(rng_, static_cast<size_t>(c.live * c.k));
  device_x_ = std::make_unique<DeviceArray<float>>(x_);
  return run_glu();
}

std::vector<float> MoeRun::run_glu() const {
  const MoeCase& c = c_;
  const DeviceArray<float> h(
      std::vector<float>(static_cast<size_t>(c.m * c.n_used * c.n), kUntouched));
  MoeGluArgs args;
  args.x = device_x_->data(), args.m = c.m, args.n_used = c.n_used;
  args.n_live = n_live_->data(), args.gate = device_gate_->get(), args.up = device_up_->get();
  args.glu = c.glu, args.pairs = {begin_->data(), pair_->data()}, args.h = h.data();
  args.precise = c.precise;
  const Act act = prepare(c.m, c.live, n_live_->data());
  args.act = act.get();
  finish(moe_glu(args, nullptr));
  return h.host();
}

Bounded MoeRun::glu_reference() const {
  const MoeCase& c = c_;
  const Bounded x = seen(x_, c.live, c.k);
  Bounded out;
  for (int pair = 0; pair < c.live * c.n_used; ++pair) {
    const Bounded row = row_of(x, pair / c.n_used);
    const auto e = static_cast<size_t>(expert_of(pair));
    const Bounded gate = scaled({}, product_of(gate_[e], row), {});
    const Bounded up = scaled({}, product_of(up_[e], row), {});
    append(out, multiplied(activated(c.glu, gate), up));
  }
  return out;
}

std::vector<float> MoeRun::down() {
  const MoeCase& c = c_;
  x_ = random_floats(rng_, static_cast<size_t>(c.live * c.n_used * c.k));
  residual_ = random_floats(rng_, static_cast<size_t>(c.live * c.n));
  device_x_ = std::make_unique<DeviceArray<float>>(x_);
  device_residual_ = std::make_unique<DeviceArray<float>>(residual_);
  return run_down();
}

std::vector<float> MoeRun::run_down() const {
  const MoeCase& c = c_;
  const DeviceArray<float> out(std::vector<float>(static_cast<size_t>(c.m * c.n), kUntouched)),
      scratch(static_cast<size_t>(c.m * c.n_used * c.n));
  MoeDownArgs args;
  args.h = device_x_->data(), args.m = c.m, args.n_used = c.n_used;
  args.n_live = n_live_->data(), args.down = device_gate_->get();
  args.pairs = {begin_->data(), pair_->data()}, args.route = route_->data();
  args.residual = device_residual_->data(), args.scratch = scratch.data(), args.out = out.data();
  args.precise = c.precise;
  const Act act = prepare(c.m * c.n_used, c.live * c.n_used, begin_->data() + c.n_expert);
  args.act = act.get();
  finish(moe_down(args, nullptr));
  return out.host();
}

Bounded MoeRun::down_reference() const {
  const MoeCase& c = c_;
  const Bounded x = seen(x_, c.live * c.n_used, c.k);
  Bounded out;
  for (int row = 0; row < c.live; ++row) {
    Bounded sum = {std::vector<double>(static_cast<size_t>(c.n)),
                   std::vector<double>(static_cast<size_t>(c.n))};
    for (int j = 0; j < c.n_used; ++j) {
      const int pair = row * c.n_used + j;
      const double weight = r_.route[static_cast<size_t>(row * 2 * c.n_used + c.n_used + j)];
      const Bounded y = product_of(gate_[static_cast<size_t>(expert_of(pair))], row_of(x, pair));
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

std::string MoeRun::name() const {
  return std::string(name_of(c_.type)) + " experts " + std::to_string(c_.n_expert) + " used " +
         std::to_string(c_.n_used) + " m " + std::to_string(c_.m) + " n " + std::to_string(c_.n) +
         " k " + std::to_string(c_.k);
}

void MoeRun::finish(cudaError_t error) const {
  EXPECT_EQ(error, cudaSuccess) << name();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << name();
  for (const std::string& report : take_reports()) ADD_FAILURE() << name() << ": " << report;
}

Bounded MoeRun::seen(const std::vector<float>& x, int m, int k) const {
  Bounded y = normalised({}, x, m, k);
  if (c_.kernel == MoeKernel::kHalf) {
    for (double& v : y.value) {
      const auto f = static_cast<float>(v);
      v = bf16_ ? f32_from_bf16(bf16_from_f32(f)) : f32_from_f16(f16_from_f32(f));
    }
    return y;
  }
  return c_.precise || weight_layout(c_.type).block_len == 1 ? y : rounded_q8(y, m, k);
}

/// Roundings of the tensor cores' kernels: as GemmProblem::sums.
Bounded MoeRun::product_of(const HostMatrix& w, const Bounded& row) const {
  if (c_.kernel == MoeKernel::kGemv)
    return product(w, row, 1, gemv_steps(c_.type, c_.k, c_.precise));
  if (c_.kernel == MoeKernel::kQ8) return product(w, row, 1, 4 * (c_.k / 64 + 1) + 6);
  HostMatrix half = w;
  half.file = rounded_weights(w.type, bf16_, w.file, w.n, w.k);
  half.type = bf16_ ? DType::kBF16 : DType::kF16;
  return product(half, row, 1, 4 * (c_.k / 8 + 2));
}

Bounded MoeRun::row_of(const Bounded& x, int row) const {
  const auto cut = [&](const std::vector<double>& v) {
    return std::vector<double>(v.begin() + row * c_.k, v.begin() + (row + 1) * c_.k);
  };
  return {cut(x.value), cut(x.bound)};
}

int MoeRun::expert_of(int pair) const {
  return static_cast<int>(
      r_.route[static_cast<size_t>(pair / c_.n_used * 2 * c_.n_used + pair % c_.n_used)]);
}

void check(const MoeCase& c) {
  MoeRun run(c);
  auto out = run.glu();
  expect_near(out, run.glu_reference(), kUntouched, "glu " + run.name());
  out = run.down();
  expect_near(out, run.down_reference(), kUntouched, "down " + run.name());
}

}  // namespace infer::cuda::test
