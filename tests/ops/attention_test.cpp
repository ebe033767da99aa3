#include "tests/ops/attention_case.h"
#include "tests/ops/ops_support.h"
#include "tests/support/sanitizers.h"

/// Attention against f64, with the bound derived in attention_case.cpp.
namespace infer::test {
namespace {

using kern::KvType;

struct KvTypes {
  KvType k, v;
};
constexpr KvTypes kPairs[] = {
    {KvType::kF32, KvType::kF32},   {KvType::kF32, KvType::kF16},   {KvType::kF16, KvType::kF32},
    {KvType::kF16, KvType::kF16},   {KvType::kQ8_0, KvType::kQ8_0}, {KvType::kQ4_0, KvType::kQ4_0},
    {KvType::kQ8_0, KvType::kQ4_0}, {KvType::kQ4_0, KvType::kF16},  {KvType::kF16, KvType::kQ8_0},
};

class Attention : public IsaTest {
 protected:
  void check(const AttnShape& shape) {
    const AttnCase c(shape, rng);
    const AttnCase::Reference ref = c.reference();
    ASSERT_TRUE(within(c.run(kernels), ref.out, ref.bound)) << shape.text();
  }
  /// `n` rows that end at `last`, as a chunk of a prompt has them.
  static std::vector<int32_t> chunk(int64_t n, int64_t last) {
    std::vector<int32_t> slots;
    for (int64_t i = 0; i < n; ++i) {
      if (last - n + 1 + i >= 0) slots.push_back(static_cast<int32_t>(last - n + 1 + i));
    }
    return slots;
  }
};

TEST_P(Attention, EveryDepthTypeAndGroup) {
  for (const int64_t n_slots : {1, 31, 32, 33, 511, 512, 513, 1100}) {
    for (const int64_t group : {1, 3, 4, 8}) {
      for (const KvTypes& types : kPairs) {
        if (n_slots > 600 && group < 8 && types.k != types.v) continue;  // the reference is slow
        if (kSanitized && pick(0, 2) > 0) continue;  // a third of them: it is slow there
        const int64_t n_rows = pick(1, kern::attn_rows(group));
        check({.n_kv_head = 2,
               .group = group,
               .head_dim = 64,
               .head_dim_v = 64,
               .k_type = types.k,
               .v_type = types.v,
               .q_slot = chunk(n_rows, n_slots - 1)});
      }
    }
  }
}

TEST_P(Attention, EveryNumberOfRows) {
  for (int64_t n_rows = 1; n_rows <= kern::kAttnRows; ++n_rows) {
    for (const int64_t group : {1, 3, 4, 8}) {
      if (n_rows > kern::attn_rows(group)) continue;
      for (const KvType type : {KvType::kF16, KvType::kQ8_0, KvType::kQ4_0}) {
        check({.group = group, .k_type = type, .v_type = type, .q_slot = chunk(n_rows, 69)});
      }
    }
  }
}

TEST_P(Attention, EveryHeadSize) {
  for (const int64_t dim : {1, 3, 7, 8, 12, 16, 20, 40, 64, 72, 80, 96, 128, 256}) {
    for (const int64_t dim_v : {1, 5, 8, 24, 63, 64, 80, 128, 256}) {
      const KvType k = pick(0, 1) ? KvType::kF16 : KvType::kF32;
      const KvType v = pick(0, 1) ? KvType::kF16 : KvType::kF32;
      check({.group = pick(1, 7),
             .head_dim = dim,
             .head_dim_v = dim_v,
             .k_type = k,
             .v_type = v,
             .q_slot = chunk(pick(1, 4), 75)});
    }
  }
}

TEST_P(Attention, EveryQuantisedHeadSize) {
  for (const int64_t dim : {32, 64, 96, 128, 160, 256}) {
    for (const int64_t dim_v : {32, 64, 96, 128, 192, 256}) {
      check({.group = pick(1, 7),
             .head_dim = dim,
             .head_dim_v = dim_v,
             .k_type = pick(0, 1) ? KvType::kQ8_0 : KvType::kQ4_0,
             .v_type = pick(0, 1) ? KvType::kQ8_0 : KvType::kQ4_0,
             .q_slot = chunk(pick(1, 4), 75)});
    }
  }
}

TEST_P(Attention, Windows) {
  for (const int64_t window : {1, 7, 8, 33, 600}) {
    for (const int64_t n_slots : {1, 33, 513, 1100}) {
      for (const int64_t n_rows : {1, 8}) {
        check({.group = 3,
               .head_dim = 32,
               .head_dim_v = 32,
               .k_type = KvType::kF16,
               .v_type = KvType::kF32,
               .q_slot = chunk(n_rows, n_slots - 1),
               .window = window});
      }
    }
  }
}

TEST_P(Attention, SoftcapAndAlibi) {
  for (const bool alibi : {false, true}) {
    for (const float softcap : {0.0f, 5.0f, 50.0f}) {
      for (const int64_t n_slots : {1, 40, 1100}) {
        for (const int64_t window : {0, 100}) {
          check({.n_kv_head = 2,
                 .group = 4,
                 .head_dim = 16,
                 .head_dim_v = 24,
                 .q_slot = chunk(5, n_slots - 1),
                 .window = window,
                 .softcap = softcap,
                 .alibi = alibi});
        }
      }
    }
  }
}

TEST_P(Attention, RowsFarApartInAnyOrder) {
  check({.group = 3, .q_slot = {1030, 0, 511, 512, 33, 700, 32, 31}});
  check({.group = 1, .q_slot = {1030, 0, 511, 512, 33, 700, 32, 31}, .window = 40});
}

// One token's logit towers over the others, early or late: the rescaling is not an identity.
TEST_P(Attention, MaximumMoves) {
  for (const int64_t peak : {0, 40, 600, 899}) {
    AttnCase c({.group = 2, .head_dim = 8, .head_dim_v = 8, .q_slot = {899}}, rng);
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t d = 0; d < 8; ++d) c.q_at(0, h)[d] = 20.0f;
    }
    for (int64_t d = 0; d < 8; ++d) c.set_k(peak, 0, d, 4.0f);
    const AttnCase::Reference ref = c.reference();
    ASSERT_TRUE(within(c.run(kernels), ref.out, ref.bound)) << "peak " << peak;
  }
}

INFER_FOR_EACH_ISA(Attention);

}  // namespace
}  // namespace infer::test
