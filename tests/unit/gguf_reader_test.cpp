#include "gguf/reader.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/checked.h"
#include "core/base/quant_types.h"
#include "gguf/describe.h"
#include "tests/support/gguf_builder.h"

namespace infer::test {
namespace {

using gguf::Reader;
using gguf::Value;
using gguf::ValueType;
using testing::HasSubstr;

std::shared_ptr<const Reader> parse_good(const Bytes& bytes,
                                         const gguf::ReadOptions& options = {}) {
  auto result = Reader::parse(bytes, "good.gguf", options);
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  return result.ok() ? *result : nullptr;
}

const Value& value(const Reader& file, std::string_view key) {
  const Value* v = file.find(key);
  INFER_CHECK(v != nullptr, "no key {}", key);
  return *v;
}

TEST(GgufReader, ReadsScalarsOfEveryType) {
  const Bytes bytes = good_gguf().bytes();
  const auto file = parse_good(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(file->alignment(), 32);
  EXPECT_EQ(file->file_bytes(), static_cast<int64_t>(bytes.size()));
  EXPECT_FALSE(file->is_mmapped());
  EXPECT_EQ(*file->get_int("a.u8"), 200);
  EXPECT_EQ(*file->get_int("a.i8"), -100);
  EXPECT_EQ(*file->get_int("a.u16"), 60000);
  EXPECT_EQ(*file->get_int("a.i16"), -30000);
  EXPECT_EQ(*file->get_int("a.u32"), 4000000000);
  EXPECT_EQ(*file->get_int("a.i32"), -2000000000);
  EXPECT_EQ(*file->get_int("a.i64"), INT64_MIN);
  EXPECT_EQ(*file->get_float("a.f32"), 1.5);
  EXPECT_EQ(*file->get_float("a.f64"), 1e300);
  EXPECT_EQ(*file->get_float("a.u32"), 4e9);
  EXPECT_EQ(*file->get_bool("a.bool", false), true);
  EXPECT_EQ(*file->get_string("a.text"), "caf\xc3\xa9");
  EXPECT_EQ(*file->get_string("a.empty"), "");
}

TEST(GgufReader, ReadsArraysOfEveryType) {
  const Bytes bytes = good_gguf().bytes();
  const auto file = parse_good(bytes);
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(value(*file, "b.u8").size(), 3);
  EXPECT_EQ(*value(*file, "b.u8").int_at(2), 255);
  EXPECT_EQ(*value(*file, "b.i8").int_at(0), -1);
  EXPECT_EQ(*value(*file, "b.u16").int_at(0), 65535);
  EXPECT_EQ(*value(*file, "b.i16").int_at(2), 7);
  EXPECT_EQ(*value(*file, "b.u32").int_at(0), int64_t{1} << 31);
  EXPECT_EQ(value(*file, "b.i32").size(), 0);
  EXPECT_EQ(*value(*file, "b.f32").float_at(1), -2.0);
  EXPECT_EQ(*value(*file, "b.bool").bool_at(1), false);
  EXPECT_EQ(*value(*file, "b.bool").bool_at(2), true);
  EXPECT_EQ(*value(*file, "b.u64").int_at(0), 1);
  EXPECT_FALSE(value(*file, "b.u64").int_at(1).ok());  // does not fit in 63 bits
  EXPECT_EQ(*value(*file, "b.i64").int_at(0), -1);
  EXPECT_EQ(*value(*file, "b.f64").float_at(0), 0.25);
  const Value& strings = value(*file, "b.str");
  ASSERT_EQ(strings.size(), 50);
  for (int64_t i = 49; i >= 0; --i) {  // backwards: every access finds its own way
    EXPECT_EQ(*strings.string_at(i),
              std::string(static_cast<size_t>(i % 7), static_cast<char>('a' + i % 26)))
        << i;
  }
}

TEST(GgufReader, ReadsArraysOfArrays) {
  const Bytes bytes = good_gguf().bytes();
  const auto file = parse_good(bytes);
  ASSERT_NE(file, nullptr);
  const Value& outer = value(*file, "b.arr");
  ASSERT_EQ(outer.size(), 2);
  EXPECT_EQ(outer.elem_type(), ValueType::kArray);
  const auto first = outer.array_at(0);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->elem_type(), ValueType::kU32);
  EXPECT_EQ(*first->int_at(1), 8);
  const auto second = outer.array_at(1);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->elem_type(), ValueType::kString);
  EXPECT_EQ(second->size(), 0);
  EXPECT_FALSE(outer.int_at(0).ok());
  EXPECT_FALSE(outer.string_at(0).ok());
}

TEST(GgufReader, NestingUpToFourIsRead) {
  Bytes v;
  for (int i = 0; i < 3; ++i) {
    put<uint32_t>(v, GgufBuilder::kArray);
    put<uint64_t>(v, 1);
  }
  put<uint32_t>(v, 0);
  put<uint64_t>(v, 2);
  put<uint8_t>(v, 5);
  put<uint8_t>(v, 6);
  const Bytes bytes = GgufBuilder().set_raw("n", GgufBuilder::kArray, v).bytes();
  const auto file = parse_good(bytes);
  ASSERT_NE(file, nullptr);
  const auto inner = value(*file, "n").array_at(0)->array_at(0)->array_at(0);
  ASSERT_TRUE(inner.ok());
  EXPECT_EQ(*inner->int_at(1), 6);
  EXPECT_EQ(value(*file, "n").raw().size(), v.size());
}

TEST(GgufReader, TypedAccessNamesFileKeyAndValue) {
  const Bytes bytes = good_gguf().bytes();
  const auto file = parse_good(bytes);
  ASSERT_NE(file, nullptr);
  const auto missing = file->get_int("no.such.key");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().message, "good.gguf: key 'no.such.key' is missing");
  EXPECT_EQ(*file->get_int("no.such.key", 7), 7);
  EXPECT_EQ(*file->get_float("no.such.key", 0.5), 0.5);
  EXPECT_EQ(*file->get_string("no.such.key", "x"), "x");
  EXPECT_EQ(*file->get_bool("no.such.key", true), true);
  for (const auto& error :
       {file->get_int("a.text", 7).error(), file->get_int("a.text").error(),
        file->get_float("a.text").error(), file->get_bool("a.text", true).error()}) {
    EXPECT_EQ(error.code, ErrorCode::kCorrupt);
    EXPECT_THAT(error.message, HasSubstr("good.gguf: key 'a.text' is str 'caf\xc3\xa9'"));
  }
  EXPECT_THAT(file->get_int("a.u64").error().message,
              HasSubstr("'a.u64' is u64 18446744073709551615"));
  EXPECT_THAT(file->get_int("a.f32").error().message, HasSubstr("'a.f32' is f32 1.5"));
  EXPECT_THAT(file->get_int("a.bool").error().message, HasSubstr("'a.bool' is bool true"));
  EXPECT_THAT(file->get_float("a.bool").error().message, HasSubstr("a number is expected"));
  EXPECT_THAT(file->get_float("a.i64").error().message,
              HasSubstr("'a.i64' is i64 -9223372036854775808"));
  EXPECT_THAT(file->get_string("b.str").error().message, HasSubstr("'b.str' is array of 50 str"));
  EXPECT_THAT(file->get_bool("a.u8", true).error().message, HasSubstr("'a.u8' is u8 200"));
}

