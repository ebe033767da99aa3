#include "tests/ops/attention_case.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>

#include <fmt/format.h>

#include "core/base/checked.h"
#include "core/base/half.h"

namespace infer::test {
namespace {

constexpr double kEps = 0x1p-24;

const char* name_of(kern::KvType t) {
  constexpr const char* kNames[] = {"f32", "f16", "q8_0", "q4_0"};
  return kNames[static_cast<int>(t)];
}

/// Rows are rotated in pieces of the largest power of two that divides dim, at most 128.
int64_t piece_of(int64_t dim) {
  int64_t n = 1;
  while (n < 128 && dim % (2 * n) == 0) n *= 2;
  return n;
}

/// y = H x by the definition: H[i][j] = (-1)^popcount(i & j) / sqrt(n); `sign` false: all +1.
std::vector<double> hadamard(std::span<const double> x, bool sign = true) {
  const size_t n = static_cast<size_t>(piece_of(static_cast<int64_t>(x.size())));
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i / n * n; j < (i / n + 1) * n; ++j) {
      const bool minus = sign && std::popcount((i % n) & (j % n)) % 2 != 0;
      y[i] += minus ? -x[j] : x[j];
    }
    y[i] /= std::sqrt(static_cast<double>(n));
  }
  return y;
}

/// Roundings of a rotation in f32: at most seven additions and a product, and one for first order.
constexpr double kRotationSteps = 9.0;

struct AlignedFree {
  void operator()(std::byte* p) const { std::free(p); }
};

}  // namespace

std::string AttnShape::text() const {
  std::string slots;
  for (const int32_t s : q_slot) slots += fmt::format(" {}", s);
  return fmt::format("kv_head {} group {} dim {}/{} {}/{} window {} softcap {} alibi {} slots{}",
                     n_kv_head, group, head_dim, head_dim_v, name_of(k_type), name_of(v_type),
                     window, softcap, alibi, slots);
}

AttnCase::AttnCase(const AttnShape& shape, std::mt19937& rng) : shape_(shape) {
  n_slots_ = *std::max_element(shape.q_slot.begin(), shape.q_slot.end()) + 1;
  n_blocks_ = ceil_div<int64_t>(n_slots_, kern::kBlockTok);
  n_physical_ = n_blocks_ + 3;
  k_.resize(static_cast<size_t>(n_physical_ * k_block_bytes(pool())));
  v_.resize(static_cast<size_t>(n_physical_ * v_block_bytes(pool())));
  table_.resize(static_cast<size_t>(n_physical_));
  std::iota(table_.begin(), table_.end(), 0);
  std::shuffle(table_.begin(), table_.end(), rng);
  table_.resize(static_cast<size_t>(n_blocks_));

  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  q_.resize(static_cast<size_t>(n_rows() * n_head() * shape_.head_dim));
  // Logits of a few units either way: some tokens dominate, the running maximum moves.
  const float q_size = 8.0f / std::sqrt(static_cast<float>(shape_.head_dim)) / shape_.scale;
  for (float& x : q_) x = uniform(rng) * q_size;
  for (int64_t s = 0; s < n_slots_; ++s) {
    for (int64_t h = 0; h < shape_.n_kv_head; ++h) {
      for (int64_t d = 0; d < shape_.head_dim; ++d) set_k(s, h, d, uniform(rng));
      for (int64_t d = 0; d < shape_.head_dim_v; ++d) set_v(s, h, d, uniform(rng));
    }
  }
  for (int64_t h = 0; shape_.alibi && h < n_head(); ++h) {
    slopes_.push_back(std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(n_head())));
  }
}

kern::KvPoolView AttnCase::pool() const {
  return {.k = k_.data(),
          .v = v_.data(),
          .k_type = shape_.k_type,
          .v_type = shape_.v_type,
          .n_kv_head = shape_.n_kv_head,
          .head_dim = shape_.head_dim,
          .head_dim_v = shape_.head_dim_v};
}

int64_t AttnCase::n_spans() const { return ceil_div<int64_t>(n_slots_, kern::kSpanSlots); }

bool AttnCase::sees(int64_t row, int64_t slot) const {
  const int64_t q_slot = shape_.q_slot[static_cast<size_t>(row)];
  return slot <= q_slot && (shape_.window == 0 || slot > q_slot - shape_.window);
}

