#include "quantize/convert/safetensors.h"

#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/half.h"
#include "quantize/convert/json.h"
#include "tests/support/safetensors_builder.h"

namespace infer::test {
namespace {

using quantize::SafeTensor;
using quantize::SafeTensors;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

/// The error of a file; empty when there is none.
std::string error_of(const std::vector<std::byte>& bytes) {
  const auto file = SafeTensors::parse(bytes, "f.safetensors");
  if (file.ok()) return {};
  EXPECT_EQ(file.error().message.find('\n'), std::string::npos) << file.error().message;
  EXPECT_EQ(file.error().message.rfind("f.safetensors: ", 0), 0U) << file.error().message;
  return file.error().message;
}

std::string error_of_header(const std::string& entries, size_t n_data = 16) {
  return error_of(
      SafetensorsBuilder{.header = entries, .data = std::vector<std::byte>(n_data)}.bytes());
}

TEST(Safetensors, ValuesOfEveryFloatType) {
  SafetensorsBuilder b;
  b.header = R"("__metadata__":{"format":"pt","a":"{\"b\":[1]}"})";
  b.add("f32", "F32", {2, 1}, bytes_of<float>({1.5f, -2.0f}));
  b.add("odd", "U8", {1}, bytes_of<uint8_t>({7}));  // what follows is unaligned
  b.add("f16", "F16", {2}, bytes_of<uint16_t>({0x3c00, 0xc000}));
  b.add("bf16", "BF16", {2}, bytes_of<uint16_t>({0x3fc0, 0xff80}));
  b.add("e4m3", "F8_E4M3", {2}, bytes_of<uint8_t>({0x38, 0xfe}));
  b.add("e5m2", "F8_E5M2", {2}, bytes_of<uint8_t>({0x3c, 0xfb}));
  b.add("i64", "I64", {}, bytes_of<int64_t>({int64_t{1} << 40}));
  b.add("i32", "I32", {2}, bytes_of<int32_t>({-1, 5}));
  b.add("empty", "F32", {0, 4}, {});
  const std::vector<std::byte> bytes = b.bytes();
  const auto file = SafeTensors::parse(bytes, "f");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 9U);
  const auto floats = [&](const char* name) {
    std::vector<float> out(2);
    EXPECT_TRUE(quantize::read_floats(*file->find(name), 0, out, "f").ok()) << name;
    return out;
  };
  EXPECT_EQ(floats("f32"), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(floats("f16"), (std::vector<float>{1.0f, -2.0f}));
  EXPECT_EQ(floats("bf16"), (std::vector<float>{1.5f, -INFINITY}));
  EXPECT_EQ(floats("e4m3"), (std::vector<float>{1.0f, -448.0f}));
  EXPECT_EQ(floats("e5m2"), (std::vector<float>{1.0f, -57344.0f}));
  std::array<int64_t, 2> ints{};
  EXPECT_TRUE(quantize::read_ints(*file->find("i32"), 0, ints, "f").ok());
  EXPECT_EQ(ints, (std::array<int64_t, 2>{-1, 5}));
  EXPECT_TRUE(quantize::read_ints(*file->find("i64"), 0, std::span(ints).first(1), "f").ok());
  EXPECT_EQ(ints[0], int64_t{1} << 40);
  EXPECT_EQ(file->find("nothing"), nullptr);
  EXPECT_EQ(file->find("f32")->n_row(), 2);
  std::vector<float> out(1);
  const auto refused = quantize::read_floats(*file->find("odd"), 0, out, "f");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "f: tensor 'odd' is U8, not floats of 32 bits or less");
}

/// Values of the published tables: extremes, subnormals, signs of zero.
TEST(Safetensors, Float8) {
  struct Known {
    uint8_t bits;
    float value;
  };
  constexpr std::array<Known, 11> kE4m3{{{0x00, 0.0f},
                                         {0x01, 0x1p-9f},
                                         {0x07, 7 * 0x1p-9f},
                                         {0x08, 0x1p-6f},
                                         {0x38, 1.0f},
                                         {0x39, 1.125f},
                                         {0x77, 240.0f},
                                         {0x78, 256.0f},
                                         {0x7e, 448.0f},
                                         {0xb8, -1.0f},
                                         {0x81, -0x1p-9f}}};
  for (const Known& k : kE4m3) EXPECT_EQ(quantize::f32_from_e4m3(k.bits), k.value) << +k.bits;
  constexpr std::array<Known, 9> kE5m2{{{0x00, 0.0f},
                                        {0x01, 0x1p-16f},
                                        {0x03, 3 * 0x1p-16f},
                                        {0x04, 0x1p-14f},
                                        {0x3c, 1.0f},
                                        {0x3d, 1.25f},
                                        {0x7b, 57344.0f},
                                        {0x7c, INFINITY},
                                        {0xfc, -INFINITY}}};
  for (const Known& k : kE5m2) EXPECT_EQ(quantize::f32_from_e5m2(k.bits), k.value) << +k.bits;
  for (const uint8_t bits : {0x7f, 0xff}) EXPECT_TRUE(std::isnan(quantize::f32_from_e4m3(bits)));
  for (const uint8_t bits : {0x7d, 0x7e, 0xff})
    EXPECT_TRUE(std::isnan(quantize::f32_from_e5m2(bits)));
  EXPECT_TRUE(std::signbit(quantize::f32_from_e4m3(0x80)));
  // Both formats are exact in bf16: what a checkpoint without scales is written as.
  for (int i = 0; i < 256; ++i) {
    for (const float v : {quantize::f32_from_e4m3(static_cast<uint8_t>(i)),
                          quantize::f32_from_e5m2(static_cast<uint8_t>(i))}) {
      if (!std::isnan(v)) {
        EXPECT_EQ(f32_from_bf16(bf16_from_f32(v)), v) << i;
      }
    }
  }
}

