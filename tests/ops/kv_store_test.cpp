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

INFER_FOR_EACH_ISA(KvStore);

}  // namespace
}  // namespace infer::test
