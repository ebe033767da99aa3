#include <bit>
#include <cmath>
#include <random>

#include "core/base/half.h"
#include "kernels/cpu/generic/kv_quant.h"
#include "kernels/cuda/row_ops.h"
#include "tests/cuda_on_cpu/fixture.h"

namespace infer::cuda::test {
namespace {

constexpr double kRound = 0x1p-24;
constexpr auto kUnwritten = std::byte{0x5a};
constexpr float kUntouched = 1234.5f;

struct Shape {
  int n_head = 1, n_kv_head = 1, head_dim = 64;
  int rope_dim = 64;
  RopeKind kind = RopeKind::kNorm;
  DType type_k = DType::kF16, type_v = DType::kF16;
  bool norm = false;
  int m = 3, live = 2;
};

bool quantised(DType t) { return t == DType::kQ8_0 || t == DType::kQ4_0; }

/// A head's row in f64 with a bound on what f32 makes of it.
struct Row {
  std::vector<double> x, bound;
};

/// Inputs, the pool, and what must come out.
class Case {
 public:
  explicit Case(const Shape& shape, uint64_t seed = 1) : s(shape), rng_(seed) {
    q = normals(int64_t{s.live} * s.n_head * s.head_dim);
    k = normals(int64_t{s.live} * s.n_kv_head * s.head_dim);
    v = normals(int64_t{s.live} * s.n_kv_head * s.head_dim);
    q_norm = normals(s.head_dim);
    k_norm = normals(s.head_dim);
    for (int i = 0; i < kPositions * s.rope_dim / 2; ++i) {
      const double angle = std::uniform_real_distribution<double>(-3, 3)(rng_);
      cos_sin.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
    }
    for (int r = 0; r < s.m; ++r) {
      const bool live = r < s.live;
      pos.push_back(live ? (r * 5 + 3) % kPositions : -1);
      slot.push_back(live ? r * 13 % (kTableLen * kBlockTok) : 1 << 30);
      seq.push_back(live ? r % kSeqs : -1);
    }
    for (int i = 0; i < kSeqs * kTableLen; ++i) blocks.push_back((i * 5 + 1) % kBlocks);
  }

  static constexpr int kPositions = 7, kSeqs = 2, kTableLen = 3, kBlocks = 6;
  static constexpr float kEps = 1e-5f;

  struct Out {
    std::vector<float> q;
    std::vector<std::byte> k, v;
    bool operator==(const Out& o) const {
      return std::memcmp(q.data(), o.q.data(), q.size() * 4) == 0 && k == o.k && v == o.v;
    }
  };

  Out run() const {
    const DeviceArray<float> dq(q), dk(k), dv(v), dqn(q_norm), dkn(k_norm);
    const DeviceArray<float> q_out(
        std::vector<float>(static_cast<size_t>(s.m * s.n_head * s.head_dim), kUntouched));
    const DeviceArray<float2> angles(cos_sin.empty() ? std::vector<float2>(1) : cos_sin);
    const DeviceArray<int32_t> dpos(pos), dslot(slot), dseq(seq), table(blocks),
        n_live(std::vector<int32_t>{s.live});
    const DeviceArray<std::byte> pool_k(unwritten(s.type_k)), pool_v(unwritten(s.type_v));
    RopeStoreArgs a;
    a.q = dq.data();
    a.k = dk.data();
    a.v = dv.data();
    a.q_out = q_out.data();
    a.q_norm = s.norm ? dqn.data() : nullptr;
    a.k_norm = s.norm ? dkn.data() : nullptr;
    a.eps = kEps;
    a.rope_kind = s.kind;
    a.rope_dim = s.rope_dim;
    a.cos_sin = angles.data();
    a.n_head = s.n_head;
    a.pool = {pool_k.data(), pool_v.data(), s.type_k, s.type_v, s.n_kv_head, s.head_dim};
    a.rows = {s.m, n_live.data(), nullptr, dpos.data(), dslot.data(), dseq.data()};
    a.table = {table.data(), kTableLen};
    EXPECT_EQ(rope_store(a, nullptr), cudaSuccess);
    return {q_out.host(), pool_k.host(), pool_v.host()};
  }