/// Offsets of slot, head and dim (quantised: of its levels and of its scale) in a pool.
AttnCase::Place AttnCase::place(bool k, int64_t slot, int64_t kv_head, int64_t d) const {
  const kern::KvPoolView p = pool();
  const kern::KvType type = k ? p.k_type : p.v_type;
  const int64_t dim = k ? p.head_dim : p.head_dim_v;
  const int64_t block = table_[static_cast<size_t>(slot / kern::kBlockTok)];
  const int64_t t = slot % kern::kBlockTok;
  const int64_t i = k ? d * kern::kBlockTok + t : t * dim + d;
  std::byte* head =
      (k ? p.k : p.v) + (block * p.n_kv_head + kv_head) * kern::kv_head_bytes(type, dim);
  if (type == kern::KvType::kF32) return {head + i * 4};
  if (type == kern::KvType::kF16) return {head + i * 2};
  const int64_t scale = (d / 32 * kern::kBlockTok + t) * 2;
  if (type == kern::KvType::kQ8_0) return {head + i, head + dim * kern::kBlockTok + scale};
  std::byte* at = head + (k ? d / 2 * kern::kBlockTok + t : t * dim / 2 + d / 32 * 16 + d % 16);
  return {at, head + dim * kern::kBlockTok / 2 + scale, k ? d % 2 * 4 : d % 32 / 16 * 4};
}

float AttnCase::read(bool k, int64_t slot, int64_t kv_head, int64_t d) const {
  const Place at = place(k, slot, kv_head, d);
  const kern::KvType type = k ? shape_.k_type : shape_.v_type;
  uint16_t h;
  if (at.scale != nullptr) {
    std::memcpy(&h, at.scale, sizeof h);
    const int byte = static_cast<int>(*at.level);
    const int level =
        type == kern::KvType::kQ8_0 ? static_cast<int8_t>(byte) : ((byte >> at.shift) & 15) - 8;
    return f32_from_f16(h) * static_cast<float>(level);
  }
  if (type == kern::KvType::kF16) {
    std::memcpy(&h, at.level, sizeof h);
    return f32_from_f16(h);
  }
  float f;
  std::memcpy(&f, at.level, sizeof f);
  return f;
}

/// Quantised: the level next to the value, after the group's scale was raised where it has to be.
void AttnCase::write(bool k, int64_t slot, int64_t kv_head, int64_t d, float value) {
  const Place at = place(k, slot, kv_head, d);
  const kern::KvType type = k ? shape_.k_type : shape_.v_type;
  if (at.scale != nullptr) {
    const float top = type == kern::KvType::kQ8_0 ? 127.0f : 7.0f;
    uint16_t h;
    std::memcpy(&h, at.scale, sizeof h);
    if (h == 0 || std::fabs(value) > top * f32_from_f16(h)) {
      h = f16_from_f32(std::clamp(std::fabs(value) / top * 1.25f, 1e-3f, 65504.0f));
      std::memcpy(at.scale, &h, sizeof h);
    }
    const int level = static_cast<int>(std::clamp(std::round(value / f32_from_f16(h)), -top, top));
    *at.level = type == kern::KvType::kQ8_0
                    ? static_cast<std::byte>(level)
                    : (*at.level & static_cast<std::byte>(0xf0 >> at.shift)) |
                          static_cast<std::byte>((level + 8) << at.shift);
  } else if (type == kern::KvType::kF16) {
    const uint16_t h = f16_from_f32(value);
    std::memcpy(at.level, &h, sizeof h);
  } else {
    std::memcpy(at.level, &value, sizeof value);
  }
}

float AttnCase::k_at(int64_t slot, int64_t h, int64_t d) const { return read(true, slot, h, d); }
float AttnCase::v_at(int64_t slot, int64_t h, int64_t d) const { return read(false, slot, h, d); }
void AttnCase::set_k(int64_t slot, int64_t h, int64_t d, float x) { write(true, slot, h, d, x); }
void AttnCase::set_v(int64_t slot, int64_t h, int64_t d, float x) { write(false, slot, h, d, x); }

float* AttnCase::q_at(int64_t row, int64_t head) {
  return q_.data() + (row * n_head() + head) * shape_.head_dim;
}

