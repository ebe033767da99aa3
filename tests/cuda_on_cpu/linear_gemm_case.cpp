#include "tests/cuda_on_cpu/linear_gemm_case.h"

#include <cmath>
#include <cstring>

#include "core/base/half.h"
#include "kernels/cpu/generic/install.h"
#include "kernels/cpu/generic/linear_act.h"
#include "kernels/cpu/table.h"
#include "kernels/cuda/gemm_params.cuh"

namespace infer::cuda::test {

using infer::test::make_inputs;
using infer::test::make_weights;
using infer::test::Reference;
using infer::test::reference_f64;

std::vector<std::byte> rounded_weights(DType type, bool bf16, std::span<const std::byte> file,
                                       int64_t n, int64_t k) {
  if (type == DType::kF16 || bf16) return {file.begin(), file.end()};
  kern::CpuKernels kernels;
  kern::generic::install_linear(kernels);
  const auto decode = kernels.decode_row[static_cast<size_t>(type)];
  const size_t stride = file.size() / static_cast<size_t>(n);
  std::vector<std::byte> out(static_cast<size_t>(2 * n * k));
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t j = 0; j < n; ++j) {
    decode(file.data() + static_cast<size_t>(j) * stride, k, row.data());
    for (int64_t i = 0; i < k; ++i) {
      float v = row[static_cast<size_t>(i)];
      if (type == DType::kBF16) v = std::fmax(-65504.0f, std::fmin(65504.0f, v));
      const uint16_t half = f16_from_f32(v);
      std::memcpy(out.data() + 2 * (j * k + i), &half, 2);
    }
  }
  return out;
}

namespace {

constexpr float kSentinel = -12345.0f;
constexpr double kUlp = 0x1p-23;

struct Bounded {
  double value, error;
};

/// Bias, scale, softcap, with what each step may add to the error. tanhf is within 2 ulp on a GPU.
Bounded scaled(const LinearEpilogue& e, Bounded sum, double bias) {
  Bounded v = {(sum.value + bias) * e.scale,
               (sum.error + kUlp * (std::fabs(sum.value) + std::fabs(bias))) * std::fabs(e.scale)};
  if (e.softcap == 0.0f) return v;
  const double cap = e.softcap, capped = cap * std::tanh(v.value / cap);
  return {capped, v.error + kUlp * (std::fabs(v.value) + 3 * std::fabs(capped))};
}

/// The argument of exp or erfc, rounded a few times, moves the result by its size squared.
Bounded activated(GluKind kind, Bounded v) {
  const double x = v.value;
  double y = 0.0, steps = 0.0;
  switch (kind) {
    case GluKind::kSilu:
      y = x / (1 + std::exp(-x)), steps = 8;
      break;
    case GluKind::kGeluTanh:
      y = x / (1 + std::exp(-1.5957691216057308 * x * (1 + 0.044715 * x * x)));
      steps = 8 + 8 * std::fabs(x) * (1 + 0.044715 * x * x);
      break;
    case GluKind::kGeluErf:
      y = 0.5 * x * std::erfc(-x * 0.70710678118654752), steps = 10 + 4 * x * x;
      break;
  }
  return {y, 1.2 * v.error + kUlp * steps * std::fabs(y) + 0x1p-120};  // |act'| < 1.2
}

}  // namespace

struct GemmProblem::Item {
  std::vector<std::byte> file;
  std::shared_ptr<DeviceArray<std::byte>> weights;
  Matrix matrix;
  std::vector<float> bias;
  std::shared_ptr<DeviceArray<float>> device_bias;
};

