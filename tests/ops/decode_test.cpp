// decode_row against gguf-py's dequantize, bit for bit (tests/data/make_quant_blocks.py made the
// values).
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/cpu_features.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"
#include "tests/ops/linear_support.h"

namespace infer::test {
namespace {

struct GoldenRecord {
  DType type = DType::kF32;
  std::vector<std::byte> blocks;
  std::vector<float> values;
};

std::vector<GoldenRecord> read_golden() {
  std::ifstream in("tests/data/quant_blocks.bin", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::vector<GoldenRecord> records;
  for (size_t at = 0; at + 12 <= bytes.size();) {
    uint32_t head[3];
    std::memcpy(head, bytes.data() + at, sizeof(head));
    at += sizeof(head);
    if (at + head[2] + head[1] * sizeof(float) > bytes.size()) return {};
    GoldenRecord r;
    r.type = dtype_from_gguf_id(head[0]).value_or(DType::kCount);
    r.blocks.resize(head[2]);
    r.values.resize(head[1]);
    std::memcpy(r.blocks.data(), bytes.data() + at, r.blocks.size());
    std::memcpy(r.values.data(), bytes.data() + at + r.blocks.size(),
                r.values.size() * sizeof(float));
    at += r.blocks.size() + r.values.size() * sizeof(float);
    records.push_back(std::move(r));
  }
  return records;
}

TEST(DecodeRow, EqualsGgufPyBitForBit) {
  const std::vector<GoldenRecord> records = read_golden();
  std::set<DType> seen;
  const CpuFeatures cpu = detect_cpu_features();
  for (const std::string_view isa : kern::built_isa_levels()) {
    const auto table = kern::select_kernels(cpu, isa);
    if (!table.ok()) continue;
    for (const GoldenRecord& r : records) {
      SCOPED_TRACE(std::string(isa) + " " + std::string(name_of(r.type)));
      const auto decode = table->decode_row[static_cast<int>(r.type)];
      ASSERT_NE(decode, nullptr);
      std::vector<float> got(r.values.size());
      decode(r.blocks.data(), static_cast<int64_t>(got.size()), got.data());
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(0, std::memcmp(&got[i], &r.values[i], sizeof(float)))
            << "element " << i << ": " << got[i] << " instead of " << r.values[i];
      }
      seen.insert(r.type);
    }
  }
  EXPECT_EQ(seen.size(), std::size(kLinearTypes)) << "tests/data/quant_blocks.bin lacks a type";
}

TEST(DecodeRow, HasNoDecoderForTypesWeCannotCompute) {
  const auto table = kern::select_kernels(detect_cpu_features(), "generic");
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->decode_row[static_cast<int>(DType::kIQ2_XS)], nullptr);
  EXPECT_EQ(table->linear[0][static_cast<int>(DType::kIQ2_XS)].run, nullptr);
}

TEST(DecodeRow, SixteenBitFloatsOfAnyLengthAreTheGenericOnes) {
  const CpuFeatures cpu = detect_cpu_features();
  const auto generic = kern::select_kernels(cpu, "generic");
  ASSERT_TRUE(generic.ok());
  std::vector<std::byte> all(2 * 65536 + 1);  // every bit pattern, at an odd address
  for (uint32_t i = 0; i < 65536; ++i) std::memcpy(all.data() + 1 + 2 * i, &i, 2);
  for (const std::string_view isa : kern::built_isa_levels()) {
    const auto table = kern::select_kernels(cpu, isa);
    if (!table.ok()) continue;
    for (const DType type : {DType::kF16, DType::kBF16}) {
      const auto index = static_cast<size_t>(type);
      for (const int64_t n : {1, 7, 8, 9, 15, 16, 17, 31, 65536}) {
        std::vector<float> got(static_cast<size_t>(n) + 1, -1.0f), expected = got;
        table->decode_row[index](all.data() + 1, n, got.data());
        generic->decode_row[index](all.data() + 1, n, expected.data());
        EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0)
            << isa << ' ' << name_of(type) << ' ' << n;
      }
    }
  }
}

}  // namespace
}  // namespace infer::test