  /// Norm (the sum of squares: a lane's terms and a butterfly), rotary embedding, and the rotation
  /// of quantised types.
  Row reference(const float* from, const float* norm, int row, bool rope, bool rotate) const {
    Row out;
    const auto dim = static_cast<size_t>(s.head_dim);
    double sum = 0.0;
    for (size_t i = 0; i < dim; ++i) sum += double{from[i]} * from[i];
    const double scale = norm != nullptr ? 1 / std::sqrt(sum / s.head_dim + double{kEps}) : 1.0;
    for (size_t i = 0; i < dim; ++i) {
      out.x.push_back(norm != nullptr ? from[i] * scale * norm[i] : from[i]);
      const double steps = norm != nullptr ? 8 + 5 + 6 : 0;
      out.bound.push_back(steps * kRound * std::fabs(out.x[i]));
    }
    if (rope) turn(row, out);
    if (rotate) hadamard(out);
    return out;
  }

  const float* row_of(const std::vector<float>& x, int row, int head, int n_head) const {
    return x.data() + (int64_t{row} * n_head + head) * s.head_dim;
  }

  int64_t block_of(int row) const {
    const auto r = static_cast<size_t>(row);
    return blocks[static_cast<size_t>(seq[r] * kTableLen + slot[r] / kBlockTok)];
  }

  std::vector<std::byte> unwritten(DType type) const {
    return std::vector<std::byte>(
        static_cast<size_t>(kBlocks * s.n_kv_head * kv_head_bytes(type, s.head_dim)), kUnwritten);
  }

  Shape s;
  std::vector<float> q, k, v, q_norm, k_norm;
  std::vector<float2> cos_sin;
  std::vector<int32_t> pos, slot, seq, blocks;

 private:
  std::vector<float> normals(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    for (float& e : x) e = 2.0f * std::normal_distribution<float>()(rng_);
    return x;
  }

  void turn(int row, Row& r) const {
    const auto half = static_cast<size_t>(s.rope_dim / 2);
    for (size_t i = 0; i < half; ++i) {
      const bool neox = s.kind == RopeKind::kNeox;
      const size_t a = neox ? i : 2 * i, b = neox ? i + half : 2 * i + 1;
      const float2 cs = cos_sin[static_cast<size_t>(pos[static_cast<size_t>(row)]) * half + i];
      const double c = cs.x, n = cs.y, x = r.x[a], y = r.x[b];
      r.x[a] = x * c - y * n;
      r.x[b] = y * c + x * n;
      const double ex = r.bound[a], ey = r.bound[b];
      r.bound[a] = std::fabs(c) * ex + std::fabs(n) * ey +
                   2 * kRound * (std::fabs(x * c) + std::fabs(y * n));
      r.bound[b] = std::fabs(c) * ey + std::fabs(n) * ex +
                   2 * kRound * (std::fabs(y * c) + std::fabs(x * n));
    }
  }

  /// By its definition: entry (i, j) has the sign of the parity of i & j.
  void hadamard(Row& r) const {
    const auto n = static_cast<size_t>(kern::rotation_len(s.head_dim));
    const Row before = r;
    for (size_t at = 0; at < r.x.size(); at += n) {
      double bound = 0.0;  // log2(n) additions, the product and its factor round
      for (size_t j = at; j < at + n; ++j)
        bound += before.bound[j] + 9 * kRound * std::fabs(before.x[j]);
      for (size_t i = 0; i < n; ++i) {
        double sum = 0.0;
        for (size_t j = 0; j < n; ++j)
          sum += std::popcount(i & j) % 2 == 0 ? before.x[at + j] : -before.x[at + j];
        r.x[at + i] = sum / std::sqrt(static_cast<double>(n));
        r.bound[at + i] = bound / std::sqrt(static_cast<double>(n));
      }
    }
  }