GemmProblem::GemmProblem(const GemmCase& c) : case_(c) {
  const GemmShape& s = c.shape;
  std::mt19937_64 rng(c.seed);
  x_ = make_inputs(rng, s.live, s.k, c.inputs);
  make_activations();
  std::normal_distribution<float> dist;
  for (size_t i = 0; i < s.n.size(); ++i) {
    auto item = std::make_shared<Item>();
    const WeightLayout layout = weight_layout(c.types[i]);
    item->file = make_weights(rng, c.types[i], s.n[i], s.k, c.levels, c.scales);
    std::vector<std::byte> packed(
        static_cast<size_t>(plane_offset(layout, layout.n_plane, s.n[i], s.k)));
    repack_rows(layout, item->file.data(), s.n[i], s.k, 0, s.n[i], packed.data());
    item->weights = std::make_shared<DeviceArray<std::byte>>(packed);
    item->matrix = make_matrix(c.types[i], s.n[i], s.k, 1, item->weights->data());
    if (c.bias) {
      item->bias.resize(static_cast<size_t>(s.n[i]));
      for (float& b : item->bias) b = dist(rng);
      item->device_bias = std::make_shared<DeviceArray<float>>(item->bias);
    }
    items_.push_back(item);
  }
  if (c.epilogue.kind == Epilogue::kResidualAdd || c.epilogue.kind == Epilogue::kActMul) {
    residual_ = make_inputs(rng, s.live, s.n[0], infer::test::Inputs::kNormal);
    device_residual_ = std::make_shared<DeviceArray<float>>(residual_);
  }
  n_live_ = std::make_shared<DeviceArray<int32_t>>(std::vector<int32_t>{s.live});
}

void GemmProblem::make_activations() {
  const GemmShape& s = case_.shape;
  seen_.resize(x_.size());
  if (case_.kernel == GemmKernel::kQ8) {
    std::vector<kern::ActBlock> blocks(x_.size() / 32);
    std::vector<int8_t> q(x_.size());
    std::vector<float2> ds(blocks.size());
    kern::generic::prepare_q8(x_.data(), static_cast<int64_t>(s.live) * s.k,
                              reinterpret_cast<std::byte*>(blocks.data()));
    for (size_t i = 0; i < x_.size(); ++i) {
      const kern::ActBlock& b = blocks[i / 32];
      q[i] = b.q[i % 32];
      ds[i / 32] = {b.d, b.s};
      seen_[i] = static_cast<double>(b.d) * b.q[i % 32];
    }
    q_ = std::make_shared<DeviceArray<int8_t>>(q);
    ds_ = std::make_shared<DeviceArray<float2>>(ds);
    return;
  }
  const bool bf16 = case_.types[0] == DType::kBF16 && emulated::options().architecture >= 80;
  std::vector<uint16_t> half(x_.size());
  for (size_t i = 0; i < x_.size(); ++i) {
    half[i] = bf16 ? bf16_from_f32(x_[i]) : f16_from_f32(x_[i]);
    seen_[i] = bf16 ? f32_from_bf16(half[i]) : f32_from_f16(half[i]);
  }
  half_ = std::make_shared<DeviceArray<uint16_t>>(half);
}

