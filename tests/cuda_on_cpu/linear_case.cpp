#include "tests/cuda_on_cpu/linear_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/half.h"
#include "core/base/quant_blocks.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/generic/linear_act.h"

namespace infer::cuda::test {
namespace {

/// Sums of |weight| * x, where a weight that the kernel takes as level * d - c counts as
/// |level * d| + |c|; x [m, k] not negative.
std::vector<double> magnitudes(const HostMatrix& w, const std::vector<double>& x, int m) {
  auto sums = infer::test::reference_f64(w.type, w.file, w.n, w.k, x, m, 1).bound;
  for (double& sum : sums) sum /= kU;
  const double offset = w.type == DType::kQ4_0 ? 8.0 : w.type == DType::kQ5_0 ? 16.0 : 0.0;
  if (offset == 0.0) return sums;
  // Those two have levels of -offset .. offset - 1 on the CPU: |d (q + offset)| + |d offset| is
  // larger by 2 d offset at most.
  const size_t block_bytes = w.type == DType::kQ4_0 ? sizeof(BlockQ4_0) : sizeof(BlockQ5_0);
  const int n_block = w.k / kBlock32;
  for (int j = 0; j < w.n; ++j) {
    for (int b = 0; b < n_block; ++b) {
      uint16_t half = 0;
      std::memcpy(&half, w.file.data() + static_cast<size_t>(j * n_block + b) * block_bytes, 2);
      const double d = std::fabs(static_cast<double>(f32_from_f16(half)));
      for (int r = 0; r < m; ++r) {
        double sum = 0.0;
        for (int i = 0; i < kBlock32; ++i)
          sum += x[static_cast<size_t>(r * w.k + b * kBlock32 + i)];
        sums[static_cast<size_t>(r * w.n + j)] += 2.0 * offset * d * sum;
      }
    }
  }
  return sums;
}

double activation(GluKind kind, double x) {
  if (kind == GluKind::kSilu) return x / (1.0 + std::exp(-x));
  if (kind == GluKind::kGeluTanh)
    return x / (1.0 + std::exp(-1.5957691216057308 * x * (1.0 + 0.044715 * x * x)));
  return 0.5 * x * std::erfc(-x * 0.70710678118654752);
}

}  // namespace

HostMatrix::HostMatrix(std::mt19937_64& rng, DType t, int n_row, int n_k,
                       infer::test::Levels levels, infer::test::Scales scales)
    : type(t),
      n(n_row),
      k(n_k),
      file(infer::test::make_weights(rng, t, n_row, n_k, levels, scales)) {}

DeviceMatrix::DeviceMatrix(const std::vector<HostMatrix>& experts)
    : bytes_(static_cast<size_t>(plane_offset(weight_layout(experts[0].type),
                                              weight_layout(experts[0].type).n_plane, experts[0].n,
                                              experts[0].k)) *
             experts.size()) {
  const HostMatrix& first = experts[0];
  const WeightLayout layout = weight_layout(first.type);
  const auto bytes = static_cast<size_t>(plane_offset(layout, layout.n_plane, first.n, first.k));
  std::vector<std::byte> all(bytes * experts.size());
  for (size_t e = 0; e < experts.size(); ++e)
    repack_rows(layout, experts[e].file.data(), first.n, first.k, 0, first.n,
                all.data() + e * bytes);
  EXPECT_EQ(cudaMemcpy(bytes_.data(), all.data(), all.size(), cudaMemcpyHostToDevice), cudaSuccess);
  matrix_ = make_matrix(first.type, first.n, first.k, static_cast<int64_t>(experts.size()),
                        bytes_.data());
}

HostNorm::HostNorm(std::mt19937_64& rng, NormKind norm_kind, int k) : kind(norm_kind) {
  if (kind == NormKind::kNone) return;
  weight = random_floats(rng, static_cast<size_t>(k));
  if (kind == NormKind::kLayer) bias = random_floats(rng, static_cast<size_t>(k));
}

Bounded normalised(const HostNorm& norm, const std::vector<float>& x, int m, int k) {
  Bounded out = {{x.begin(), x.end()}, std::vector<double>(x.size())};
  if (norm.kind == NormKind::kNone) return out;
  const bool layer = norm.kind == NormKind::kLayer;
  // A sum of k terms by 256 threads, 4 neighbours at a time, 5 levels of a warp, 8 warps.
  const double chain = std::ceil(k / 1024.0) * 4 + 5 + 8;
  for (int r = 0; r < m; ++r) {
    double sum = 0.0, magnitude = 0.0, sum_sq = 0.0;
    for (int i = 0; i < k; ++i) {
      const double v = x[static_cast<size_t>(r * k + i)];
      sum += v;
      magnitude += std::fabs(v);
    }
    const double mean = layer ? sum / k : 0.0;
    const double mean_error = layer ? (chain + 2) * kU * magnitude / k : 0.0;
    for (int i = 0; i < k; ++i) {
      const double v = x[static_cast<size_t>(r * k + i)] - mean;
      sum_sq += v * v;
    }
    const double variance = sum_sq / k + norm.eps, factor = 1.0 / std::sqrt(variance);
    // Halved by the root; then the root, the division, and the differences' own roundings.
    const double factor_error = ((chain + 5) / 2 + 3) * kU + mean_error * mean_error / variance;
    for (int i = 0; i < k; ++i) {
      const auto at = static_cast<size_t>(r * k + i);
      const double w = norm.weight.empty() ? 1.0 : norm.weight[static_cast<size_t>(i)];
      const double b = norm.bias.empty() ? 0.0 : norm.bias[static_cast<size_t>(i)];
      const double product = (x[at] - mean) * factor * w;
      out.value[at] = product + b;
      out.bound[at] = std::fabs(factor * w) * (mean_error + kU * std::fabs(x[at] - mean)) +
                      std::fabs(product) * (factor_error + 3 * kU) + kU * std::fabs(out.value[at]) +
                      0x1p-126;
      out.bound[at] *= 1.01;  // second order
    }
  }
  return out;
}

Bounded rounded_q8(const Bounded& x, int m, int k) {
  Bounded out = {std::vector<double>(x.value.size()), std::vector<double>(x.value.size())};
  for (int block = 0; block < m * k / 32; ++block) {
    const size_t begin = static_cast<size_t>(block) * 32;
    float values[32];
    double max = 0.0, max_error = 0.0;
    for (size_t i = 0; i < 32; ++i) {
      values[i] = static_cast<float>(x.value[begin + i]);
      const double error = x.bound[begin + i];
      max = std::max(max, std::fabs(x.value[begin + i]));
      max_error =
          std::max(max_error, error == 0.0 ? 0.0 : error + kU * std::fabs(x.value[begin + i]));
    }
    kern::ActBlock act;
    kern::generic::prepare_q8(values, 32, reinterpret_cast<std::byte*>(&act));
    for (size_t i = 0; i < 32; ++i) {
      const double d = act.d;
      out.value[begin + i] = d * act.q[i];
      if (max_error == 0.0 || max == 0.0) continue;  // every kernel rounds the same
      const double level = values[i] * 127.0 / max, relative = max_error / max;
      const double level_error = 127.0 * relative + std::fabs(level) * (relative + 4 * kU);
      const double to_border = std::fabs(std::fabs(level - std::floor(level)) - 0.5);
      out.bound[begin + i] = std::fabs(out.value[begin + i]) * (relative + 2 * kU) +
                             (to_border <= level_error ? 1.01 * d : 0.0);
    }
  }
  return out;
}

Bounded product(const HostMatrix& w, const Bounded& x, int m, double steps) {
  Bounded out;
  out.value = infer::test::reference_f64(w.type, w.file, w.n, w.k, x.value, m, 1).value;
  std::vector<double> size(x.value.size());
  for (size_t i = 0; i < size.size(); ++i) size[i] = std::fabs(x.value[i]) + x.bound[i];
  const auto rounding = magnitudes(w, size, m), inexact = magnitudes(w, x.bound, m);
  out.bound.resize(out.value.size());
  for (size_t i = 0; i < out.bound.size(); ++i)
    out.bound[i] = 1.001 * steps * kU * rounding[i] + inexact[i];
  return out;
}

/// A lane adds, a unit, one product (two where there is an offset) for each of its groups or, with
/// f32, one for each weight; then five levels of the butterfly. Products of three factors, one of
/// which was rounded before, and an offset that was.
double gemv_steps(DType type, int k, bool f32) {
  const bool float_type = weight_layout(type).block_len == 1;
  const int unit = float_type                                     ? (type == DType::kF32 ? 4 : 8)
                   : type == DType::kQ8_0                         ? 16
                   : type == DType::kQ2_K || type == DType::kQ3_K ? 64
                                                                  : 32;
  const int units = (k + unit - 1) / unit;
  const int lanes = units >= 64 ? 32 : units >= 32 ? 16 : 8;
  const int of_unit = f32 || float_type ? unit : unit == 64 ? 8 : 3;
  return of_unit * ((units + lanes - 1) / lanes) + 5 + 4;
}

Bounded scaled(const LinearEpilogue& e, const Bounded& v, const std::vector<float>& bias) {
  Bounded out = v;
  for (size_t i = 0; i < v.value.size(); ++i) {
    double sum = v.value[i], error = v.bound[i];
    if (!bias.empty()) {
      sum += bias[i % bias.size()];
      error += kU * std::fabs(sum);
    }
    sum *= e.scale;
    error = error * std::fabs(e.scale) + kU * std::fabs(sum);
    if (e.softcap != 0.0f) {  // slope at most 1; a division, tanh within 2 ulp, a product
      sum = e.softcap * std::tanh(sum / e.softcap);
      error += 8 * kU * std::fabs(sum);
    }
    out.value[i] = sum;
    out.bound[i] = 1.001 * error;
  }
  return out;
}

/// Slopes are at most 1.13. exp and erfc are within 2 and 4 ulp; their arguments have up to six
/// roundings, which move sigmoid by at most 0.23 of that and erfc by 0.5.
Bounded activated(GluKind kind, const Bounded& v) {
  Bounded out = v;
  for (size_t i = 0; i < v.value.size(); ++i) {
    out.value[i] = activation(kind, v.value[i]);
    out.bound[i] = 1.13 * v.bound[i] +
                   kU * (12 * std::fabs(out.value[i]) + 4 * std::fabs(v.value[i])) + 0x1p-120;
  }
  return out;
}

Bounded multiplied(const Bounded& a, const Bounded& b) {
  Bounded out = a;
  for (size_t i = 0; i < a.value.size(); ++i) {
    out.value[i] = a.value[i] * b.value[i];
    out.bound[i] = std::fabs(a.value[i]) * b.bound[i] + a.bound[i] * std::fabs(b.value[i]) +
                   a.bound[i] * b.bound[i] + 1.001 * kU * std::fabs(out.value[i]) + 0x1p-126;
  }
  return out;
}

Bounded added(const Bounded& a, const std::vector<float>& b) {
  Bounded out = a;
  for (size_t i = 0; i < a.value.size(); ++i) {
    out.value[i] += b[i];
    out.bound[i] += 1.001 * kU * (std::fabs(out.value[i]) + a.bound[i]);
  }
  return out;
}

void expect_near(const std::vector<float>& out, const Bounded& expected, float untouched,
                 const std::string& what) {
  double worst = 0.0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (i >= expected.value.size()) {
      ASSERT_EQ(out[i], untouched) << what << ": written beyond the live rows, at " << i;
      continue;
    }
    const double error = std::fabs(out[i] - expected.value[i]);
    ASSERT_FALSE(!(error <= expected.bound[i]))
        << what << ": output " << i << " is " << out[i] << ", not " << expected.value[i] << " +- "
        << expected.bound[i];
    worst = std::max(worst, error / expected.bound[i]);
  }
  testing::Test::RecordProperty("worst", std::to_string(worst));
}

std::vector<float> random_floats(std::mt19937_64& rng, size_t n, float scale) {
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& v : out) v = normal(rng) * scale;
  return out;
}

}  // namespace infer::cuda::test