TEST(GgufReader, TensorsPointAtTheirBytes) {
  const GgufBuilder b = good_gguf();
  const Bytes bytes = b.bytes();
  const auto file = parse_good(bytes);
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(file->tensors().size(), b.tensors.size());
  for (size_t i = 0; i < b.tensors.size(); ++i) {
    const gguf::TensorInfo& t = file->tensors()[i];
    EXPECT_EQ(t.name, b.tensors[i].name);
    EXPECT_EQ(file->find_tensor(t.name), &t);
    EXPECT_EQ(quant_type(t.view.type).gguf_id, b.tensors[i].type);
    ASSERT_EQ(static_cast<size_t>(t.n_dims), b.tensors[i].shape.size());
    for (size_t d = 0; d < 4; ++d)
      EXPECT_EQ(t.view.ne[d], d < b.tensors[i].shape.size() ? b.tensors[i].shape[d] : 1);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.view.data) % gguf::kTensorAlign, 0u);
    EXPECT_EQ(Bytes(t.view.data, t.view.data + t.view.n_bytes), b.tensors[i].data);
  }
  EXPECT_EQ(file->find_tensor("t.f3"), nullptr);
  EXPECT_EQ(file->find_tensor("t.f321"), nullptr);
}

TEST(GgufReader, ReadsVersion2AndAnyAlignment) {
  for (const uint32_t version : {2u, 3u}) {
    for (const uint32_t alignment : {1u, 2u, 8u, 32u, 64u, 4096u}) {
      GgufBuilder b = good_gguf();
      b.version = version;
      b.alignment = alignment;
      b.set<uint32_t>("general.alignment", alignment);
      const Bytes bytes = b.bytes();
      const auto file = parse_good(bytes);
      ASSERT_NE(file, nullptr);
      EXPECT_EQ(file->version(), version);
      EXPECT_EQ(file->alignment(), alignment);
      touch_everything(*file);
      for (const GgufBuilder::Tensor& t : b.tensors) {
        const gguf::TensorInfo* info = file->find_tensor(t.name);
        ASSERT_NE(info, nullptr);
        EXPECT_EQ(Bytes(info->view.data, info->view.data + info->view.n_bytes), t.data);
      }
    }
  }
}