std::vector<std::vector<float>> GemmProblem::run() const {
  const GemmShape& s = case_.shape;
  GemmArgs args;
  if (q_) args.q8 = {q_->data(), ds_->data()};
  if (half_) args.half = half_->data();
  args.m = s.m, args.n_live = n_live_->data(), args.epilogue = case_.epilogue;
  if (device_residual_) args.epilogue.residual = device_residual_->data();
  args.items.n = static_cast<int>(items_.size());
  std::vector<std::unique_ptr<DeviceArray<float>>> outs;
  for (size_t i = 0; i < items_.size(); ++i) {
    std::vector<float> before(static_cast<size_t>(s.m) * static_cast<size_t>(s.n[i]), kSentinel);
    if (case_.kernel == GemmKernel::kEpilogueOnly) {  // what a product leaves to do
      const Reference ref = sums(i);
      for (size_t j = 0; j < ref.value.size(); ++j) before[j] = static_cast<float>(ref.value[j]);
    }
    outs.push_back(std::make_unique<DeviceArray<float>>(before));
    const Item& item = *items_[i];
    args.items.item[i] = {item.matrix, item.device_bias ? item.device_bias->data() : nullptr,
                          outs.back()->data()};
  }
  cudaError_t error = cudaSuccess;
  if (case_.kernel == GemmKernel::kQ8) error = linear_gemm_q8(args, nullptr);
  if (case_.kernel == GemmKernel::kHalfChosen) error = linear_gemm_half(args, nullptr);
  if (case_.kernel == GemmKernel::kHalfLarge)
    error = gemm::linear_gemm_half_tiled(args, gemm::HalfTile::kLarge, nullptr);
  if (case_.kernel == GemmKernel::kHalfSmall)
    error = gemm::linear_gemm_half_tiled(args, gemm::HalfTile::kSmall, nullptr);
  if (case_.kernel == GemmKernel::kEpilogueOnly) error = linear_epilogue(args, nullptr);
  EXPECT_EQ(error, cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_THAT(take_reports(), testing::IsEmpty());
  std::vector<std::vector<float>> result;
  for (size_t i = 0; i < items_.size(); ++i) {
    result.push_back(outs[i]->host());
    for (size_t j = static_cast<size_t>(s.live) * static_cast<size_t>(s.n[i]); j < result[i].size();
         ++j)
      if (result[i][j] != kSentinel) {
        ADD_FAILURE() << "wrote row " << j / static_cast<size_t>(s.n[i]) << " of " << s.live;
        break;
      }
  }
  return result;
}

/// Roundings of 2^-24 relative to the sum of magnitudes. q8: three a block of 32 (or of 16) and
/// for its minimum, over half of k and at the end. half: an addition of a tensor core over 8 along
/// k may lose 2^-22.
infer::test::Reference GemmProblem::sums(size_t item) const {
  const GemmShape& s = case_.shape;
  const DType type = case_.types[item];
  const Item& it = *items_[item];
  if (case_.kernel == GemmKernel::kQ8)
    return reference_f64(type, it.file, s.n[item], s.k, seen_, s.live, 4 * (s.k / 64 + 1) + 6);
  const bool bf16 = type == DType::kBF16 && emulated::options().architecture >= 80;
  return reference_f64(bf16 ? DType::kBF16 : DType::kF16,
                       rounded_weights(type, bf16, it.file, s.n[item], s.k), s.n[item], s.k, seen_,
                       s.live, 4 * (s.k / 8 + 2));
}

void GemmProblem::expect_right(const std::vector<std::vector<float>>& out) const {
  const LinearEpilogue& e = case_.epilogue;
  const bool glu = e.kind == Epilogue::kGlu;
  std::vector<Reference> ref;
  for (size_t i = 0; i < items_.size(); ++i) ref.push_back(sums(i));
  for (size_t i = 0; i < (glu ? 1 : items_.size()); ++i) {
    const auto n = static_cast<size_t>(case_.shape.n[i]);
    const auto sum = [&](size_t item, size_t at) {
      const double bias = case_.bias ? items_[item]->bias[at % n] : 0.0;
      return scaled(e, {ref[item].value[at], ref[item].bound[at]}, bias);
    };
    for (size_t at = 0; at < ref[i].value.size(); ++at) {
      Bounded v = sum(i, at);
      if (e.kind == Epilogue::kAct || e.kind == Epilogue::kActMul || glu) v = activated(e.glu, v);
      if (glu) {
        const Bounded up = sum(1, at);
        const double product = v.value * up.value;
        v = {product, v.error * (std::fabs(up.value) + up.error) + std::fabs(v.value) * up.error +
                          kUlp * std::fabs(product)};
      }
      if (e.kind == Epilogue::kActMul) {
        v.value *= residual_[at];
        v.error = v.error * std::fabs(residual_[at]) + kUlp * std::fabs(v.value);
      }
      if (e.kind == Epilogue::kResidualAdd) {
        v.value += residual_[at];
        v.error += kUlp * (std::fabs(v.value) + v.error);
      }
      if (!(std::fabs(out[i][at] - v.value) <= v.error + 0x1p-120)) {
        ADD_FAILURE() << "item " << i << " row " << at / n << " column " << at % n << ": "
                      << out[i][at] << " for " << v.value << " +- " << v.error;
        return;
      }
    }
  }
}

}  // namespace infer::cuda::test
