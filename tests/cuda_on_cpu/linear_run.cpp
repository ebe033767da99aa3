#include "tests/cuda_on_cpu/linear_run.h"

#include "core/base/quant_types.h"

namespace infer::cuda::test {
namespace {

constexpr float kUntouched = -12345.0f;

/// Steps of the tile kernel (kernels/cuda/linear_tile.cu): k in sequence, an offset of weights.
double tile_steps(int k) { return k + 4.0; }

}  // namespace

struct LinearRun::Impl {
  LinearCase c;
  std::mt19937_64 rng{infer::test::seed_of_test()};
  std::vector<HostMatrix> w;
  std::vector<std::unique_ptr<DeviceMatrix>> device_w;
  std::vector<std::vector<float>> bias;
  std::vector<std::unique_ptr<DeviceArray<float>>> device_bias;
  std::vector<float> x, residual;
  HostNorm norm;
  std::unique_ptr<DeviceArray<float>> device_x, device_residual, norm_weight, norm_bias;
  std::unique_ptr<DeviceArray<int32_t>> n_live;
};

LinearRun::LinearRun(const LinearCase& c) : impl_(new Impl) {
  Impl& s = *impl_;
  s.c = c;
  const auto on_device = [](const std::vector<float>& v) {
    return v.empty() ? nullptr : std::make_unique<DeviceArray<float>>(v);
  };
  for (const auto& item : c.items) {
    s.w.emplace_back(s.rng, item.type, item.n, c.k, c.levels, c.scales);
    s.device_w.push_back(std::make_unique<DeviceMatrix>(std::vector{s.w.back()}));
    s.bias.push_back(item.bias ? random_floats(s.rng, static_cast<size_t>(item.n))
                               : std::vector<float>());
    s.device_bias.push_back(on_device(s.bias.back()));
  }
  s.x = random_floats(s.rng, static_cast<size_t>(c.live * c.k), c.x_scale);
  s.norm = HostNorm(s.rng, c.norm, c.k);
  if (c.epilogue.kind == Epilogue::kResidualAdd || c.epilogue.kind == Epilogue::kActMul)
    s.residual = random_floats(s.rng, static_cast<size_t>(c.live * c.items[0].n));
  s.device_x = on_device(s.x);
  s.device_residual = on_device(s.residual);
  s.norm_weight = on_device(s.norm.weight);
  s.norm_bias = on_device(s.norm.bias);
  s.n_live = std::make_unique<DeviceArray<int32_t>>(std::vector<int32_t>{c.live});
}
LinearRun::~LinearRun() = default;

std::string LinearRun::name() const {
  const LinearCase& c = impl_->c;
  std::string items;
  for (const auto& item : c.items)
    items += std::string(name_of(item.type)) + "[" + std::to_string(item.n) + "] ";
  return items + "k " + std::to_string(c.k) + " m " + std::to_string(c.m) + " live " +
         std::to_string(c.live);
}

void LinearRun::set_x(int row, float value) {
  const auto k = static_cast<size_t>(impl_->c.k);
  const std::vector<float> values(k, value);
  EXPECT_EQ(cudaMemcpy(impl_->device_x->data() + static_cast<size_t>(row) * k, values.data(), 4 * k,
                       cudaMemcpyHostToDevice),
            cudaSuccess);
}

std::vector<std::vector<float>> LinearRun::run(Kernel kernel) const {
  const Impl& s = *impl_;
  const LinearCase& c = s.c;
  const size_t n_out = c.epilogue.kind == Epilogue::kGlu ? 1 : c.items.size();
  std::vector<std::unique_ptr<DeviceArray<float>>> out;
  LinearItems items;
  items.n = static_cast<int>(c.items.size());
  for (size_t i = 0; i < c.items.size(); ++i) {
    LinearItem& item = items.item[i];
    item.w = s.device_w[i]->get();
    item.bias = s.device_bias[i] ? s.device_bias[i]->data() : nullptr;
    if (i >= n_out) continue;
    // Exactly as many rows as are alive would be enough; those above have to stay as they are.
    out.push_back(std::make_unique<DeviceArray<float>>(
        std::vector<float>(static_cast<size_t>(c.m * c.items[i].n), kUntouched)));
    item.out = out.back()->data();
  }
  LinearEpilogue epilogue = c.epilogue;
  if (s.device_residual) epilogue.residual = s.device_residual->data();
  cudaError_t error = cudaSuccess;
  if (kernel == Kernel::kGemv) {
    GemvArgs args;
    args.x = s.device_x ? s.device_x->data() : nullptr, args.m = c.m;
    args.n_live = s.n_live->data();
    args.items = items, args.epilogue = epilogue;
    args.norm.kind = s.norm.kind, args.norm.eps = s.norm.eps;
    args.norm.weight = s.norm_weight ? s.norm_weight->data() : nullptr;
    args.norm.bias = s.norm_bias ? s.norm_bias->data() : nullptr;
    error = linear_gemv(args, nullptr);
  } else {
    LinearF32Args args;
    args.x = s.device_x ? s.device_x->data() : nullptr, args.m = c.m;
    args.n_live = s.n_live->data();
    args.items = items, args.epilogue = epilogue;
    error = linear_f32(args, nullptr);
  }
  EXPECT_EQ(error, cudaSuccess) << name();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << name();
  for (const std::string& report : take_reports()) ADD_FAILURE() << name() << ": " << report;
  std::vector<std::vector<float>> host;
  for (const auto& o : out) host.push_back(o->host());
  return host;
}

std::vector<Bounded> LinearRun::reference(Kernel kernel) const {
  const Impl& s = *impl_;
  const LinearCase& c = s.c;
  const Bounded y = normalised(s.norm, s.x, c.live, c.k);
  std::vector<Bounded> out;
  for (size_t i = 0; i < s.w.size(); ++i) {
    const DType type = s.w[i].type;
    const bool f32 = kernel == Kernel::kF32 || weight_layout(type).block_len == 1;
    const double steps =
        kernel == Kernel::kF32 && c.m > kGemvRows ? tile_steps(c.k) : gemv_steps(type, c.k, f32);
    const Bounded seen = f32 ? y : rounded_q8(y, c.live, c.k);
    out.push_back(scaled(c.epilogue, product(s.w[i], seen, c.live, steps), s.bias[i]));
  }
  const LinearEpilogue& e = c.epilogue;
  if (e.kind == Epilogue::kGlu) return {multiplied(activated(e.glu, out[0]), out[1])};
  for (Bounded& o : out) {
    if (e.kind == Epilogue::kAct) o = activated(e.glu, o);
    if (e.kind == Epilogue::kActMul)
      o = multiplied(activated(e.glu, o), {{s.residual.begin(), s.residual.end()},
                                           std::vector<double>(s.residual.size())});
    if (e.kind == Epilogue::kResidualAdd) o = added(o, s.residual);
  }
  return out;
}

void LinearRun::check(Kernel kernel) const {
  const auto out = run(kernel);
  const auto expected = reference(kernel);
  ASSERT_EQ(out.size(), expected.size());
  for (size_t i = 0; i < out.size(); ++i)
    expect_near(out[i], expected[i], kUntouched, name() + " item " + std::to_string(i));
}

void LinearRun::check_wrong_live_rows(Kernel kernel) const {
  const auto set_n_live = [&](int n) {
    EXPECT_EQ(cudaMemcpy(impl_->n_live->data(), &n, sizeof(n), cudaMemcpyHostToDevice),
              cudaSuccess);
  };
  for (const int n_live : {impl_->c.m + 1, 1 << 30}) {
    set_n_live(n_live);
    check(kernel);
  }
  set_n_live(-1);
  for (const auto& out : run(kernel)) {
    for (const float v : out) EXPECT_EQ(v, kUntouched);
  }
  set_n_live(impl_->c.live);
}

}  // namespace infer::cuda::test