TEST(GgufReader, EmptyFileOfNoKeysAndTensorsLoads) {
  for (const size_t extra : {0, 1, 40}) {
    Bytes bytes = GgufBuilder().bytes();
    bytes.resize(bytes.size() + extra);
    const auto file = parse_good(bytes);
    ASSERT_NE(file, nullptr);
    EXPECT_TRUE(file->kvs().empty());
    EXPECT_TRUE(file->tensors().empty());
    EXPECT_EQ(file->find("x"), nullptr);
  }
}

TEST(GgufReader, HeaderOnlyNeedsNoData) {
  const GgufBuilder b = good_gguf();
  EXPECT_FALSE(Reader::parse(b.header(), "good.gguf").ok());
  const Bytes bytes = b.header();
  const auto file = parse_good(bytes, {.header_only = true});
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->tensors().size(), b.tensors.size());
  EXPECT_EQ(file->find_tensor("t.f16")->view.data, nullptr);
}

TEST(GgufReader, AnyByteButZeroIsTrue) {
  const Bytes bytes = GgufBuilder().set_raw("b", 7, Bytes{std::byte{0x7a}}).bytes();
  EXPECT_EQ(*parse_good(bytes)->get_bool("b", false), true);
}

// The good files of llama.cpp's own test: random keys of all types, random tensors of all types,
// alignment 32 and 1.
TEST(GgufReader, RandomGoodFilesLoad) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 rng(seed);
    GgufBuilder b;
    b.alignment = seed % 2 == 0 ? 32 : 1;
    if (b.alignment == 1) b.set<uint32_t>("general.alignment", 1);
    for (int i = 0; i < 50; ++i) {
      const std::string key = "my_key_" + std::to_string(i);
      const uint32_t type = rng() % 13;
      const uint32_t elem = rng() % 13;
      Bytes noise(64);
      for (std::byte& x : noise) x = static_cast<std::byte>(rng());
      constexpr size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
      if (type == GgufBuilder::kString) {
        b.set_string(key, std::string(rng() % 64, 's'));
      } else if (type != GgufBuilder::kArray) {
        noise.resize(kSizes[type]);
        b.set_raw(key, type, noise);
      } else if (elem == GgufBuilder::kString) {
        b.set_strings(key, std::vector<std::string>(rng() % 17, std::string(rng() % 5, 'e')));
      } else if (elem != GgufBuilder::kArray) {
        const size_t n = rng() % 64 / kSizes[elem];
        noise.resize(n * kSizes[elem]);
        b.set_array_raw(key, elem, n, noise);
      }
    }
    for (int i = 0; i < 50; ++i) {
      const QuantType& q = quant_types()[rng() % quant_types().size()];
      std::vector<int64_t> shape(1 + rng() % 4);
      for (int64_t& ne : shape) ne = 1 + static_cast<int64_t>(rng() % 10);
      shape[0] *= q.block_len;
      b.add_tensor("my_tensor_" + std::to_string(i), q.type, shape);
      for (std::byte& x : b.tensors.back().data) x = static_cast<std::byte>(rng());
    }
    const Bytes bytes = b.bytes();
    const auto file = parse_good(bytes);
    ASSERT_NE(file, nullptr) << "seed " << seed;
    ASSERT_EQ(file->kvs().size(), b.kvs.size());
    for (size_t i = 0; i < b.kvs.size(); ++i) {
      const auto raw = file->kvs()[i].value.raw();
      EXPECT_EQ(file->kvs()[i].key, b.kvs[i].key);
      EXPECT_EQ(Bytes(raw.begin(), raw.end()), b.kvs[i].value) << b.kvs[i].key;
    }
    for (size_t i = 0; i < b.tensors.size(); ++i) {
      const TensorView& view = file->tensors()[i].view;
      EXPECT_EQ(Bytes(view.data, view.data + view.n_bytes), b.tensors[i].data) << b.tensors[i].name;
    }
    touch_everything(*file);
  }
}

TEST(GgufDescribe, MakesOneSafeLineOfAnyBytes) {
  EXPECT_EQ(gguf::printable("plain 'text'"), "plain 'text'");
  EXPECT_EQ(gguf::printable("a\nb\x7f\xff"), "a\\x0ab\\x7f\\xff");
  EXPECT_EQ(gguf::printable("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  EXPECT_EQ(gguf::printable("\xc2\x9b"
                            "31m"),
            "\\xc2\\x9b31m");  // a C1 control
  EXPECT_EQ(gguf::printable("\xed\xa0\x80\xc0\xaf"),
            "\\xed\\xa0\\x80\\xc0\\xaf");  // a surrogate, an overlong slash
  EXPECT_EQ(gguf::printable("\xe2\x82"), "\\xe2\\x82");
  EXPECT_EQ(gguf::printable(std::string(200, 'x'), 10), std::string(10, 'x') + "...");
}

}  // namespace
}  // namespace infer::test
