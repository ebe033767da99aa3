#include <bit>
#include <cstring>

#include "core/base/half.h"
#include "tests/ops/ops_support.h"

namespace infer::test {
namespace {

using kern::KvType;

class KvStore : public IsaTest {
 protected:
  static void put(std::vector<std::byte>& pool, int64_t element, KvType type, float value) {
    if (type == KvType::kF16) {
      const uint16_t h = f16_from_f32(value);
      std::memcpy(pool.data() + element * 2, &h, 2);
    } else {
      std::memcpy(pool.data() + element * 4, &value, 4);
    }
  }
};

TEST_P(KvStore, WritesExactlyItsSlot) {
  const float special[] = {0.0f,           -0.0f,    1e-8f,    5.96e-8f, 6.1e-5f,
                           65504.0f,       65519.0f, 65520.0f, -1e9f,    1.00048828125f,
                           1.00146484375f, kInf,     -kInf};
  for (const KvType k_type : {KvType::kF32, KvType::kF16}) {
    for (const KvType v_type : {KvType::kF32, KvType::kF16}) {
      for (const int64_t dim : {1, 8, 20, 64}) {
        const int64_t dim_v = dim == 20 ? 13 : dim, n_kv_head = 3, n_block = 4;
        kern::KvPoolView p{.k_type = k_type,
                           .v_type = v_type,
                           .n_kv_head = n_kv_head,
                           .head_dim = dim,
                           .head_dim_v = dim_v};
        std::vector<std::byte> k(static_cast<size_t>(n_block * k_block_bytes(p)), std::byte{0x5a});
        std::vector<std::byte> v(static_cast<size_t>(n_block * v_block_bytes(p)), std::byte{0x5a});
        std::vector<std::byte> want_k = k, want_v = v;
        p.k = k.data();
        p.v = v.data();
        std::vector<float> k_row = uniforms(n_kv_head * dim, -9.0f, 9.0f);
        const std::vector<float> v_row = uniforms(n_kv_head * dim_v, -9.0f, 9.0f);
        for (float& x : k_row) {
          if (pick(0, 1)) x = special[pick(0, std::size(special) - 1)];
        }
        const int32_t block = static_cast<int32_t>(pick(0, n_block - 1));
        const int32_t offset = static_cast<int32_t>(pick(0, kern::kBlockTok - 1));
        for (int64_t h = 0; h < n_kv_head; ++h) {
          for (int64_t d = 0; d < dim; ++d) {
            const int64_t at = ((block * n_kv_head + h) * dim + d) * kern::kBlockTok + offset;
            put(want_k, at, k_type, k_row[static_cast<size_t>(h * dim + d)]);
          }
          for (int64_t d = 0; d < dim_v; ++d) {
            const int64_t at = ((block * n_kv_head + h) * kern::kBlockTok + offset) * dim_v + d;
            put(want_v, at, v_type, v_row[static_cast<size_t>(h * dim_v + d)]);
          }
        }
        kernels.kv_store({.pool = p,
                          .block = block,
                          .offset = offset,
                          .k_row = k_row.data(),
                          .v_row = v_row.data()});
        ASSERT_TRUE(k == want_k) << "dim " << dim;
        ASSERT_TRUE(v == want_v) << "dim " << dim;
      }
    }
  }
}

TEST_P(KvStore, NaNStaysNaN) {
  std::vector<std::byte> k(8 * 32 * 2), v(8 * 32 * 2);
  const std::vector<float> row(8, kNaN);
  const kern::KvPoolView p{.k = k.data(),
                           .v = v.data(),
                           .k_type = KvType::kF16,
                           .v_type = KvType::kF16,
                           .n_kv_head = 1,
                           .head_dim = 8,
                           .head_dim_v = 8};
  kernels.kv_store({.pool = p, .block = 0, .offset = 0, .k_row = row.data(), .v_row = row.data()});
  uint16_t h[2];
  std::memcpy(&h[0], k.data(), 2);
  std::memcpy(&h[1], v.data(), 2);
  EXPECT_TRUE(std::isnan(f32_from_f16(h[0])) && std::isnan(f32_from_f16(h[1])));
}

/// H x by the definition, in pieces of n = the largest power of two up to 128 that divides the
/// size.
std::vector<double> rotated(std::span<const float> x) {
  size_t n = 1;
  while (n < 128 && x.size() % (2 * n) == 0) n *= 2;
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i / n * n; j < (i / n + 1) * n; ++j)
      y[i] += std::popcount((i % n) & (j % n)) % 2 != 0 ? -x[j] : x[j];
    y[i] /= std::sqrt(static_cast<double>(n));
  }
  return y;
}

