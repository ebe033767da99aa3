#include "tests/ops/linear_support.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "core/base/half.h"
#include "core/base/quant_blocks.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/generic/decode_row.h"
#include "kernels/cpu/generic/linear_act.h"

namespace infer::test {
namespace {

constexpr float kSentinel = -12345.0f;

uint16_t half_scale(std::mt19937_64& rng, Scales scales) {
  const uint16_t sign = (rng() & 1) != 0 ? 0x8000 : 0;
  if (scales == Scales::kLargest) return static_cast<uint16_t>(0x7bff | sign);
  if (scales == Scales::kSubnormal) return static_cast<uint16_t>(1 + rng() % 3) | sign;
  return f16_from_f32(std::uniform_real_distribution<float>(-0.02f, 0.02f)(rng));
}

template <class Block>
void set_halves(Block& b, std::mt19937_64& rng, Scales scales) {
  b.d = half_scale(rng, scales);
  if constexpr (requires { b.m; }) b.m = half_scale(rng, scales);
  if constexpr (requires { b.dmin; }) b.dmin = half_scale(rng, scales);
}

template <class Block>
void fill(std::vector<std::byte>& file, std::mt19937_64& rng, Levels levels, Scales scales) {
  for (size_t at = 0; at < file.size(); at += sizeof(Block)) {
    Block b;
    auto* bytes = reinterpret_cast<uint8_t*>(&b);
    for (size_t i = 0; i < sizeof(Block); ++i) {
      const uint8_t fixed = levels == Levels::kAllOnes    ? 0xff
                            : levels == Levels::kSignBits ? 0x80
                                                          : 0;
      bytes[i] = levels == Levels::kRandom ? static_cast<uint8_t>(rng()) : fixed;
    }
    set_halves(b, rng, scales);
    std::memcpy(file.data() + at, &b, sizeof(Block));
  }
}

void fill_float(std::vector<std::byte>& file, DType type, std::mt19937_64& rng, Scales scales) {
  std::normal_distribution<float> dist;
  const float factor = scales == Scales::kLargest     ? 2000.0f
                       : scales == Scales::kSubnormal ? 0x1p-22f
                                                      : 0.05f;
  const size_t width = type == DType::kF32 ? 4 : 2;
  for (size_t at = 0; at < file.size(); at += width) {
    const float v = dist(rng) * factor;
    const uint16_t half = type == DType::kF16 ? f16_from_f32(v) : bf16_from_f32(v);
    std::memcpy(file.data() + at, width == 4 ? static_cast<const void*>(&v) : &half, width);
  }
}

using DecodeRow = void (*)(const std::byte*, int64_t, float*);
DecodeRow decoder(DType type) {
  using namespace kern::generic;
  switch (type) {
    case DType::kF32:
      return decode_f32;
    case DType::kF16:
      return decode_f16;
    case DType::kBF16:
      return decode_bf16;
    case DType::kQ4_0:
      return decode_q4_0;
    case DType::kQ4_1:
      return decode_q4_1;
    case DType::kQ5_0:
      return decode_q5_0;
    case DType::kQ5_1:
      return decode_q5_1;
    case DType::kQ8_0:
      return decode_q8_0;
    case DType::kQ4_K:
      return decode_q4_k;
    case DType::kQ5_K:
      return decode_q5_k;
    case DType::kQ6_K:
      return decode_q6_k;
    case DType::kQ2_K:
      return decode_q2_k;
    case DType::kQ3_K:
      return decode_q3_k;
    case DType::kIQ4_NL:
      return decode_iq4_nl;
    case DType::kIQ4_XS:
      return decode_iq4_xs;
    default:
      return nullptr;
  }
}

template <class Block>
void clear_levels(std::vector<std::byte>& row) {
  for (size_t at = 0; at < row.size(); at += sizeof(Block)) {
    Block b;
    std::memcpy(&b, row.data() + at, sizeof(Block));
    std::memset(b.qs, 0, sizeof(b.qs));
    if constexpr (requires { b.qh; }) std::memset(b.qh, 0, sizeof(b.qh));
    std::memcpy(row.data() + at, &b, sizeof(Block));
  }
}

/// The row with levels of zero, which decodes to its minima; zeros for a type without minima.
std::vector<float> minima(DType type, std::span<const std::byte> file_row, int64_t k) {
  std::vector<std::byte> row(file_row.begin(), file_row.end());
  std::vector<float> values(static_cast<size_t>(k));
  switch (type) {
    case DType::kQ4_1:
      clear_levels<BlockQ4_1>(row);
      break;
    case DType::kQ5_1:
      clear_levels<BlockQ5_1>(row);
      break;
    case DType::kQ4_K:
      clear_levels<BlockQ4_K>(row);
      break;
    case DType::kQ5_K:
      clear_levels<BlockQ5_K>(row);
      break;
    case DType::kQ2_K:
      clear_levels<BlockQ2_K>(row);
      break;
    default:
      return values;
  }
  decoder(type)(row.data(), k, values.data());
  return values;
}

}  // namespace

std::vector<std::byte> make_weights(std::mt19937_64& rng, DType type, int64_t n, int64_t k,
                                    Levels levels, Scales scales) {
  std::vector<std::byte> file(static_cast<size_t>(n * row_bytes(type, k).value()));
  switch (type) {
    case DType::kQ4_0:
      fill<BlockQ4_0>(file, rng, levels, scales);
      break;
    case DType::kQ4_1:
      fill<BlockQ4_1>(file, rng, levels, scales);
      break;
    case DType::kQ5_0:
      fill<BlockQ5_0>(file, rng, levels, scales);
      break;
    case DType::kQ5_1:
      fill<BlockQ5_1>(file, rng, levels, scales);
      break;
    case DType::kQ8_0:
      fill<BlockQ8_0>(file, rng, levels, scales);
      break;
    case DType::kQ4_K:
      fill<BlockQ4_K>(file, rng, levels, scales);
      break;
    case DType::kQ5_K:
      fill<BlockQ5_K>(file, rng, levels, scales);
      break;
    case DType::kQ6_K:
      fill<BlockQ6_K>(file, rng, levels, scales);
      break;
    case DType::kQ2_K:
      fill<BlockQ2_K>(file, rng, levels, scales);
      break;
    case DType::kQ3_K:
      fill<BlockQ3_K>(file, rng, levels, scales);
      break;
    case DType::kIQ4_NL:
      fill<BlockIQ4_NL>(file, rng, levels, scales);
      break;
    case DType::kIQ4_XS:
      fill<BlockIQ4_XS>(file, rng, levels, scales);
      break;
    default:
      fill_float(file, type, rng, scales);
      break;
  }
  return file;
}

std::vector<float> make_inputs(std::mt19937_64& rng, int64_t m, int64_t k, Inputs inputs) {
  std::normal_distribution<float> dist;
  std::vector<float> x(static_cast<size_t>(m * k));
  for (size_t i = 0; i < x.size(); ++i) {
    const float alternating = (i & 1) != 0 ? -1.0f : 1.0f;
    switch (inputs) {
      case Inputs::kNormal:
        x[i] = dist(rng);
        break;
      case Inputs::kPlusOne:
        x[i] = 1.0f;
        break;
      case Inputs::kMinusOne:
        x[i] = -1.0f;
        break;
      case Inputs::kAlternating:
        x[i] = alternating;
        break;
    }
  }
  return x;
}

LinearRunner::LinearRunner(const kern::LinearKernel& kernel, std::span<const std::byte> file,
                           int64_t n, int64_t k)
    : kernel_(kernel), n_(n), k_(k), weights_(kernel.packed_bytes(n, k)) {
  if (kernel.file_layout) {
    std::memcpy(weights_.get(), file.data(), file.size());
    return;
  }
  for (int64_t j = 0; j < n; j += 2 * kernel.n_align) {  // in portions, as several threads would
    kernel.pack(file.data(), n, k, j, std::min(n, j + 2 * kernel.n_align), weights_.get());
  }
}

int64_t LinearRunner::act_stride() const { return (kernel_.act_bytes(k_) + 63) / 64 * 64; }

AlignedBytes LinearRunner::prepare(std::span<const float> x, int64_t m) const {
  AlignedBytes act(std::max<int64_t>(m, 1) * act_stride());
  for (int64_t r = 0; r < m; ++r)
    kernel_.prepare(x.data() + r * k_, k_, act.get() + r * act_stride());
  return act;
}

std::vector<float> LinearRunner::run(std::span<const float> x, int64_t m, int64_t n_begin,
                                     int64_t n_end) const {
  constexpr int64_t kMargin = 8;
  const AlignedBytes act = prepare(x, m);
  const AlignedBytes scratch(std::max<int64_t>(kernel_.scratch_bytes(k_), 1));
  const int64_t width = n_end - n_begin, stride = width + 2 * kMargin;
  std::vector<float> padded(static_cast<size_t>(m * stride), kSentinel);
  kern::LinearArgs a;
  a.w = weights_.get(), a.act = act.get(), a.act_stride = act_stride(), a.scratch = scratch.get();
  a.m = m, a.n = n_, a.k = k_, a.n_begin = n_begin, a.n_end = n_end;
  a.out = padded.data() + kMargin, a.out_stride = stride, a.l2_bytes = l2_bytes_;
  kernel_.run(a);
  std::vector<float> out(static_cast<size_t>(m * width));
  for (int64_t r = 0; r < m; ++r) {
    const float* row = padded.data() + r * stride;
    for (int64_t i = 0; i < kMargin; ++i) {
      if (row[i] != kSentinel || row[kMargin + width + i] != kSentinel) {
        ADD_FAILURE() << "wrote outside of [n_begin, n_end): row " << r << ", outputs " << n_begin
                      << ".." << n_end;
      }
    }
    std::copy_n(row + kMargin, width, out.begin() + r * width);
  }
  return out;
}

bool LinearRunner::quantised_act() const { return kernel_.act_bytes(256) < 256 * 4; }

std::vector<double> LinearRunner::seen(std::span<const float> x, int64_t m) const {
  const AlignedBytes act = prepare(x, m);
  std::vector<double> values(static_cast<size_t>(m * k_));
  for (int64_t r = 0; r < m; ++r) {
    const std::byte* row = act.get() + r * act_stride();
    for (int64_t i = 0; i < k_; ++i) {
      double& v = values[static_cast<size_t>(r * k_ + i)];
      if (quantised_act()) {
        const auto& b = reinterpret_cast<const kern::ActBlock*>(row)[i / 32];
        v = static_cast<double>(b.d) * b.q[i % 32];
      } else {
        v = static_cast<double>(reinterpret_cast<const float*>(row)[i]);
      }
    }
  }
  return values;
}

Reference reference_f64(DType type, std::span<const std::byte> file, int64_t n, int64_t k,
                        std::span<const double> seen, int64_t m, int64_t n_rounding) {
  // Below 2^-126 roundings are absolute: at most 2^-150 in a scale, times an integer sum below
  // 2^24, a block.
  const double underflow = static_cast<double>(k) * 0x1p-126;
  const size_t stride = file.size() / static_cast<size_t>(n);
  Reference ref;
  ref.value.resize(static_cast<size_t>(m * n));
  ref.bound.resize(static_cast<size_t>(m * n));
  std::vector<float> w(static_cast<size_t>(k));
  for (int64_t j = 0; j < n; ++j) {
    const auto row = file.subspan(static_cast<size_t>(j) * stride, stride);
    decoder(type)(row.data(), k, w.data());
    const std::vector<float> w0 = minima(type, row, k);
    for (int64_t r = 0; r < m; ++r) {
      double sum = 0.0, magnitude = 0.0;
      for (int64_t i = 0; i < k; ++i) {
        const double wi = w[static_cast<size_t>(i)], mi = w0[static_cast<size_t>(i)];
        const double xi = seen[static_cast<size_t>(r * k + i)];
        sum += wi * xi;
        magnitude += (std::fabs(wi - mi) + std::fabs(mi)) * std::fabs(xi);
      }
      const auto at = static_cast<size_t>(r * n + j);
      ref.value[at] = sum;
      ref.bound[at] = static_cast<double>(n_rounding) * 0x1.001p-24 * magnitude + underflow;
    }
  }
  return ref;
}

int64_t rounding_steps(const kern::LinearKernel& kernel, bool quantised_act, int64_t k) {
  if (quantised_act) return 2 * (k / 32) + 4;
  return kernel.file_layout ? (k + 7) / 8 + 4 : k + 1;
}

uint64_t seed_of_test() {
  const testing::TestInfo* info = testing::UnitTest::GetInstance()->current_test_info();
  uint64_t hash = 1469598103934665603ull;
  for (const char c : std::string(info->test_suite_name()) + "." + info->name()) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  }
  return hash;
}

}  // namespace infer::test