TEST(Safetensors, HostileHeaders) {
  const auto has = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message << " lacks " << part;
  };
  has(error_of({}), "no header in 0 bytes");
  const std::vector<std::byte> good =
      SafetensorsBuilder{}.add("a", "F32", {2}, std::vector<std::byte>(8)).bytes();
  EXPECT_EQ(error_of(good), "");
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_NE(error_of({good.begin(), good.begin() + static_cast<int64_t>(n)}), "") << n;
  const SafetensorsBuilder b = SafetensorsBuilder{}.add("a", "F32", {2}, std::vector<std::byte>(8));
  for (const uint64_t n :
       {uint64_t{0}, uint64_t{1}, uint64_t{1000}, uint64_t{1} << 63, ~uint64_t{0}})
    has(error_of(b.bytes(n)), "header");

  has(error_of_header(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[12,20]})"),
      "'a': data_off");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "[8, 0]");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), "take 12 bytes");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]})"),
      "tensors 'a' and 'b' overlap");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                      R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
      "tensor 'a' stands twice");
  has(error_of_header(
          R"("a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]})"),
      "shape overflows");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})"),
      "shape overflows");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), "negative");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"), "fraction");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})"),
      "too many");
  has(error_of_header(R"("a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]})"), "dtype 'F4'");
  has(error_of_header(R"("a":{"shape":[1],"data_offsets":[0,4]})"), "missing");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0]})"), "two numbers");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]})"),
      "twice");
  has(error_of_header(R"("a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})"), "array");
  has(error_of_header(R"("a":{"dtype":{"x":1}})"), "object");
  has(error_of_header(R"("a":[0])"), "array");
  has(error_of_header(R"("a":5)"), "header has a number");
  has(error_of_header(R"("a":{"x":1})"), "unknown key 'x'");
  has(error_of_header("\"a\\n\xc3\xa9\":{\"x\":1}"), "unknown key");
  has(error_of_header("\"\xff\":{}"), "not JSON");
  has(error_of_header(R"("a":)" + std::string(100000, '[')), "header has an array");
  std::string deep;
  for (int i = 0; i < 50000; ++i) deep += R"("dtype":{)";
  has(error_of_header(deep), "'dtype': an object where none belongs");
}

TEST(Json, DepthNamesAndNumbers) {
  const auto parse = [](const std::string& text) { return quantize::parse_json(text, "c.json"); };
  const auto error = [&](const std::string& text) {
    const auto r = parse(text);
    return r.ok() ? std::string() : r.error().message;
  };
  EXPECT_EQ(error(R"({"a": 1, "b": {"a": null}})"), "");
  EXPECT_EQ(error(R"({"a": 1, "a": 2})"), "c.json: key 'a' stands twice");
  EXPECT_EQ(error(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_EQ(error(std::string(65, '[') + std::string(65, ']')), "c.json: nested deeper than 64");
  EXPECT_EQ(error(std::string(1000000, '[')), "c.json: nested deeper than 64");
  EXPECT_EQ(error("{} x").rfind("c.json: not JSON", 0), 0U);
  EXPECT_EQ(error("").rfind("c.json: not JSON", 0), 0U);

  const auto root = parse(R"({"i": 3, "f": 2.5, "big": 18446744073709551615, "n": -1, "s": "x",
                              "null": null, "o": {"i": 4.0}, "l": [1, 2.5], "t": ["a"]})");
  ASSERT_TRUE(root.ok());
  const model::HfConfig c(*root, "c.json");
  EXPECT_EQ(*c.integer({"missing", "i"}), 3);
  EXPECT_EQ(*c.integer({"null"}, 7), 7);
  EXPECT_EQ(*c.number({"i"}), 3.0);
  EXPECT_EQ(*c.number({"f"}), 2.5);
  EXPECT_EQ(c.numbers("l")->size(), 2U);
  EXPECT_EQ(c.texts("t")->at(0), "a");
  EXPECT_TRUE(c.is_null("null"));
  EXPECT_EQ(c.integer({"absent", "too"}).error().message, "c.json: key 'absent' is missing");
  EXPECT_EQ(c.integer({"f"}).error().message, "c.json: key 'f' = 2.5: must be an integer");
  EXPECT_EQ(c.integer({"n"}).error().message, "c.json: key 'n' = -1: must be in [0, 2147483647]");
  EXPECT_FALSE(c.integer({"big"}).ok());
  EXPECT_EQ(c.text({"i"}, "").error().message, "c.json: key 'i' = 3: must be a string");
  EXPECT_EQ(c.object("o")->integer({"i"}).error().message,
            "c.json: o: key 'i' = 4: must be an integer");
  EXPECT_FALSE(c.object("l").ok());
  EXPECT_FALSE(c.flag("s", false).ok());
  EXPECT_TRUE(c.object("missing").ok());
}

}  // namespace
}  // namespace infer::test