/// Where a quantised pool of one head keeps dim d of token t: its level and its scale.
struct Place {
  size_t level, scale;
  int shift;
};
Place place_of(KvType type, bool k, int64_t dim, int64_t t, int64_t d) {
  const int64_t tok = kern::kBlockTok, scale = (d / 32 * tok + t) * 2;
  if (type == KvType::kQ8_0) {
    const int64_t at = k ? d * tok + t : t * dim + d;
    return {static_cast<size_t>(at), static_cast<size_t>(dim * tok + scale), 0};
  }
  const int64_t at = k ? d / 2 * tok + t : t * dim / 2 + d / 32 * 16 + d % 16;
  return {static_cast<size_t>(at), static_cast<size_t>(dim * tok / 2 + scale),
          static_cast<int>(k ? d % 2 * 4 : d % 32 / 16 * 4)};
}

class KvStoreQuantised : public IsaTest {
 protected:
  /// Stores one row as K and V of a pool of one head and one block of 0x5a.
  void store(KvType type, const std::vector<float>& row, int32_t offset,
             const std::vector<float>& q = {}) {
    const auto dim = static_cast<int64_t>(row.size());
    pool_ = {.k_type = type, .v_type = type, .n_kv_head = 1, .head_dim = dim, .head_dim_v = dim};
    for (std::vector<std::byte>* side : {&k_, &v_})
      side->assign(static_cast<size_t>(k_block_bytes(pool_)), std::byte{0x5a});
    pool_.k = k_.data();
    pool_.v = v_.data();
    const kern::KvStoreArgs args{.pool = pool_,
                                 .block = 0,
                                 .offset = offset,
                                 .k_row = row.data(),
                                 .v_row = row.data(),
                                 .q_row = q.empty() ? nullptr : q.data(),
                                 .n_head = static_cast<int64_t>(q.size()) / dim};
    kernels.kv_store(args);
  }
  float scale_at(const std::vector<std::byte>& side, const Place& at) const {
    uint16_t h;
    std::memcpy(&h, side.data() + at.scale, 2);
    return f32_from_f16(h);
  }
  kern::KvPoolView pool_;
  std::vector<std::byte> k_, v_;
};

// A level is the nearest: half a step, with room for the seven additions of a rotation and for the
// rounding of the scale's inverse. q4_0 may cut the largest by up to two steps (from 9 to 7).
TEST_P(KvStoreQuantised, RowsAreRotatedAndRoundedIntoTheirSlotOnly) {
  for (const KvType type : {KvType::kQ8_0, KvType::kQ4_0}) {
    for (const int64_t dim : {32, 64, 96, 128, 256}) {
      for (const float size : {1e-9f, 1e-6f, 1.0f, 300.0f}) {
        const std::vector<float> row = uniforms(dim, -size, size);
        const auto offset = static_cast<int32_t>(pick(0, kern::kBlockTok - 1));
        store(type, row, offset);
        const std::vector<double> want = rotated(row);
        for (const bool k : {true, false}) {
          std::vector<std::byte> rest = k ? k_ : v_;
          for (int64_t d = 0; d < dim; ++d) {
            const Place at = place_of(type, k, dim, offset, d);
            const float scale = scale_at(k ? k_ : v_, at);
            const int byte = static_cast<int>((k ? k_ : v_)[at.level]);
            const int level =
                type == KvType::kQ8_0 ? static_cast<int8_t>(byte) : ((byte >> at.shift) & 15) - 8;
            const double x = want[static_cast<size_t>(d)];
            const double step = std::fabs(scale), top = type == KvType::kQ8_0 ? 127 : 7;
            const bool cut = std::fabs(x) > top * step;
            // A scale among the subnormal halves is a multiple of 2^-24, 2^-25 off at most.
            const double bound = (cut ? 2.0 : 0.5) * step + 8 * kEps * size * 12 +
                                 step * top * 0x1p-11 + (step < 0x1p-14 ? 128 * 0x1p-25 : 0.0);
            ASSERT_TRUE(std::fabs(x - static_cast<double>(scale) * level) <= bound)
                << "dim " << dim << " d " << d << ": " << x << " as " << level << " * " << scale;
            std::memset(rest.data() + at.scale, 0x5a, 2);
            rest[at.level] = std::byte{0x5a};
          }
          for (const std::byte b : rest) ASSERT_EQ(b, std::byte{0x5a}) << "wrote outside its slot";
        }
      }
    }
  }
}

