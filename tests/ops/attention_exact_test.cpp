#include <algorithm>
#include <numeric>

#include "tests/ops/attention_case.h"
#include "tests/ops/ops_support.h"

/// One reduction order: the bits of a partial depend on nothing but the row, the head and the slots
/// they see.
namespace infer::test {
namespace {

using kern::KvType;

class AttentionExact : public IsaTest {
 protected:
  AttnShape random_shape() {
    constexpr int64_t kDims[] = {4, 8, 20, 32, 64, 72};
    AttnShape s;
    s.n_kv_head = pick(1, 2);
    s.group = pick(1, 8);
    s.k_type = static_cast<KvType>(pick(0, 3));
    s.v_type = static_cast<KvType>(pick(0, 3));
    s.head_dim = is_quantised(s.k_type) ? pick(1, 3) * 32 : kDims[pick(0, 5)];
    s.head_dim_v = is_quantised(s.v_type) ? pick(1, 3) * 32 : kDims[pick(0, 5)];
    s.window = pick(0, 2) == 0 ? pick(1, 700) : 0;
    s.softcap = pick(0, 3) == 0 ? 20.0f : 0.0f;
    s.alibi = pick(0, 3) == 0;
    s.q_slot.resize(static_cast<size_t>(pick(1, kern::attn_rows(s.group))));
    const bool chunk = pick(0, 1) == 0;
    const int64_t last = pick(8, 1300);
    for (size_t i = 0; i < s.q_slot.size(); ++i) {
      s.q_slot[i] = static_cast<int32_t>(chunk ? last - static_cast<int64_t>(i) : pick(0, last));
    }
    return s;
  }
  static std::vector<int64_t> all_rows(const AttnCase& c) {
    std::vector<int64_t> rows(static_cast<size_t>(c.n_rows()));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  }
  std::vector<float> all(const AttnCase& c) {
    return c.partials(kernels, all_rows(c), 0, c.n_spans());
  }
  static std::span<const float> row_of(const std::vector<float>& v, size_t i, size_t n_rows) {
    return std::span(v).subspan(i * (v.size() / n_rows), v.size() / n_rows);
  }
};

TEST_P(AttentionExact, RowsAloneEqualRowsTogether) {
  for (int i = 0; i < 60; ++i) {
    const AttnCase c(random_shape(), rng);
    const std::vector<float> together = all(c);
    std::vector<int64_t> rows = all_rows(c);
    const size_t n_rows = rows.size();
    std::shuffle(rows.begin(), rows.end(), rng);
    for (size_t at = 0; at < n_rows;) {  // random groups of rows, in random order
      const size_t n = std::min<size_t>(n_rows - at, static_cast<size_t>(pick(1, 3)));
      const std::vector<float> some =
          c.partials(kernels, std::span(rows).subspan(at, n), 0, c.n_spans());
      for (size_t j = 0; j < n; ++j) {
        const auto want = row_of(together, static_cast<size_t>(rows[at + j]), n_rows);
        ASSERT_EQ(first_difference(row_of(some, j, n), want), -1) << c.shape().text();
      }
      at += n;
    }
  }
}

// Levels with vectors, of whatever width, share one order.
TEST_P(AttentionExact, WiderVectorsKeepTheBits) {
  if (!GetParam().starts_with("avx")) return;
  const kern::CpuKernels narrow = *kern::select_kernels(detect_cpu_features(), "avx2");
  for (int i = 0; i < 60; ++i) {
    const AttnCase c(random_shape(), rng);
    const std::vector<float> want = c.partials(narrow, all_rows(c), 0, c.n_spans());
    ASSERT_EQ(first_difference(all(c), want), -1) << c.shape().text();
  }
}

TEST_P(AttentionExact, SpansOneByOneEqualARange) {
  for (int i = 0; i < 40; ++i) {
    const AttnCase c(random_shape(), rng);
    const std::vector<int64_t> rows = all_rows(c);
    std::vector<float> merged = c.partials(kernels, rows, 0, 0);
    const int64_t size = 2 + c.shape().head_dim_v;
    for (int64_t span = 0; span < c.n_spans(); ++span) {
      const std::vector<float> one = c.partials(kernels, rows, span, span + 1);
      for (int64_t p = 0; p < c.n_rows() * c.n_head(); ++p) {
        kernels.attn_merge(merged.data() + p * size, one.data() + p * size, c.shape().head_dim_v);
      }
    }
    ASSERT_EQ(first_difference(merged, all(c)), -1) << c.shape().text();
    // Spans past the end are empty and change nothing.
    ASSERT_EQ(first_difference(c.partials(kernels, rows, 0, c.n_spans() + 3), all(c)), -1);
  }
}

TEST_P(AttentionExact, UnseenSpanIsEmpty) {
  const AttnCase c({.group = 2, .head_dim = 8, .head_dim_v = 8, .q_slot = {1100, 5}, .window = 64},
                   rng);
  const std::vector<float> p = c.partials(kernels, std::vector<int64_t>{0, 1}, 0, 1);
  for (size_t h = 0; h < 2; ++h) {  // row 0 sees nothing of span 0
    EXPECT_EQ(p[h * 10], -kInf);
    for (size_t i = 1; i < 10; ++i) EXPECT_TRUE(same_bits(p[h * 10 + i], 0.0f));
  }
  EXPECT_GE(p[2 * 10 + 1], 1.0f);
}

TEST_P(AttentionExact, PhysicalBlocksDoNotMatter) {
  for (int i = 0; i < 20; ++i) {
    AttnCase c(random_shape(), rng);
    const std::vector<float> before = all(c);
    c.shuffle_blocks(rng);
    ASSERT_EQ(first_difference(all(c), before), -1) << c.shape().text();
  }
}

TEST_P(AttentionExact, MaskedSlotsDoNotMatter) {
  for (int i = 0; i < 40; ++i) {
    AttnCase c(random_shape(), rng);
    const std::vector<float> before = all(c);
    const float huge_k = c.shape().k_type == KvType::kF32 ? 3e38f : 65504.0f;
    const float huge_v = c.shape().v_type == KvType::kF32 ? 3e38f : 65504.0f;
    const int64_t n_slots = (c.n_slots() + kern::kBlockTok - 1) / kern::kBlockTok * kern::kBlockTok;
    for (int64_t s = 0; s < n_slots; ++s) {
      bool seen = false;
      for (int64_t row = 0; row < c.n_rows(); ++row) seen = seen || c.sees(row, s);
      if (seen) continue;
      for (int64_t h = 0; h < c.shape().n_kv_head; ++h) {
        for (int64_t d = 0; d < c.shape().head_dim; ++d)
          c.set_k(s, h, d, pick(0, 1) ? huge_k : -huge_k);
        for (int64_t d = 0; d < c.shape().head_dim_v; ++d)
          c.set_v(s, h, d, pick(0, 1) ? huge_v : -huge_v);
      }
    }
    ASSERT_EQ(first_difference(all(c), before), -1) << c.shape().text();
  }
}

// A slot that one row of the call sees and another does not: the second must not notice what it
// holds.
TEST_P(AttentionExact, AnotherRowsSlotsDoNotMatter) {
  for (const int64_t group : {1, 3, 4}) {
    AttnCase c({.group = group, .head_dim = 16, .head_dim_v = 16, .q_slot = {40, 41, 42, 43}}, rng);
    const std::vector<float> before = all(c);
    for (int64_t d = 0; d < 16; ++d) {
      c.set_k(43, 0, d, d % 2 ? 3e38f : -3e38f);
      c.set_v(43, 0, d, d % 2 ? 3e38f : -3e38f);
    }
    const std::vector<float> after = all(c);
    for (size_t row = 0; row < 3; ++row) {
      ASSERT_EQ(first_difference(row_of(after, row, 4), row_of(before, row, 4)), -1)
          << "row " << row;
    }
    EXPECT_NE(first_difference(row_of(after, 3, 4), row_of(before, 3, 4)), -1);
  }
}

TEST_P(AttentionExact, NaNReachesTheOutput) {
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    const AttnShape shape{.group = 2,
                          .head_dim = 16,
                          .head_dim_v = 24,
                          .k_type = type,
                          .v_type = type,
                          .q_slot = {700, 600, 20}};
    for (const int64_t slot : {0, 30, 32, 511, 512, 600}) {
      AttnCase in_k(shape, rng);
      in_k.set_k(slot, 0, 5, kNaN);
      AttnCase in_v(shape, rng);
      in_v.set_v(slot, 0, 23, kNaN);
      const std::vector<float> k_out = in_k.run(kernels);
      const std::vector<float> v_out = in_v.run(kernels);
      for (int64_t i = 0; i < 3 * 2 * 24; ++i) {
        const bool sees = in_k.sees(i / 48, slot);
        EXPECT_EQ(std::isnan(k_out[static_cast<size_t>(i)]), sees)
            << "slot " << slot << " at " << i;
        EXPECT_EQ(std::isnan(v_out[static_cast<size_t>(i)]), sees && i % 24 == 23)
            << "slot " << slot;
      }
    }
    AttnCase in_q(shape, rng);
    in_q.q_at(1, 1)[3] = kNaN;
    const std::vector<float> out = in_q.run(kernels);
    for (int64_t i = 0; i < 3 * 2 * 24; ++i)
      EXPECT_EQ(std::isnan(out[static_cast<size_t>(i)]), i / 24 == 3);
  }
}

TEST_P(AttentionExact, MergeOfEmptyPartials) {
  std::vector<float> empty(2 + 11, 0.0f);
  empty[0] = -kInf;
  std::vector<float> full = uniforms(2 + 11, -2.0f, 2.0f);
  full[1] = 3.0f;
  full[7] = -0.0f;  // arithmetic with an empty partial would lose the sign
  std::vector<float> left = full;
  kernels.attn_merge(left.data(), empty.data(), 11);
  EXPECT_EQ(first_difference(left, full), -1);
  left = empty;
  kernels.attn_merge(left.data(), full.data(), 11);
  EXPECT_EQ(first_difference(left, full), -1);
}

INFER_FOR_EACH_ISA(AttentionExact);

}  // namespace
}  // namespace infer::test
