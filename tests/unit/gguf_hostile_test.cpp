#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/checked.h"
#include "core/base/quant_types.h"
#include "gguf/reader.h"
#include "tests/support/gguf_alloc_counter.h"
#include "tests/support/gguf_builder.h"

/// Files that must be refused: with one line that names the file, the key or tensor, and the value;
/// with bounded memory; and without a byte read outside of them (the suite also runs under ASan and
/// UBSan).
namespace infer::test {
namespace {

using gguf::Reader;
using testing::HasSubstr;

constexpr int64_t kSlack = int64_t{64} << 20;  // allowed above the size of the file

/// A copy on the heap of exactly the file's size, so that ASan sees a read past its end.
Result<std::shared_ptr<const Reader>> parse(const Bytes& bytes,
                                            const gguf::ReadOptions& options = {}) {
  AllocCounter::reset();
  auto result = Reader::parse(bytes, "bad.gguf", options);
  EXPECT_LE(AllocCounter::peak_bytes(), static_cast<int64_t>(bytes.size()) + kSlack);
  return result;
}

void expect_refused(const Bytes& bytes, const std::vector<std::string>& words) {
  const auto result = parse(bytes);
  ASSERT_FALSE(result.ok());
  const std::string& message = result.error().message;
  EXPECT_TRUE(message.starts_with("bad.gguf: ")) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_LT(message.size(), 400u) << message;
  for (const std::string& word : words) EXPECT_THAT(message, HasSubstr(word));
  EXPECT_TRUE(result.error().code == ErrorCode::kCorrupt ||
              result.error().code == ErrorCode::kUnsupported)
      << message;
}

struct Case {
  std::string name;
  std::function<void(GgufBuilder&)> spoil;  ///< applied to good_gguf()
  std::vector<std::string> words;           ///< what the message must contain
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class GgufHostile : public testing::TestWithParam<Case> {};

TEST_P(GgufHostile, IsRefusedInOneLine) {
  GgufBuilder b = good_gguf();
  GetParam().spoil(b);
  expect_refused(b.bytes(), GetParam().words);
}

std::vector<Case> header_cases() {
  return {
      {"HeaderBadMagic", [](auto& b) { b.magic = "XXXX"; }, {"not a GGUF file", "XXXX"}},
      {"HeaderMagicNotPrintable",
       [](auto& b) { b.magic = "\n\x1b\xff\x01"; },
       {"\\x0a\\x1b\\xff\\x01"}},
      {"HeaderBadVersion0", [](auto& b) { b.version = 0; }, {"version 0"}},
      {"HeaderBadVersion1", [](auto& b) { b.version = 1; }, {"version 1"}},
      {"HeaderBadVersionFuture", [](auto& b) { b.version = 4; }, {"version 4"}},
      {"HeaderBigEndian", [](auto& b) { b.version = 0x03000000; }, {"big-endian"}},
      {"HeaderBigEndianMagic", [](auto& b) { b.magic = "FUGG"; }, {"big-endian"}},
      {"HeaderBadNTensors",
       [](auto& b) { b.n_tensors = UINT64_MAX; },
       {"tensor count 18446744073709551615"}},
      {"HeaderNTensors2p32",
       [](auto& b) { b.n_tensors = 1ull << 32; },
       {"tensor count 4294967296"}},
      {"HeaderNTensors2p61",
       [](auto& b) { b.n_tensors = 1ull << 61; },
       {"tensor count 2305843009213693952"}},
      {"HeaderNTensors2p63",
       [](auto& b) { b.n_tensors = 1ull << 63; },
       {"tensor count 9223372036854775808"}},
      {"HeaderBadNKv", [](auto& b) { b.n_kv = UINT64_MAX; }, {"key count 18446744073709551615"}},
      {"HeaderNKv2p32", [](auto& b) { b.n_kv = 1ull << 32; }, {"key count 4294967296"}},
      {"HeaderNKv2p61", [](auto& b) { b.n_kv = 1ull << 61; }, {"key count 2305843009213693952"}},
      {"HeaderNKv2p63", [](auto& b) { b.n_kv = 1ull << 63; }, {"key count 9223372036854775808"}},
      {"HeaderCountsTogether",
       [](auto& b) {
         b.n_kv = 65536;
         b.n_tensors = 131072;
       },
       {"key count 65536", "131072"}},
      {"HeaderOneTensorTooMany", [](auto& b) { b.n_tensors = b.tensors.size() + 1; }, {"tensor 5"}},
  };
}

/// depth arrays inside each other, the innermost an empty array of u8.
Bytes nested_arrays(int depth) {
  Bytes out;
  for (int i = 1; i < depth; ++i) {
    put<uint32_t>(out, GgufBuilder::kArray);
    put<uint64_t>(out, 1);
  }
  put<uint32_t>(out, 0);
  put<uint64_t>(out, 0);
  return out;
}

std::vector<Case> key_cases() {
  const auto string_length = [](uint64_t n) {
    Bytes v;
    put(v, n);
    put_text(v, "abc");
    return v;
  };
  std::vector<Case> cases = {
      {"KvBadKeySize",
       [](auto& b) { b.kvs[3].key_length = UINT64_MAX; },
       {"key 3", "18446744073709551615"}},
      {"KvKeyTooLong", [](auto& b) { b.kvs[2].key = std::string(65536, 'k'); }, {"key 2", "65536"}},
      {"KvKeyEmpty", [](auto& b) { b.kvs[1].key = ""; }, {"key 1 is empty"}},
      {"KvBadType", [](auto& b) { b.kv("a.u32").type = 13; }, {"'a.u32'", "value type 13"}},
      {"KvBadTypeMax",
       [](auto& b) { b.kv("a.u32").type = UINT32_MAX; },
       {"'a.u32'", "value type 4294967295"}},
      {"KvBadElemType", [](auto& b) { b.set_array_raw("x", 13, 0); }, {"'x'", "value type 13"}},
      {"KvDuplicateKey", [](auto& b) { b.kvs.push_back(b.kv("a.u16")); }, {"'a.u16'", "twice"}},
      {"KvKeyNotPrintable",
       [](auto& b) {
         b.kvs.push_back({"a\nb\xff", 13, {}});
       },
       {"'a\\x0ab\\xff'"}},
      {"KvStringPastEnd",
       [=](auto& b) { b.set_raw("s", 8, string_length(1u << 20)); },
       {"'s'", "1048576 bytes"}},
      {"KvString2p63",
       [=](auto& b) { b.set_raw("s", 8, string_length(1ull << 63)); },
       {"'s'", "9223372036854775808"}},
      {"KvStringWraps",
       [=](auto& b) { b.set_raw("s", 8, string_length(UINT64_MAX)); },
       {"'s'", "18446744073709551615"}},
      {"KvArrayPastEnd",
       [](auto& b) { b.set_array_raw("x", 0, 1u << 20, {}); },
       {"'x'", "1048576 u8"}},
      {"KvArray2p32",
       [](auto& b) { b.set_array_raw("x", 4, 1ull << 32, {}); },
       {"'x'", "4294967296 u32"}},
      {"KvArray2p61",
       [](auto& b) { b.set_array_raw("x", 12, 1ull << 61, {}); },
       {"'x'", "2305843009213693952 f64"}},
      {"KvArray2p63",
       [](auto& b) { b.set_array_raw("x", 8, 1ull << 63, {}); },
       {"'x'", "9223372036854775808 str"}},
      {"KvArrayProductWraps",
       [](auto& b) { b.set_array_raw("x", 10, (1ull << 61) + 1, {}); },
       {"'x'"}},
      {"KvArrayOfArraysPastEnd",
       [](auto& b) { b.set_array_raw("x", 9, 1ull << 40, {}); },
       {"'x'", "1099511627776 arr"}},
      {"KvArrayStringPastEnd",
       [=](auto& b) { b.set_array_raw("x", 8, 3, string_length(UINT64_MAX)); },
       {"'x'", "string 0", "18446744073709551615"}},
      {"KvNested5", [](auto& b) { b.set_raw("deep", 9, nested_arrays(5)); }, {"'deep'", "nested"}},
      {"KvNested10000",
       [](auto& b) { b.set_raw("deep", 9, nested_arrays(10000)); },
       {"'deep'", "nested"}},
  };
  for (const uint32_t alignment : {0u, 3u, 13u, 48u, 1u << 21, 1u << 31, UINT32_MAX}) {
    cases.push_back({"KvBadAlign" + std::to_string(alignment),
                     [=](auto& b) { b.template set<uint32_t>("general.alignment", alignment); },
                     {"'general.alignment'", std::to_string(alignment)}});
  }
  cases.push_back({"KvAlignU64",
                   [](auto& b) { b.template set<uint64_t>("general.alignment", 32); },
                   {"'general.alignment'", "u64 32"}});
  cases.push_back({"KvAlignString",
                   [](auto& b) { b.set_string("general.alignment", "32"); },
                   {"'general.alignment'", "str '32'"}});
  cases.push_back({"KvAlignArray",
                   [](auto& b) { b.template set_array<uint32_t>("general.alignment", {32}); },
                   {"'general.alignment'", "array of 1 u32"}});
  return cases;
}

std::vector<Case> tensor_cases() {
  const std::string long_name(64, 'n');
  const int64_t big = 4 * int64_t{INT32_MAX};
  return {
      {"TensorNameTooLong",
       [=](auto& b) { b.tensors[1].name = long_name; },
       {"tensor 1", "64 bytes"}},
      {"TensorBadNameSize",
       [](auto& b) { b.tensors[1].name_length = UINT64_MAX; },
       {"tensor 1", "18446744073709551615"}},
      {"TensorNameEmpty", [](auto& b) { b.tensors[2].name = ""; }, {"tensor 2", "empty"}},
      {"TensorNameWithZero",
       [](auto& b) { b.tensors[2].name = std::string("a\0b", 3); },
       {"tensor 2", "a\\x00b"}},
      {"TensorNDims0", [](auto& b) { b.tensor("t.f32").n_dims = 0; }, {"'t.f32'", "0 dimensions"}},
      {"TensorNDims5", [](auto& b) { b.tensor("t.f32").n_dims = 5; }, {"'t.f32'", "5 dimensions"}},
      {"TensorNDimsMax",
       [](auto& b) { b.tensor("t.f32").n_dims = UINT32_MAX; },
       {"'t.f32'", "4294967295 dimensions"}},
      {"TensorBadShape",
       [](auto& b) { b.tensor("t.f16").shape[1] = -1; },
       {"'t.f16'", "dimension 1 = -1"}},
      {"TensorZeroDim",
       [](auto& b) { b.tensor("t.f16").shape[0] = 0; },
       {"'t.f16'", "dimension 0 = 0"}},
      {"TensorDim2p63",
       [](auto& b) { b.tensor("t.f16").shape[0] = INT64_MIN; },
       {"'t.f16'", "-9223372036854775808"}},
      {"TensorNeTooBig",
       [=](auto& b) {
         b.tensor("t.f16").shape = {big, big};
       },
       {"'t.f16'", "2^63 elements", "8589934588"}},
      {"TensorNeWrapsToSmall",
       [](auto& b) {
         b.tensor("t.i8").shape = {int64_t{1} << 32, int64_t{1} << 32, 3};
       },
       {"'t.i8'", "2^63 elements"}},
      {"TensorNbytesTooBig",
       [](auto& b) {
         b.tensor("t.f32").shape = {int64_t{1} << 61, 3};
       },
       {"'t.f32'", "2^63 bytes", "2305843009213693952, 3"}},
      {"TensorBadType", [](auto& b) { b.tensor("t.i8").type = 43; }, {"'t.i8'", "type 43"}},
      {"TensorBadTypeMax",
       [](auto& b) { b.tensor("t.i8").type = UINT32_MAX; },
       {"'t.i8'", "type 4294967295"}},
      {"TensorRemovedType",
       [](auto& b) { b.tensor("t.i8").type = 4; },
       {"'t.i8'", "q4_2", "removed"}},
      {"TensorRemovedType36",
       [](auto& b) { b.tensor("t.i8").type = 36; },
       {"'t.i8'", "iq4_nl_4_4", "removed"}},
      {"TensorPartialBlock",
       [](auto& b) {
         b.tensor("t.q4_0").shape = {48, 2, 2};
       },
       {"'t.q4_0'", "48", "32"}},
      {"TensorBadOffset",
       [](auto& b) { b.tensor("t.f16").offset = UINT64_MAX; },
       {"'t.f16'", "18446744073709551615"}},
      {"TensorOffsetNotAligned",
       [](auto& b) { b.tensor("t.f16").offset = 33; },
       {"'t.f16'", "33", "alignment 32"}},
      {"TensorOffsetGap",
       [](auto& b) { b.tensor("t.f16").offset = 64; },
       {"'t.f16'", "offset 64, expected 32"}},
      {"TensorOffsetOverlap",
       [](auto& b) { b.tensor("t.f16").offset = 0; },
       {"'t.f16'", "offset 0, expected 32"}},
      {"TensorFirstOffset",
       [](auto& b) { b.tensor("t.f32").offset = 32; },
       {"'t.f32'", "offset 32, expected 0"}},
      {"TensorDuplicateName", [](auto& b) { b.tensors[3].name = "t.f16"; }, {"'t.f16'", "twice"}},
      {"TensorInconsistentAlign", [](auto& b) { b.alignment = 1; }, {"'t.f16'", "20"}},
      {"TensorShapeLargerThanData",
       [](auto& b) { b.tensors.back().shape = {33}; },
       {"'t.i8'", "33 bytes"}},
      {"DataMemSizeOverflow",
       [](auto& b) {
         b.tensors.resize(2);
         for (auto& t : b.tensors) t.type = 24, t.shape = {0x7fffffffffffffc0}, t.data.clear();
       },
       {"'t.f32'", "9223372036854775744"}},
      {"DataPadWraps",
       [](auto& b) {
         b.tensors.resize(1);
         b.tensors[0].type = 24, b.tensors[0].shape = {INT64_MAX}, b.tensors[0].data.clear();
       },
       {"'t.f32'", "9223372036854775807"}},
  };
}

std::string case_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Header, GgufHostile, testing::ValuesIn(header_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Keys, GgufHostile, testing::ValuesIn(key_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Tensors, GgufHostile, testing::ValuesIn(tensor_cases()), case_name);

// The sums of llama.cpp's "mem size overflow" must not wrap either where data is not asked for.
TEST(GgufHostileFile, SumsAreCheckedWithoutDataToo) {
  GgufBuilder b;
  b.add_tensor("a", DType::kI8, {1}).add_tensor("b", DType::kI8, {1});
  constexpr int64_t kHalf = int64_t{1} << 62;
  b.tensors[0].shape = {kHalf};
  b.tensors[1].shape = {kHalf};
  b.tensors[1].offset = kHalf;
  const auto result = parse(b.bytes(), {.header_only = true});
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message, HasSubstr("tensor 'b' of 4611686018427387904 bytes"));
}

TEST(GgufHostileFile, EveryPrefixOfAGoodFileIsRefused) {
  const Bytes good = good_gguf().bytes();
  ASSERT_TRUE(parse(good).ok());
  for (size_t n = 0; n < good.size(); ++n) {
    const Bytes prefix(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n));
    const auto result = parse(prefix);
    ASSERT_FALSE(result.ok()) << n << " of " << good.size() << " bytes";
    ASSERT_EQ(result.error().message.find('\n'), std::string::npos) << result.error().message;
  }
}

TEST(GgufHostileFile, LastByteOfDataDecides) {
  GgufBuilder b;
  b.add_tensor("a", DType::kF32, {8});  // 32 bytes: no padding to miss instead
  Bytes bytes = b.bytes();
  EXPECT_TRUE(parse(bytes).ok());
  bytes.pop_back();
  expect_refused(bytes, {"'a'", "32 bytes", "31"});
}

// Every byte of the header takes every value in turn: no crash, and a reader that accepts stays
// within its bytes.
TEST(GgufHostileFile, AnyByteMayChange) {
  const GgufBuilder b = good_gguf();
  Bytes bytes = b.bytes();
  const size_t n_header = b.header().size();
  int n_accepted = 0;
  for (size_t i = 0; i < n_header; ++i) {
    const std::byte old = bytes[i];
    for (const int v : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      bytes[i] = static_cast<std::byte>(v);
      const auto result = Reader::parse(bytes, "bad.gguf");
      if (result.ok()) {
        ++n_accepted;
        touch_everything(**result);
      } else {
        ASSERT_EQ(result.error().message.find('\n'), std::string::npos) << result.error().message;
      }
    }
    bytes[i] = old;
  }
  EXPECT_GT(n_accepted, 0);  // bytes of values and names may change
}

// Memory: tables that are dense in the file must not swell. 64 MiB of slack would hide that in
// files of a test's size, so these have bounds of their own.
TEST(GgufHostileMemory, ManyEmptyStrings) {
  constexpr size_t kCount = 2'000'000;  // 16 MB; a view each would take 32 MB
  const Bytes bytes = GgufBuilder().set_array_raw("s", 8, kCount, Bytes(kCount * 8)).bytes();
  const auto result = parse(bytes);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_LT(AllocCounter::peak_bytes(), static_cast<int64_t>(bytes.size()) / 8);
  const gguf::Value* v = (*result)->find("s");
  ASSERT_NE(v, nullptr);
  EXPECT_EQ(*v->string_at(kCount - 1), "");
}

TEST(GgufHostileMemory, ManyEmptyInnerArrays) {
  constexpr size_t kCount = 1'000'000;  // of 12 bytes each, all of type u8 and count 0
  const Bytes bytes = GgufBuilder().set_array_raw("s", 9, kCount, Bytes(kCount * 12)).bytes();
  const auto result = parse(bytes);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_LT(AllocCounter::peak_bytes(), 1 << 16);
}

TEST(GgufHostileMemory, AsManyKeysAndTensorsAsAllowed) {
  GgufBuilder b;
  b.alignment = 1;
  b.set<uint32_t>("general.alignment", 1);
  for (int i = 0; i < 65535; ++i) b.kvs.push_back({std::to_string(i), 0, Bytes(1)});
  for (int i = 0; i < 131072; ++i) b.tensors.push_back({std::to_string(i), 24, {1}, Bytes(1)});
  const Bytes bytes = b.bytes();
  const auto result = parse(bytes);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_NE((*result)->find_tensor("131071"), nullptr);
  EXPECT_LT(AllocCounter::peak_bytes(), 32 << 20);
}

TEST(GgufHostileMemory, CopiesOfMisalignedTensorsFitInTheFile) {
  GgufBuilder b;
  b.alignment = 1;
  b.set<uint32_t>("general.alignment", 1);
  b.add_tensor("pad", DType::kI8, {1}).add_tensor("big", DType::kI8, {8 << 20});
  const auto result = parse(b.bytes());
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_LT(AllocCounter::peak_bytes(), (8 << 20) + (1 << 16));
}

}  // namespace
}  // namespace infer::test