void AttnCase::shuffle_blocks(std::mt19937& rng) {
  std::vector<int32_t> places(static_cast<size_t>(n_physical_));
  std::iota(places.begin(), places.end(), 0);
  std::shuffle(places.begin(), places.end(), rng);
  const auto moved = [&](const std::vector<std::byte>& from, int64_t block_bytes) {
    std::vector<std::byte> to(from.size());
    for (size_t i = 0; i < table_.size(); ++i) {
      std::memcpy(to.data() + places[i] * block_bytes, from.data() + table_[i] * block_bytes,
                  static_cast<size_t>(block_bytes));
    }
    return to;
  };
  k_ = moved(k_, k_block_bytes(pool()));
  v_ = moved(v_, v_block_bytes(pool()));
  std::copy_n(places.begin(), table_.size(), table_.begin());
}

std::vector<float> AttnCase::partials(const kern::CpuKernels& kernels,
                                      std::span<const int64_t> rows, int64_t span_begin,
                                      int64_t span_end) const {
  const int64_t size = 2 + shape_.head_dim_v;
  const int64_t row_size = n_head() * size;
  std::vector<float> q;
  std::vector<int32_t> q_slot;
  for (const int64_t row : rows) {
    const auto from = q_.begin() + row * n_head() * shape_.head_dim;
    q.insert(q.end(), from, from + n_head() * shape_.head_dim);
    q_slot.push_back(shape_.q_slot[static_cast<size_t>(row)]);
  }
  // Filled with NaN: what the kernel does not write shows.
  std::vector<float> out(rows.size() * static_cast<size_t>(row_size),
                         std::numeric_limits<float>::quiet_NaN());
  const int64_t n_scratch = align_up<int64_t>(
      kernels.attn_scratch_bytes(n_head(), shape_.n_kv_head, shape_.head_dim, shape_.head_dim_v),
      64);
  const std::unique_ptr<std::byte, AlignedFree> scratch(
      static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(n_scratch))));
  std::memset(scratch.get(), 0xff, static_cast<size_t>(n_scratch));
  kern::AttnArgs a{.pool = pool(),
                   .block_table = table_.data(),
                   .q = q.data(),
                   .q_stride = n_head() * shape_.head_dim,
                   .q_slot = q_slot.data(),
                   .n_rows = static_cast<int64_t>(rows.size()),
                   .n_head = n_head(),
                   .scale = shape_.scale,
                   .softcap = shape_.softcap,
                   .window = shape_.window,
                   .alibi_slopes = shape_.alibi ? slopes_.data() : nullptr,
                   .span_begin = span_begin,
                   .span_end = span_end,
                   .partial_row_stride = row_size,
                   .scratch = scratch.get()};
  for (int64_t h = 0; h < shape_.n_kv_head; ++h) {
    a.kv_head = h;
    a.partial = out.data() + h * shape_.group * size;
    kernels.attn_spans(a);
  }
  return out;
}

std::vector<float> AttnCase::finish(const kern::CpuKernels& kernels,
                                    std::span<const float> partials) const {
  const size_t size = static_cast<size_t>(2 + shape_.head_dim_v);
  const size_t n = partials.size() / size;
  std::vector<float> out(n * static_cast<size_t>(shape_.head_dim_v));
  for (size_t i = 0; i < n; ++i) {
    kernels.attn_finish(partials.data() + i * size, shape_.head_dim_v, shape_.v_type,
                        out.data() + i * static_cast<size_t>(shape_.head_dim_v));
  }
  return out;
}

std::vector<float> AttnCase::run(const kern::CpuKernels& kernels) const {
  std::vector<int64_t> rows(static_cast<size_t>(n_rows()));
  std::iota(rows.begin(), rows.end(), 0);
  return finish(kernels, partials(kernels, rows, 0, n_spans()));
}