TEST_P(KvStoreQuantised, EveryLevelStoresTheSameBytes) {
  auto generic = *kern::select_kernels(detect_cpu_features(), "generic");
  for (const KvType type : {KvType::kQ8_0, KvType::kQ4_0}) {
    for (int i = 0; i < 50; ++i) {
      const std::vector<float> row = uniforms(pick(1, 8) * 32, -3.0f, 3.0f);
      const std::vector<float> q =
          uniforms(pick(0, 3) * static_cast<int64_t>(row.size()), -3.0f, 3.0f);
      store(type, row, 7, q);
      const std::vector<std::byte> k = k_, v = v_;
      std::swap(kernels.kv_store, generic.kv_store);
      store(type, row, 7, q);
      std::swap(kernels.kv_store, generic.kv_store);
      ASSERT_TRUE(k == k_ && v == v_);
    }
  }
}

// Queries of few large channels: the errors there and along the queries, weighted as kv_quant.h
// says, become small, and in no row larger than those of nearest levels.
TEST_P(KvStoreQuantised, QueriesShapeTheErrorsOfK) {
  for (const int64_t dim : {32, 64, 96, 128, 256}) {
    double plain_sum = 0.0, shaped_sum = 0.0;
    for (int i = 0; i < 40; ++i) {
      const std::vector<float> row = uniforms(dim, -2.0f, 2.0f);
      std::vector<float> q = uniforms(3 * dim, -1.0f, 1.0f);
      for (int64_t h = 0; h < 3; ++h) {
        for (int64_t d = 5; d < dim; d += 16) q[static_cast<size_t>(h * dim + d)] *= 20.0f;
      }
      const auto weighted_error = [&] {
        std::vector<float> decoded(row.size());
        for (int64_t d = 0; d < dim; ++d) {
          const Place at = place_of(KvType::kQ4_0, true, dim, 9, d);
          const int level = ((static_cast<int>(k_[at.level]) >> at.shift) & 15) - 8;
          decoded[static_cast<size_t>(d)] = scale_at(k_, at) * static_cast<float>(level);
        }
        const std::vector<double> back = rotated(decoded);
        const size_t n = std::min<size_t>(128, row.size() & -row.size());
        double sum = 0.0;
        for (size_t at = 0; at < row.size(); at += n) {
          std::vector<double> rms(n);
          double total = 0.0;
          for (size_t d = 0; d < n; ++d) {
            for (size_t h = 0; h < 3; ++h) rms[d] += std::pow(q[h * row.size() + at + d], 2);
            total += rms[d];
          }
          for (size_t d = 0; d < n; ++d) {
            const double w = std::sqrt(rms[d] * static_cast<double>(n) / total) + 0.3;
            sum += w * std::pow(back[at + d] - row[at + d], 2);
          }
          for (size_t h = 0; h < 3; ++h) {
            double along = 0.0;
            for (size_t d = 0; d < n; ++d)
              along += q[h * row.size() + at + d] * (back[at + d] - row[at + d]);
            sum += static_cast<double>(n) / total * along * along;
          }
        }
        return sum;
      };
      store(KvType::kQ4_0, row, 9);
      const std::vector<std::byte> v = v_;
      const double plain = weighted_error();
      store(KvType::kQ4_0, row, 9, q);
      const double shaped = weighted_error();
      ASSERT_TRUE(shaped <= plain * 1.0001) << "dim " << dim;
      ASSERT_TRUE(v == v_) << "V has no queries";
      plain_sum += plain;
      shaped_sum += shaped;
    }
    EXPECT_TRUE(shaped_sum < 0.75 * plain_sum) << dim << ": " << shaped_sum << " " << plain_sum;
  }
}

