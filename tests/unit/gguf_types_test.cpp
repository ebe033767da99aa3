#include <array>
#include <set>

#include <gtest/gtest.h>

#include "core/base/quant_types.h"

namespace infer {
namespace {

struct Row {
  uint32_t id;
  std::string_view name;
  int block_len, block_bytes;
};
// Written down apart from the table under test: gguf-py's GGML_QUANT_SIZES, with ggml's 36 for q8_1
// and q2_0 of ggml.h.
constexpr std::array kRows = {
    Row{0, "f32", 1, 4},         Row{1, "f16", 1, 2},         Row{2, "q4_0", 32, 18},
    Row{3, "q4_1", 32, 20},      Row{6, "q5_0", 32, 22},      Row{7, "q5_1", 32, 24},
    Row{8, "q8_0", 32, 34},      Row{9, "q8_1", 32, 36},      Row{10, "q2_k", 256, 84},
    Row{11, "q3_k", 256, 110},   Row{12, "q4_k", 256, 144},   Row{13, "q5_k", 256, 176},
    Row{14, "q6_k", 256, 210},   Row{15, "q8_k", 256, 292},   Row{16, "iq2_xxs", 256, 66},
    Row{17, "iq2_xs", 256, 74},  Row{18, "iq3_xxs", 256, 98}, Row{19, "iq1_s", 256, 50},
    Row{20, "iq4_nl", 32, 18},   Row{21, "iq3_s", 256, 110},  Row{22, "iq2_s", 256, 82},
    Row{23, "iq4_xs", 256, 136}, Row{24, "i8", 1, 1},         Row{25, "i16", 1, 2},
    Row{26, "i32", 1, 4},        Row{27, "i64", 1, 8},        Row{28, "f64", 1, 8},
    Row{29, "iq1_m", 256, 56},   Row{30, "bf16", 1, 2},       Row{34, "tq1_0", 256, 54},
    Row{35, "tq2_0", 256, 66},   Row{39, "mxfp4", 32, 17},    Row{40, "nvfp4", 64, 36},
    Row{41, "q1_0", 128, 18},    Row{42, "q2_0", 64, 18},
};

TEST(QuantTypes, AgreeWithThePublishedTable) {
  EXPECT_EQ(kRows.size(), quant_types().size());
  for (const Row& row : kRows) {
    const auto type = dtype_from_gguf_id(row.id);
    ASSERT_TRUE(type.has_value()) << row.id;
    EXPECT_EQ(quant_type(*type).name, row.name);
    EXPECT_EQ(quant_type(*type).block_len, row.block_len) << row.name;
    EXPECT_EQ(quant_type(*type).block_bytes, row.block_bytes) << row.name;
    EXPECT_EQ(dtype_from_name(row.name), type);
    EXPECT_TRUE(removed_type_name(row.id).empty()) << row.name;
  }
}

TEST(QuantTypes, EveryIdUpToTheLastIsKnownOrRemoved) {
  for (uint32_t id = 0; id <= 42; ++id) {
    EXPECT_NE(dtype_from_gguf_id(id).has_value(), !removed_type_name(id).empty()) << id;
  }
  EXPECT_FALSE(dtype_from_gguf_id(43).has_value());
  EXPECT_TRUE(removed_type_name(43).empty());
  EXPECT_EQ(removed_type_name(5), "q4_3");
  EXPECT_EQ(removed_type_name(33), "q4_0_8_8");
}

TEST(QuantTypes, NamesAreFoundInAnyCaseAndWholly) {
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::kQ4_K);
  EXPECT_FALSE(dtype_from_name("q4_").has_value());
  EXPECT_FALSE(dtype_from_name("q4_k_m").has_value());
  EXPECT_FALSE(dtype_from_name("").has_value());
}

TEST(QuantTypes, RowBytesChecksItsInput) {
  EXPECT_EQ(row_bytes(DType::kQ4_K, 512), 288);
  EXPECT_EQ(row_bytes(DType::kF16, 3), 6);
  EXPECT_EQ(row_bytes(DType::kF32, 0), 0);
  EXPECT_FALSE(row_bytes(DType::kQ4_0, 33).has_value());
  EXPECT_FALSE(row_bytes(DType::kF32, -4).has_value());
  EXPECT_FALSE(row_bytes(DType::kF64, INT64_MAX).has_value());
}

}  // namespace
}  // namespace infer
