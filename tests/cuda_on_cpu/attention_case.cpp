#include "tests/cuda_on_cpu/attention_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "core/base/half.h"

namespace infer::cuda::test {

namespace {

constexpr double kLog2e = 1.4426950408889634;
constexpr double kU = 0x1p-24, kTensor = 0x1p-22, kExp2 = 0x1p-22, kTiny = 0x1p-25;

bool is_quantised(DType type) { return type == DType::kQ8_0 || type == DType::kQ4_0; }

/// Rows of V are rotated in pieces of the largest power of two that divides dim, at most 128. y = H
/// x by the definition: H[i][j] = (-1)^popcount(i & j) / sqrt(n); `sign` false: all +1.
std::vector<double> hadamard(const std::vector<double>& x, bool sign = true) {
  size_t n = 1;
  while (n < 128 && x.size() % (2 * n) == 0) n *= 2;
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i / n * n; j < (i / n + 1) * n; ++j)
      y[i] += sign && std::popcount((i % n) & (j % n)) % 2 != 0 ? -x[j] : x[j];
    y[i] /= std::sqrt(static_cast<double>(n));
  }
  return y;
}

void write_half(std::byte* at, uint16_t h) { std::memcpy(at, &h, sizeof h); }
uint16_t read_half(const std::byte* at) {
  uint16_t h;
  std::memcpy(&h, at, sizeof h);
  return h;
}

/// x in [-1, 1) as a level of q8_0 or q4_0.
int level_of(DType type, float x) {
  if (type == DType::kQ8_0) return static_cast<int>(std::lround(x * 127.0f));
  return std::clamp(static_cast<int>(std::floor(x * 8.0f)), -8, 7);
}

}  // namespace

std::string AttentionShape::text() const {
  std::string rows;
  for (const auto& s : slots) rows += fmt::format(" {}..{}({})", s.front(), s.back(), s.size());
  return fmt::format(
      "head_dim {} kv heads {} group {} types {}/{} window {} softcap {}{}{} dead {} rows{}",
      head_dim, n_kv_head, group, static_cast<int>(type_k), static_cast<int>(type_v), window,
      softcap, alibi ? " alibi" : "", tree.empty() ? "" : " tree", n_dead, rows);
}

AttentionCase::AttentionCase(const AttentionShape& of, uint32_t seed) : shape(of) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  n_head = shape.n_kv_head * shape.group;
  scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  for (size_t s = 0; s < shape.slots.size(); ++s) {
    const auto first_row = static_cast<int32_t>(slot.size());
    for (const int32_t t : shape.slots[s]) {
      slot.push_back(t);
      seq.push_back(static_cast<int32_t>(s));
      tree_first.push_back(first_row);
    }
  }
  n_live = static_cast<int>(slot.size());
  m = n_live + shape.n_dead;
  tree = shape.tree;
  q.resize(static_cast<size_t>(m * n_head * shape.head_dim),
           std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < static_cast<size_t>(n_live * n_head * shape.head_dim); ++i)
    q[i] = 3.0f * shape.size * uniform(rng);
  for (int h = 0; shape.alibi && h < n_head; ++h)
    slopes.push_back(std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(n_head)));
  place_blocks(seed);
  fill_pool(seed);
  for (int i = 0; i < shape.n_dead; ++i) {
    slot.push_back(INT32_MAX);
    seq.push_back(INT32_MAX);
    tree_first.push_back(INT32_MAX);
    if (!tree.empty()) tree.push_back(~uint64_t{0});
  }
}

/// Blocks of sequences in shuffled places among some of nobody; -1 where no row looks.
void AttentionCase::place_blocks(uint32_t seed) {
  int n_used = 0;
  for (const auto& rows : shape.slots) {
    n_slot_.push_back(rows.back() + 1);
    first_seen_.push_back(shape.window > 0 ? std::max(rows.front() - shape.window + 1, 0) : 0);
    table_stride = std::max(table_stride, n_slot_.back() / kBlockTok + 2);
    n_used += n_slot_.back() / kBlockTok + 1;
  }
  n_block = n_used + 3;
  std::vector<int32_t> places(static_cast<size_t>(n_block));
  std::iota(places.begin(), places.end(), 0);
  std::shuffle(places.begin(), places.end(), std::mt19937(seed + 1));
  table.assign(shape.slots.size() * static_cast<size_t>(table_stride), -1);
  for (size_t s = 0, next = 0; s < shape.slots.size(); ++s)
    for (int b = first_seen_[s] / kBlockTok; b * kBlockTok < n_slot_[s]; ++b)
      table[s * static_cast<size_t>(table_stride) + static_cast<size_t>(b)] = places[next++];
}