  std::mt19937_64 rng_;
};

/// Takes what was written of one head's row out of the pool, and leaves kUnwritten there.
class Reader {
 public:
  Reader(std::vector<std::byte>& pool, DType type, bool is_v, int head_dim, int64_t head, int slot)
      : levels_(pool.data() + head * kv_head_bytes(type, head_dim)),
        scales_(levels_ + kv_scales_at(type, head_dim) + slot * (head_dim / 32) * 2),
        type_(type),
        is_v_(is_v),
        head_dim_(head_dim) {
    levels_ += slot * kv_scales_at(type, head_dim) / kBlockTok;
  }
  int half_bits(int i) const { return get16(levels_ + 2 * i); }
  uint16_t scale_bits(int group) const { return get16(scales_ + 2 * group); }
  int level(int i) const {
    if (type_ == DType::kQ8_0) return static_cast<int8_t>(levels_[i]);
    const int in_group = i % 32;
    const int byte = is_v_ ? i / 32 * 16 + in_group % 16 : i / 2;
    const bool high = is_v_ ? in_group >= 16 : i % 2 == 1;
    return (static_cast<int>(levels_[byte]) >> (high ? 4 : 0) & 15) - 8;
  }
  void forget() {
    std::fill_n(levels_, kv_scales_at(type_, head_dim_) / kBlockTok, kUnwritten);
    if (quantised(type_)) std::fill_n(scales_, head_dim_ / 32 * 2, kUnwritten);
  }