// The scores of the token's own queries, however many share the head: most of what nearest levels
// spoil is gone.
TEST_P(KvStoreQuantised, OwnScoresComeOutCloser) {
  for (const int64_t n_q : {1, 3, 8, 9, 20}) {
    constexpr int64_t kDim = 64;
    double plain_sum = 0.0, shaped_sum = 0.0;
    for (int i = 0; i < 40; ++i) {
      const std::vector<float> row = uniforms(kDim, -2.0f, 2.0f);
      const std::vector<float> one = uniforms(kDim, -1.0f, 1.0f);
      std::vector<float> q = uniforms(n_q * kDim, -0.3f, 0.3f);
      for (size_t j = 0; j < q.size(); ++j) q[j] += one[j % kDim];
      const auto score_error = [&] {
        std::vector<float> decoded(row.size());
        for (int64_t d = 0; d < kDim; ++d) {
          const Place at = place_of(KvType::kQ4_0, true, kDim, 9, d);
          const int level = ((static_cast<int>(k_[at.level]) >> at.shift) & 15) - 8;
          decoded[static_cast<size_t>(d)] = scale_at(k_, at) * static_cast<float>(level);
        }
        const std::vector<double> back = rotated(decoded);
        double sum = 0.0;
        for (int64_t h = 0; h < n_q; ++h) {
          double along = 0.0;
          for (size_t d = 0; d < row.size(); ++d)
            along += q[static_cast<size_t>(h * kDim) + d] * (back[d] - row[d]);
          sum += along * along;
        }
        return sum;
      };
      store(KvType::kQ4_0, row, 9);
      plain_sum += score_error();
      store(KvType::kQ4_0, row, 9, q);
      shaped_sum += score_error();
    }
    EXPECT_TRUE(shaped_sum < 0.5 * plain_sum) << n_q << ": " << shaped_sum << " " << plain_sum;
  }
}

TEST_P(KvStoreQuantised, QueriesThatAreNoNumbersChangeNothing) {
  const std::vector<float> row = uniforms(64, -2.0f, 2.0f);
  store(KvType::kQ4_0, row, 9);
  const std::vector<std::byte> plain = k_;
  for (const float bad : {kNaN, kInf, -kInf, 3e38f, 0.0f}) {
    std::vector<float> q(128, bad);
    store(KvType::kQ4_0, row, 9, q);
    EXPECT_TRUE(k_ == plain) << bad;
  }
}

TEST_P(KvStoreQuantised, NotANumberMakesTheScaleNaN) {
  for (const KvType type : {KvType::kQ8_0, KvType::kQ4_0}) {
    for (const float bad : {kNaN, kInf, -kInf, 3e38f}) {
      std::vector<float> row = uniforms(64, -3.0f, 3.0f);
      row[40] = bad;
      store(type, row, 3);
      for (const int64_t d : {0, 32}) {
        EXPECT_TRUE(std::isnan(scale_at(k_, place_of(type, true, 64, 3, d)))) << bad;
        EXPECT_TRUE(std::isnan(scale_at(v_, place_of(type, false, 64, 3, d)))) << bad;
      }
    }
  }
}

INFER_FOR_EACH_ISA(KvStore);
INFER_FOR_EACH_ISA(KvStoreQuantised);

}  // namespace
}  // namespace infer::test