AttentionCase::Place AttentionCase::place(bool of_k, int sequence, int t, int kv_head,
                                          int d) const {
  const DType type = of_k ? shape.type_k : shape.type_v;
  const int dim = shape.head_dim, token = t % kBlockTok;
  const int64_t block = table[static_cast<size_t>(sequence * table_stride + t / kBlockTok)];
  const int64_t head = (block * shape.n_kv_head + kv_head) * kv_head_bytes(type, dim);
  if (!is_quantised(type)) return {head + 2 * (token * dim + d), 0, 0};
  const int64_t scale_at = head + kv_scales_at(type, dim) + 2 * (token * (dim / 32) + d / 32);
  if (type == DType::kQ8_0) return {head + token * dim + d, scale_at, 0};
  // Pairs share a byte in K, halves of a group in V.
  if (of_k) return {head + (token * dim + d) / 2, scale_at, d % 2 * 4};
  return {head + (token * dim + d / 32 * 32) / 2 + d % 16, scale_at, d % 32 / 16 * 4};
}

double AttentionCase::read(bool of_k, int sequence, int t, int kv_head, int d) const {
  const DType type = of_k ? shape.type_k : shape.type_v;
  const Place at = place(of_k, sequence, t, kv_head, d);
  const std::byte* pool = (of_k ? k : v).data();
  if (type == DType::kF16) return f32_from_f16(read_half(pool + at.level));
  if (type == DType::kBF16) return f32_from_bf16(read_half(pool + at.level));
  const int bits = std::to_integer<int>(pool[at.level]);
  const int level = type == DType::kQ8_0 ? static_cast<int8_t>(bits) : (bits >> at.shift & 15) - 8;
  return double{f32_from_f16(read_half(pool + at.scale))} * level;
}

/// x in [-1, 1) times `factor`; the first of a group makes the group's scale.
void AttentionCase::write(bool of_k, int sequence, int t, int kv_head, int d, float x,
                          float factor) {
  const DType type = of_k ? shape.type_k : shape.type_v;
  const Place at = place(of_k, sequence, t, kv_head, d);
  std::byte* pool = (of_k ? k : v).data();
  if (type == DType::kF16) return write_half(pool + at.level, f16_from_f32(x * factor));
  if (type == DType::kBF16) return write_half(pool + at.level, bf16_from_f32(x * factor));
  const float top = type == DType::kQ8_0 ? 127.0f : 8.0f;
  if (d % 32 == 0) write_half(pool + at.scale, f16_from_f32((1.0f + 0.3f * x) / top * factor));
  const int level = level_of(type, x);
  pool[at.level] = type == DType::kQ8_0
                       ? static_cast<std::byte>(level)
                       : (pool[at.level] & static_cast<std::byte>(0xf0 >> at.shift)) |
                             static_cast<std::byte>((level + 8) << at.shift);
}

bool AttentionCase::is_edge(int sequence, int t) const {
  const auto& rows = shape.slots[static_cast<size_t>(sequence)];
  return std::any_of(rows.begin(), rows.end(), [&](int32_t at) {
    return std::abs(t - at) <= 1 || (shape.window > 0 && std::abs(t - (at - shape.window)) <= 1);
  });
}

void AttentionCase::fill_pool(uint32_t seed) {
  std::mt19937 rng(seed + 2);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  const auto fill_slot = [&](bool of_k, int sequence, int t) {
    const float factor = !of_k && is_edge(sequence, t) ? 20.0f : 1.0f;
    for (int h = 0; h < shape.n_kv_head; ++h)
      for (int d = 0; d < shape.head_dim; ++d) write(of_k, sequence, t, h, d, uniform(rng), factor);
  };
  for (const bool of_k : {true, false}) {
    // 0xffff is NaN as f16, as bf16 and as a scale.
    const DType type = of_k ? shape.type_k : shape.type_v;
    const int64_t n_bytes = n_block * shape.n_kv_head * kv_head_bytes(type, shape.head_dim);
    (of_k ? k : v).assign(static_cast<size_t>(n_bytes), std::byte{0xff});
    for (size_t s = 0; s < shape.slots.size(); ++s)
      for (int t = first_seen_[s]; t < n_slot_[s]; ++t) fill_slot(of_k, static_cast<int>(s), t);
  }
}

bool AttentionCase::sees(int row, int t) const {
  const auto r = static_cast<size_t>(row);
  if (t > slot[r] || (shape.window > 0 && t <= slot[r] - shape.window)) return false;
  if (tree.empty()) return true;
  const auto first = static_cast<size_t>(tree_first[r]);
  if (t < slot[first]) return true;
  for (size_t i = 0; i < 64 && first + i < static_cast<size_t>(n_live) && seq[first + i] == seq[r];
       ++i)
    if (slot[first + i] == t) return (tree[r] >> i & 1) != 0;
  return false;
}