// Bound, to first order, with u = 2^-24. A logit x = cap(scale * q.k) + slope * distance is wrong
// by at most
//   e = (head_dim + 2) u scale sum|q_d k_d|   (the sum, the scale)
//     + 8 u cap                               (division, tanh within 2 ulp, product; |tanh'| <= 1
//     passes e on)
//     + 2 u (|x| + |slope * distance|)        (ALiBi).
// A weight exp(x - max) then has the relative error d = e + u (2 |x - max| + 4): the subtraction,
// the exponential within 2 ulp, and the rescalings, whose exponents add up to |x - max| at most;
// each of the n_tile + n_span rescalings adds 5 u (exponential, product). The shared max cancels. A
// sum of n terms in any of the orders used adds (n + 2) u. Weighted by |v| in the numerator and
// once more by |out| in the denominator this is the bound below; 2 u |out| for the division.
// Quantised K and V hold rotated rows: the query is rotated first, wrong by 9 u times the sum of
// its piece's magnitudes / sqrt(n); a weight takes the scale of V, one rounding more; and the
// output is rotated back, which spreads the bounds of a piece and adds 9 u again.
void AttnCase::reference_of(int64_t row, int64_t head, double* out, double* bound) const {
  const int64_t kv_head = head / shape_.group;
  const float* q_row = q_.data() + (row * n_head() + head) * shape_.head_dim;
  std::vector<double> q(q_row, q_row + shape_.head_dim);
  std::vector<double> q_err(q.size());
  if (is_quantised(shape_.k_type)) {
    std::vector<double> sizes(q.size());
    std::transform(q.begin(), q.end(), sizes.begin(), [](double x) { return std::fabs(x); });
    q_err = hadamard(sizes, /*sign=*/false);
    for (double& x : q_err) x *= kRotationSteps * kEps;
    q = hadamard(q);
  }
  const int64_t q_slot = shape_.q_slot[static_cast<size_t>(row)];
  std::vector<int64_t> slots;
  std::vector<double> x, e;
  for (int64_t s = 0; s < n_slots_; ++s) {
    if (!sees(row, s)) continue;
    double dot = 0.0, size = 0.0, rotation_err = 0.0;
    for (int64_t d = 0; d < shape_.head_dim; ++d) {
      const double k = k_at(s, kv_head, d);
      dot += q[static_cast<size_t>(d)] * k;
      size += std::fabs(q[static_cast<size_t>(d)] * k);
      rotation_err += q_err[static_cast<size_t>(d)] * std::fabs(k);
    }
    double logit = dot * shape_.scale;
    double err = (static_cast<double>(shape_.head_dim + 2) * kEps * size + rotation_err) *
                 std::fabs(shape_.scale);
    if (shape_.softcap != 0.0f) {
      logit = shape_.softcap * std::tanh(logit / shape_.softcap);
      err += 8 * kEps * shape_.softcap;
    }
    if (shape_.alibi) {
      const double bias = slopes_[static_cast<size_t>(head)] * static_cast<double>(s - q_slot);
      logit += bias;
      err += 2 * kEps * (std::fabs(logit) + std::fabs(bias));
    }
    slots.push_back(s);
    x.push_back(logit);
    e.push_back(err);
  }
  const double max = *std::max_element(x.begin(), x.end());
  const double n = static_cast<double>(slots.size());
  const double n_tiles = n / kern::kBlockTok + 2, n_spans = n / kern::kSpanSlots + 2;
  const double common = kEps * (n + 3 + 4 + 5 * (n_tiles + n_spans));
  double sum = 0.0, sum_err = 0.0;
  std::vector<double> w(slots.size()), w_err(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    w[i] = std::exp(x[i] - max);
    w_err[i] = w[i] * (e[i] + 2 * kEps * std::fabs(x[i] - max) + common);
    sum += w[i];
    sum_err += w_err[i];
  }
  for (int64_t d = 0; d < shape_.head_dim_v; ++d) {
    double acc = 0.0, acc_err = 0.0;
    for (size_t i = 0; i < slots.size(); ++i) {
      const double v = v_at(slots[i], kv_head, d);
      acc += w[i] * v;
      acc_err += w_err[i] * std::fabs(v);
    }
    out[d] = acc / sum;
    bound[d] = (acc_err + std::fabs(out[d]) * sum_err) / sum + 2 * kEps * std::fabs(out[d]) + 1e-35;
  }
  if (!is_quantised(shape_.v_type)) return;
  const std::span<double> o(out, static_cast<size_t>(shape_.head_dim_v));
  std::vector<double> sizes(o.size());
  for (size_t d = 0; d < o.size(); ++d)
    sizes[d] = bound[d] + kRotationSteps * kEps * std::fabs(o[d]);
  std::ranges::copy(hadamard(sizes, /*sign=*/false), bound);
  std::ranges::copy(hadamard(std::vector<double>(o.begin(), o.end())), out);
}

AttnCase::Reference AttnCase::reference() const {
  Reference ref;
  ref.out.resize(static_cast<size_t>(n_rows() * n_head() * shape_.head_dim_v));
  ref.bound.resize(ref.out.size());
  for (int64_t i = 0; i < n_rows() * n_head(); ++i) {
    reference_of(i / n_head(), i % n_head(), ref.out.data() + i * shape_.head_dim_v,
                 ref.bound.data() + i * shape_.head_dim_v);
  }
  return ref;
}

}  // namespace infer::test