 private:
  static uint16_t get16(const std::byte* p) {
    uint16_t h = 0;
    std::memcpy(&h, p, 2);
    return h;
  }
  std::byte* levels_;
  std::byte* scales_;
  DType type_;
  bool is_v_;
  int head_dim_;
};

/// Half a unit in the last place of f16 or bf16.
void expect_halves(const Reader& got, DType type, const Row& want) {
  for (size_t i = 0; i < want.x.size(); ++i) {
    const auto bits = static_cast<uint16_t>(got.half_bits(static_cast<int>(i)));
    const double value = type == DType::kF16 ? f32_from_f16(bits) : f32_from_bf16(bits);
    const double relative = type == DType::kF16 ? 0x1p-11 : 0x1p-8;
    const double bound = relative * std::fabs(want.x[i]) + 0x1p-25 + 2 * want.bound[i];
    ASSERT_TRUE(std::fabs(value - want.x[i]) <= bound)
        << "at " << i << ": " << value << " " << want.x[i];
  }
}

/// The CPU's rounding of the f64 row: its scale up to the last bit of f16, and levels that differ
/// by one at most and rarely; or, as sums of squares round, another scale of the same error.
template <kern::KvType T>
void expect_group(const Reader& got, const Row& want, int group, int* n_flip) {
  float x[kern::kKvGroup];
  int8_t levels[kern::kKvGroup];
  uint16_t d_cpu = 0;
  double slack = 0.0, error = 0.0, cpu_error = 0.0;
  for (int i = 0; i < 32; ++i)
    x[i] = static_cast<float>(want.x[static_cast<size_t>(32 * group + i)]);
  kern::quantise_group<T>(x, levels, &d_cpu);
  const uint16_t d_bits = got.scale_bits(group);
  const double d = f32_from_f16(d_bits), of_cpu = f32_from_f16(d_cpu);
  const bool same_scale = std::abs(d_bits - d_cpu) <= 1;
  for (int i = 0; i < 32; ++i) {
    const auto at = static_cast<size_t>(32 * group + i);
    const int level = got.level(static_cast<int>(at));
    error += std::pow(level * d - want.x[at], 2);
    cpu_error += std::pow(levels[i] * of_cpu - want.x[at], 2);
    slack += 2 * std::fabs(d) * want.bound[at] + std::fabs(d * d) * 0x1p-10;
    if (!same_scale) continue;
    ASSERT_LE(std::abs(level - levels[i]), 1) << "at " << at;
    *n_flip += level != levels[i];
  }
  ASSERT_TRUE(same_scale || T == kern::KvType::kQ4_0) << d << " " << of_cpu;
  ASSERT_TRUE(error <= cpu_error * (1 + 1e-3) + slack) << error << " " << cpu_error;
}

void expect_stored(const Case& c, std::vector<std::byte> pool, bool is_v) {
  const Shape& s = c.s;
  const DType type = is_v ? s.type_v : s.type_k;
  int n_flip = 0;
  for (int r = 0; r < s.live; ++r) {
    for (int h = 0; h < s.n_kv_head; ++h) {
      SCOPED_TRACE(testing::Message() << (is_v ? "v" : "k") << " row " << r << " head " << h);
      Reader got(pool, type, is_v, s.head_dim, c.block_of(r) * s.n_kv_head + h,
                 c.slot[static_cast<size_t>(r)] % kBlockTok);
      const Row want =
          c.reference(c.row_of(is_v ? c.v : c.k, r, h, s.n_kv_head),
                      s.norm && !is_v ? c.k_norm.data() : nullptr, r, !is_v, quantised(type));
      if (!quantised(type)) expect_halves(got, type, want);
      for (int g = 0; g < s.head_dim / 32 && quantised(type); ++g) {
        if (type == DType::kQ8_0)
          expect_group<kern::KvType::kQ8_0>(got, want, g, &n_flip);
        else
          expect_group<kern::KvType::kQ4_0>(got, want, g, &n_flip);
      }
      if (testing::Test::HasFatalFailure()) return;
      got.forget();
    }
  }
  EXPECT_LE(n_flip, 2 + s.live * s.n_kv_head * s.head_dim / 200);
  EXPECT_TRUE(pool == c.unwritten(type)) << "wrote elsewhere";
}

void expect_case(const Case& c, const Case::Out& out) {
  const Shape& s = c.s;
  SCOPED_TRACE(testing::Message() << "head_dim " << s.head_dim << " rope_dim " << s.rope_dim
                                  << " kind " << static_cast<int>(s.kind) << " types "
                                  << static_cast<int>(s.type_k) << " " << static_cast<int>(s.type_v)
                                  << " norm " << s.norm);
  for (int r = 0; r < s.m; ++r) {
    for (int h = 0; h < s.n_head; ++h) {
      const float* got = c.row_of(out.q, r, h, s.n_head);
      if (r >= s.live) {
        for (int i = 0; i < s.head_dim; ++i) ASSERT_EQ(got[i], kUntouched);
        continue;
      }
      const Row want =
          c.reference(c.row_of(c.q, r, h, s.n_head), s.norm ? c.q_norm.data() : nullptr, r, true,
                      quantised(s.type_k));
      for (int i = 0; i < s.head_dim; ++i) {
        const auto at = static_cast<size_t>(i);
        ASSERT_TRUE(std::fabs(got[i] - want.x[at]) <= want.bound[at])
            << "q row " << r << " head " << h << " at " << i << ": " << got[i] << " " << want.x[at];
      }
    }
  }
  expect_stored(c, out.k, false);
  expect_stored(c, out.v, true);
}

using RopeStore = Emulated;

TEST_F(RopeStore, OddHeadsWithHalfPools) {
  for (const int head_dim : {2, 6, 62, 64, 66, 80, 96, 128, 250, 256}) {
    for (const RopeKind kind : {RopeKind::kNorm, RopeKind::kNeox}) {
      for (const bool norm : {false, true}) {
        const DType other = norm ? DType::kBF16 : DType::kF16;
        for (const int rope_dim : {head_dim, head_dim / 4 * 2, 0}) {
          const Case c({.n_head = 3,
                        .n_kv_head = 1,
                        .head_dim = head_dim,
                        .rope_dim = rope_dim,
                        .kind = kind,
                        .type_k = other,
                        .type_v = DType::kF16,
                        .norm = norm});
          expect_case(c, c.run());
        }
      }
    }
  }
}

TEST_F(RopeStore, QuantisedPoolsRotateAndRound) {
  for (const int head_dim : {32, 64, 96, 128, 160, 224, 256}) {
    for (const DType k : {DType::kQ8_0, DType::kQ4_0, DType::kF16}) {
      for (const DType v : {DType::kQ8_0, DType::kQ4_0, DType::kBF16}) {
        const Case c({.n_head = 4,
                      .n_kv_head = 2,
                      .head_dim = head_dim,
                      .rope_dim = head_dim / 2,
                      .kind = RopeKind::kNeox,
                      .type_k = k,
                      .type_v = v,
                      .norm = k == DType::kQ4_0,
                      .m = 3,
                      .live = 2});
        expect_case(c, c.run());
      }
    }
  }
}

TEST_F(RopeStore, ManyRows) {
  for (const int m : {1, 33, 65}) {
    const Case c({.n_head = 2,
                  .n_kv_head = 1,
                  .head_dim = 32,
                  .rope_dim = 32,
                  .type_k = DType::kQ8_0,
                  .type_v = DType::kQ4_0,
                  .m = m,
                  .live = m - m / 33});
    expect_case(c, c.run());
  }
}

TEST_F(RopeStore, TenSeedsGiveTheSameBits) {
  const Case halves({.n_head = 3,
                     .n_kv_head = 2,
                     .head_dim = 96,
                     .rope_dim = 96,
                     .kind = RopeKind::kNeox,
                     .norm = true});
  const Case rounded({.n_head = 3,
                      .n_kv_head = 2,
                      .head_dim = 96,
                      .rope_dim = 64,
                      .kind = RopeKind::kNeox,
                      .type_k = DType::kQ4_0,
                      .type_v = DType::kQ8_0});
  for (const Case* c : {&halves, &rounded}) {
    const Case::Out first = c->run();
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      reset({.architecture = seed % 2 == 0 ? 75 : 80, .seed = seed});
      const Case::Out out = c->run();
      expect_case(*c, out);
      EXPECT_TRUE(out == first) << "seed " << seed;
    }
  }
}

TEST_F(RopeStore, NoRows) {
  for (const int m : {0, 2}) {
    const Case c({.n_head = 2, .type_k = DType::kQ8_0, .m = m, .live = 0});
    const Case::Out out = c.run();
    for (const float x : out.q) EXPECT_EQ(x, kUntouched);
    EXPECT_TRUE(out.k == c.unwritten(DType::kQ8_0) && out.v == c.unwritten(DType::kF16));
  }
}

// A row of zeros, one that f16 cannot scale, and a NaN: levels 0, the scale says which.
TEST_F(RopeStore, GroupsThatCannotBeScaled) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    Case c({.head_dim = 32, .rope_dim = 0, .type_k = type, .type_v = type, .m = 3, .live = 3});
    for (size_t i = 0; i < 96; ++i)
      c.v[i] = i < 32 ? 0.0f : i < 64 ? (i == 32 ? 3e9f : 0.0f) : (i == 70 ? NAN : 1.0f);
    auto out = c.run();
    for (int r = 0; r < 3; ++r) {
      const Reader got(out.v, type, true, 32, c.block_of(r),
                       c.slot[static_cast<size_t>(r)] % kBlockTok);
      for (int i = 0; i < 32; ++i) EXPECT_EQ(got.level(i), 0);
      EXPECT_EQ(std::isnan(f32_from_f16(got.scale_bits(0))), r > 0);
    }
  }
}

TEST_F(RopeStore, RefusesWhatItCannotStore) {
  RopeStoreArgs a;
  a.pool.n_kv_head = a.n_head = 1;
  a.rows.m = 1;
  for (const int head_dim : {0, 63, 258}) {
    a.pool.head_dim = head_dim;
    EXPECT_EQ(rope_store(a, nullptr), cudaErrorInvalidValue) << head_dim;
  }
  a.pool.head_dim = 80;
  a.pool.type_v = DType::kQ8_0;
  EXPECT_EQ(rope_store(a, nullptr), cudaErrorInvalidValue);
  a.pool.type_v = DType::kF32;
  EXPECT_EQ(rope_store(a, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace infer::cuda::test