// Bound, with u = 2^-24 (f32), and u_q, u_p = 2^-11 for f16 and 2^-8 for bf16 (rounding of queries
// and weights), u_k, u_v = 2^-11 where quantised values become f16. Everything in base 2: a logit
// is x = log2(e) * scale * q.k.
//
// A logit: queries are rounded after a product (u_q + 2 u), levels times scales (u_k), halves below
// 2^-14 to a multiple of 2^-24. A tensor core may truncate each of the head_dim additions at 2^-22
// of the sum of magnitudes. The cap: exp2 (2^-22), quotient and difference, 2^-20 of the cap; it
// passes errors on at most as they are. ALiBi: 3 u of each term.
//
// A weight 2^(x - max): 2^error - 1 for the logit's error and 2 u |x - max| of the subtractions
// (the exponents of rescalings add up to |x - max|); 2^-22 + 2 u for its own and each rescaling's
// exponential and product: of a tile of tokens, two merges of warps, one of parts.
//
// Weights are rounded to 16 bits (u_p, or 2^-25) for the numerator only. Sums of n terms as above.
// The output's quotient 4 u; turned back: at most seven additions and a product, 9 u of the piece.
AttentionCase::Logit AttentionCase::logit_of(int row, int head, int t) const {
  const int dim = shape.head_dim, kv_head = head / shape.group;
  const auto r = static_cast<size_t>(row);
  const float* q_row = q.data() + (row * n_head + head) * dim;
  const double u_q = shape.type_k == DType::kBF16 ? 0x1p-8 : 0x1p-11;
  const double u_k = is_quantised(shape.type_k) ? 0x1p-11 : 0.0;
  double dot = 0, sizes = 0, tiny = 0;
  for (int d = 0; d < dim; ++d) {
    const double k_d = read(true, seq[r], t, kv_head, d);
    dot += q_row[d] * k_d;
    sizes += std::fabs(q_row[d] * k_d);
    tiny += kTiny * (std::fabs(k_d) + std::fabs(q_row[d]));
  }
  Logit x = {dot * scale * kLog2e, sizes * scale * kLog2e * (u_q + u_k + 2 * kU + dim * kTensor)};
  if (shape.softcap > 0) {
    const double cap = shape.softcap * kLog2e;
    x.value = cap * std::tanh(x.value / cap);
    x.err += cap * (tiny + 0x1p-20);
  } else {
    x.err += tiny;
  }
  if (shape.alibi) {
    const double bias = slopes[static_cast<size_t>(head)] * kLog2e * (t - slot[r]);
    x.err += 3 * kU * (std::fabs(x.value) + std::fabs(bias));
    x.value += bias;
  }
  return x;
}

void AttentionCase::reference_of(int row, int head, double* out, double* bound) const {
  const auto r = static_cast<size_t>(row);
  const double u_p = shape.type_v == DType::kBF16 ? 0x1p-8 : 0x1p-11;
  const double u_v = is_quantised(shape.type_v) ? 0x1p-11 : 0.0;
  std::vector<int> seen;
  std::vector<Logit> x;
  double max = -std::numeric_limits<double>::infinity();
  for (int t = 0; t <= slot[r]; ++t) {
    if (!sees(row, t)) continue;
    seen.push_back(t);
    x.push_back(logit_of(row, head, t));
    max = std::max(max, x.back().value);
  }
  const auto n = static_cast<double>(seen.size());
  const double n_rescale = n / 16 + 2 + 2 + n / kBlockTok;
  double sum = 0, sum_err = 0;
  std::vector<double> w, w_err;
  for (const Logit& logit : x) {
    const double exponent = logit.value - max;
    w.push_back(std::exp2(exponent));
    w_err.push_back(w.back() * (std::exp2(logit.err + 2 * kU * std::fabs(exponent)) - 1 +
                                (1 + n_rescale) * (kExp2 + 2 * kU)));
    sum += w.back();
    sum_err += w_err.back() + w.back() * n * kU;
  }
  std::vector<double> o, o_err;
  for (int d = 0; d < shape.head_dim; ++d) {
    double acc = 0, acc_err = 0;
    for (size_t i = 0; i < seen.size(); ++i) {
      const double v_d = read(false, seq[r], seen[i], head / shape.group, d);
      acc += w[i] * v_d;
      acc_err += std::fabs(v_d) * (w_err[i] + w[i] * (u_p + u_v + n * kTensor) + kTiny) +
                 (u_v > 0 ? w[i] * kTiny : 0);
    }
    o.push_back(acc / sum);
    o_err.push_back((acc_err + std::fabs(acc / sum) * sum_err) / (sum - sum_err) +
                    4 * kU * std::fabs(acc / sum));
  }
  if (is_quantised(shape.type_v)) {
    for (size_t d = 0; d < o.size(); ++d) o_err[d] += 9 * kU * std::fabs(o[d]);
    o_err = hadamard(o_err, /*sign=*/false);
    o = hadamard(o);
  }
  std::copy(o.begin(), o.end(), out);
  std::copy(o_err.begin(), o_err.end(), bound);
}

AttentionCase::Reference AttentionCase::reference() const {
  Reference ref;
  ref.out.resize(static_cast<size_t>(n_live * n_head * shape.head_dim));
  ref.bound.resize(ref.out.size());
  for (int i = 0; i < n_live * n_head; ++i)
    reference_of(i / n_head, i % n_head, ref.out.data() + i * shape.head_dim,
                 ref.bound.data() + i * shape.head_dim);
  return ref;
}

}  // namespace infer::cuda::test
