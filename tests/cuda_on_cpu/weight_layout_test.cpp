#include "kernels/cuda/weight_layout.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/base/quant_types.h"

namespace infer::cuda::test {

TEST(WeightLayout, PartsOfABlockCoverItOnce) {
  int n_type = 0;
  for (const QuantType& type : quant_types()) {
    const WeightLayout layout = weight_layout(type.type);
    if (layout.n_plane == 0) continue;
    ++n_type;
    EXPECT_EQ(layout.block_len, type.block_len) << type.name;
    std::vector<int> covered(static_cast<size_t>(type.block_bytes));
    for (int p = 0; p < layout.n_plane; ++p)
      for (int i = 0; i < layout.plane_bytes[p]; ++i)
        ++covered.at(static_cast<size_t>(layout.source_begin[p] + i));
    EXPECT_EQ(covered, std::vector<int>(covered.size(), 1)) << type.name;
  }
  EXPECT_EQ(n_type, 15);  // as many as the CPU computes with
}

// The Q6_K of two rows, packed in two calls: every byte at the place that the header promises.
TEST(WeightLayout, RowsGoToTheirPlaces) {
  const WeightLayout layout = weight_layout(DType::kQ6_K);
  constexpr int64_t kN = 3, kK = 512, kBlocks = kK / 256, kBytes = 210;
  std::vector<std::byte> file(kN * kBlocks * kBytes);
  for (size_t i = 0; i < file.size(); ++i) file[i] = static_cast<std::byte>(i * 7 + i / 251);
  const int64_t all = plane_offset(layout, layout.n_plane, kN, kK);
  std::vector<std::byte> out(static_cast<size_t>(all));
  repack_rows(layout, file.data(), kN, kK, 0, 1, out.data());
  repack_rows(layout, file.data() + kBlocks * kBytes, kN, kK, 1, kN, out.data());
  for (int p = 0; p < layout.n_plane; ++p) {
    EXPECT_EQ(plane_offset(layout, p, kN, kK) % kPlaneAlign, 0);
    for (int64_t b = 0; b < kN * kBlocks; ++b)
      for (int i = 0; i < layout.plane_bytes[p]; ++i)
        ASSERT_EQ(out[static_cast<size_t>(plane_offset(layout, p, kN, kK) +
                                          b * layout.plane_bytes[p] + i)],
                  file[static_cast<size_t>(b * kBytes + layout.source_begin[p] + i)]);
  }
}

}  // namespace infer::cuda::test
