#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quantize/imatrix.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/temp_folder.h"

/// Importance matrices: files of gguf-py and of struct (tests/data/make_imatrix.py) are read, ours
/// are the same bytes, and bad files are one clear line.
namespace infer::test {
namespace {

using quantize::Imatrix;
using quantize::ImatrixEntry;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kFolder = "tests/data/imatrix/";
constexpr const char* kQ = "blk.0.attn_q.weight";
constexpr const char* kExperts = "blk.0.ffn_down_exps.weight";

Imatrix read_good(const std::string& name) {
  Result<Imatrix> read = Imatrix::read(kFolder + name);
  if (!read.ok()) throw std::runtime_error(read.error().message);
  return *std::move(read);
}

Bytes bytes_of(const std::string& text) {
  Bytes bytes;
  put_text(bytes, text);
  return bytes;
}

TEST(Imatrix, ReadsTheGgufForm) {
  const Imatrix m = read_good("small.gguf");
  EXPECT_EQ(m.entries.size(), 3u);
  EXPECT_THAT(m.datasets, ElementsAre("a.txt", "b.txt"));
  EXPECT_EQ(m.n_chunk, 2);
  EXPECT_EQ(m.chunk_tok, 5);
  EXPECT_FALSE(m.counts_chunks);
  EXPECT_TRUE(m.contains("output.weight"));
  EXPECT_FALSE(m.contains("output"));
  EXPECT_THAT(m.means(kQ, 0), ElementsAre(0.5f, 1.5f, 2.5f, 3.5f));
  EXPECT_THAT(m.means(kExperts, 0), ElementsAre(0.5f, 1.5f, 2.5f));
  EXPECT_THAT(m.means(kExperts, 1), ElementsAre(1.0f, 1.0f, 1.0f));  // met by no token
  EXPECT_THAT(m.means(kExperts, 2), ElementsAre(1.5f, 4.5f, 7.5f));
  EXPECT_TRUE(m.means(kExperts, 3).empty());
  EXPECT_TRUE(m.means(kExperts, -1).empty());
  EXPECT_TRUE(m.means("blk.1.attn_q.weight", 0).empty());
}

TEST(Imatrix, ReadsTheLegacyForm) {
  for (const std::string name : {"small.dat", "old.dat"}) {
    Imatrix m = read_good(name);
    EXPECT_EQ(m.entries.size(), 3u) << name;
    EXPECT_TRUE(m.counts_chunks);
    EXPECT_EQ(m.n_chunk, name == "small.dat" ? 2 : 0);
    EXPECT_EQ(m.datasets,
              name == "small.dat" ? std::vector<std::string>{"a.txt"} : std::vector<std::string>{});
    EXPECT_THAT(m.means(kQ, 0), ElementsAre(0.5f, 1.5f, 2.5f, 3.5f)) << name;
    // Experts lie one after the other until the model's shape is known.
    EXPECT_EQ(m.means(kExperts, 0).size(), 9u);
    ASSERT_TRUE(m.fit(kExperts, 3, 3).ok());
    EXPECT_THAT(m.means(kExperts, 0), ElementsAre(0.5f, 1.5f, 2.5f)) << name;
    EXPECT_THAT(m.means(kExperts, 1), ElementsAre(1.0f, 1.0f, 1.0f)) << name;
    EXPECT_THAT(m.means(kExperts, 2), ElementsAre(1.5f, 4.5f, 7.5f)) << name;
  }
}

TEST(Imatrix, FitNamesBothShapes) {
  Imatrix m = read_good("small.gguf");
  EXPECT_TRUE(m.fit(kQ, 4, 1).ok());
  EXPECT_TRUE(m.fit(kExperts, 3, 3).ok());
  EXPECT_TRUE(m.fit("blk.7.attn_q.weight", 4, 1).ok());
  for (const auto& [n_k, n_mat] : {std::pair<int64_t, int64_t>{8, 1}, {4, 2}, {0, 0}, {-4, -1}}) {
    const Result<void> fits = m.fit(kQ, n_k, n_mat);
    ASSERT_FALSE(fits.ok());
    EXPECT_EQ(fits.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(fits.error().message, HasSubstr("small.gguf: tensor 'blk.0.attn_q.weight' has"));
    EXPECT_THAT(fits.error().message, HasSubstr("4 columns"));
  }
  EXPECT_FALSE(m.fit(kExperts, 9, 1).ok());
}

class ImatrixFiles : public TempFolder {};

TEST_F(ImatrixFiles, WritesTheBytesOfGgufPy) {
  const Imatrix m = read_good("small.gguf");
  ASSERT_TRUE(m.write(path("out.gguf")).ok());
  EXPECT_EQ(slurp(path("out.gguf")), slurp(std::string(kFolder) + "small.gguf"));
  EXPECT_EQ(n_files(), 1);
}

TEST_F(ImatrixFiles, WritesNothingBad) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf(""), -1.0f}) {
    Imatrix m = read_good("small.gguf");
    m.entries.find(kQ)->second.sum_sq[1] = bad;
    const Result<void> written = m.write(path("out.gguf"));
    ASSERT_FALSE(written.ok());
    EXPECT_THAT(written.error().message, HasSubstr("out.gguf: tensor 'blk.0.attn_q.weight'"));
  }
  EXPECT_FALSE(read_good("small.gguf").write(path("none/out.gguf")).ok());
  EXPECT_EQ(n_files(), 0);
}

TEST_F(ImatrixFiles, MissingEmptyAndForeignFiles) {
  const auto message = [](const std::string& file) {
    const Result<Imatrix> read = Imatrix::read(file);
    return read.ok() ? "read" : read.error().message;
  };
  EXPECT_EQ(Imatrix::read(path("none")).error().code, ErrorCode::kNotFound);
  EXPECT_THAT(message(write("empty", "")), HasSubstr("empty: is empty"));
  EXPECT_THAT(message(write("text", "Once upon a time there was a text.")),
              HasSubstr("text: is no importance matrix"));
  EXPECT_THAT(message(write("magic", "GGUF")), HasSubstr("magic"));
  EXPECT_THAT(message(folder_.string()), HasSubstr("is a folder"));
}

TEST(Imatrix, CombinesSumsAndCounts) {
  Imatrix all;
  all.chunk_tok = 5;
  ASSERT_TRUE(all.combine(read_good("small.gguf")).ok());
  ASSERT_TRUE(all.combine(read_good("small.gguf")).ok());
  EXPECT_EQ(all.n_chunk, 4);
  EXPECT_EQ(all.datasets.size(), 4u);
  EXPECT_THAT(all.entries.find(kExperts)->second.n_tok, ElementsAre(14, 0, 6));
  EXPECT_THAT(all.entries.find(kQ)->second.sum_sq, ElementsAre(10.0f, 30.0f, 50.0f, 70.0f));
  EXPECT_THAT(all.means(kQ, 0), ElementsAre(0.5f, 1.5f, 2.5f, 3.5f));
}

TEST(Imatrix, CombinesLegacyFilesByChunks) {
  for (const bool legacy_first : {false, true}) {
    Imatrix all;
    all.chunk_tok = 5;
    ASSERT_TRUE(all.combine(read_good(legacy_first ? "old.dat" : "small.gguf")).ok());
    ASSERT_TRUE(all.combine(read_good(legacy_first ? "small.gguf" : "old.dat")).ok());
    // 2 calls of 5 tokens beside 10 tokens, and for the experts beside 7, 0 and 3.
    EXPECT_THAT(all.entries.find(kQ)->second.n_tok, ElementsAre(20));
    EXPECT_THAT(all.means(kQ, 0), ElementsAre(0.5f, 1.5f, 2.5f, 3.5f));
    EXPECT_THAT(all.entries.find(kExperts)->second.n_tok, ElementsAre(17, 10, 13));
    EXPECT_THAT(all.means(kExperts, 1), ElementsAre(1.0f, 1.0f, 1.0f));
    EXPECT_EQ(all.n_chunk, 4);
  }
}

TEST(Imatrix, CombiningRefusesOtherShapes) {
  Imatrix all = read_good("small.gguf");
  Imatrix other;
  other.path = "other.gguf";
  ASSERT_TRUE(other.add(kQ, {.n_k = 3, .sum_sq = {1, 2, 3}, .n_tok = {1}, .mean_sq = {}}).ok());
  const Result<void> combined = all.combine(other);
  ASSERT_FALSE(combined.ok());
  EXPECT_THAT(combined.error().message, HasSubstr("other.gguf: "));
  EXPECT_THAT(combined.error().message, HasSubstr("sums of 4 columns and of 3 columns"));
  EXPECT_THAT(all.means(kQ, 0), ElementsAre(0.5f, 1.5f, 2.5f, 3.5f));
  all.chunk_tok = 0;
  EXPECT_FALSE(all.combine(other).ok());
}

/// A good file of one tensor of three columns and two matrices.
GgufBuilder small_gguf(const std::vector<float>& sums = {1, 2, 3, 4, 5, 6},
                       const std::vector<float>& counts = {2, 3}) {
  GgufBuilder b;
  b.set_string("general.type", "imatrix");
  b.add_tensor("t.weight.in_sum2", DType::kF32, {3, 2});
  b.add_tensor("t.weight.counts", DType::kF32, {1, 2});
  std::memcpy(b.tensor("t.weight.in_sum2").data.data(), sums.data(), sums.size() * sizeof(float));
  std::memcpy(b.tensor("t.weight.counts").data.data(), counts.data(),
              counts.size() * sizeof(float));
  return b;
}

std::string error_of(const Bytes& bytes) {
  const Result<Imatrix> read = Imatrix::parse(bytes, "bad");
  if (read.ok()) return "read";
  EXPECT_TRUE(read.error().message.starts_with("bad: ")) << read.error().message;
  EXPECT_EQ(read.error().message.find('\n'), std::string::npos);
  return read.error().message;
}

TEST(ImatrixHostile, GgufNumbers) {
  const float inf = std::numeric_limits<float>::infinity();
  ASSERT_EQ(error_of(small_gguf().bytes()), "read");
  ASSERT_EQ(error_of(small_gguf({0, 0, 0, 4, 5, 6}, {0, 3}).bytes()), "read");
  const auto error = [](const std::vector<float>& sums, const std::vector<float>& counts) {
    return error_of(small_gguf(sums, counts).bytes());
  };
  for (const float bad : {std::nanf(""), inf, -inf, -0.5f}) {
    EXPECT_THAT(error({1, 2, 3, 4, bad, 6}, {2, 3}), HasSubstr("'t.weight': sum of squares 4 is"));
    EXPECT_THAT(error({1, 2, 3, 4, 5, 6}, {2, bad}), HasSubstr("'t.weight': count of"));
  }
  EXPECT_THAT(error({1, 2, 3, 4, 5, 6}, {2, 1e30f}), HasSubstr("'t.weight': count of 1e+30"));
  EXPECT_THAT(error({1, 2, 3, 4, 5, 6}, {2, 0}), HasSubstr("matrix 1 was met by no token"));
  EXPECT_THAT(error({0, 0, 0, 0, 0, 0}, {0, 0}), HasSubstr("'t.weight': was met by no token"));
}

TEST(ImatrixHostile, GgufShapesAndKeys) {
  const auto error = [](const std::function<void(GgufBuilder&)>& spoil) {
    GgufBuilder b = small_gguf();
    spoil(b);
    return error_of(b.bytes());
  };
  EXPECT_THAT(error([](auto& b) { b.tensor("t.weight.counts").name = "u.weight.counts"; }),
              HasSubstr("'t.weight' has .in_sum2, but no .counts"));
  EXPECT_THAT(error([](auto& b) { b.tensor("t.weight.in_sum2").name = "other"; }),
              HasSubstr("'t.weight' has .counts, but no .in_sum2"));
  EXPECT_THAT(error([](auto& b) { b.tensor("t.weight.counts").shape = {1}; }), HasSubstr("read"));
  EXPECT_THAT(error([](auto& b) {
                b.tensors.clear();
                b.add_tensor("t.in_sum2", DType::kF32, {3, 2});
                b.add_tensor("t.counts", DType::kF32, {1, 4});
              }),
              HasSubstr("'t': 6 sums for 4 counts"));
  EXPECT_THAT(error([](auto& b) {
                b.tensors.clear();
                b.add_tensor("t.in_sum2", DType::kF16, {3});
                b.add_tensor("t.counts", DType::kF32, {1});
              }),
              HasSubstr("'t': sums and counts are not f32"));
  EXPECT_THAT(error([](auto& b) { b.tensors.clear(); }), HasSubstr("holds no sums"));
  EXPECT_THAT(error([](auto& b) { b.set_string("general.type", "model"); }),
              HasSubstr("'general.type' = 'model'"));
  EXPECT_THAT(error([](auto& b) { b.set("general.type", 5); }), HasSubstr("general.type"));
  EXPECT_THAT(error([](auto& b) { b.set("imatrix.chunk_size", -5); }),
              HasSubstr("'imatrix.chunk_size' = -5"));
  EXPECT_THAT(error([](auto& b) { b.set_string("imatrix.chunk_count", "x"); }),
              HasSubstr("imatrix.chunk_count"));
  EXPECT_THAT(error([](auto& b) { b.set_string("imatrix.datasets", "x"); }),
              HasSubstr("'imatrix.datasets' is no list of strings"));
  EXPECT_EQ(error([](auto& b) { b.remove("general.type"); }), "read");
  EXPECT_EQ(error([](auto& b) { b.add_tensor("t.weight.in_sum3", DType::kF32, {3}); }), "read");
}

TEST(ImatrixHostile, EveryCutOfBothForms) {
  for (const std::string name : {"small.gguf", "small.dat"}) {
    const Bytes good = bytes_of(slurp(kFolder + name));
    int n_read = 0;
    for (size_t n = 0; n < good.size(); ++n)
      n_read += error_of({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)}) == "read";
    // A .dat may end with its entries, or before the data set's name; padding of a GGUF may lack.
    EXPECT_LE(n_read, name == "small.dat" ? 2 : 24) << name;
  }
}

TEST(ImatrixHostile, EveryByteOfTheLegacyForm) {
  const Bytes good = bytes_of(slurp(std::string(kFolder) + "small.dat"));
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
      Bytes bad = good;
      bad[at] = static_cast<std::byte>(value);
      error_of(bad);  // whatever it is, it is one line or a good file
    }
  }
}

/// A .dat of one tensor, t.weight, of three columns that are all x.
Bytes legacy_file(int32_t n_entry, int32_t n_name, int32_t n_call, int32_t n_value, float x) {
  Bytes b;
  put(b, n_entry);
  put(b, n_name);
  put_text(b, "t.weight");
  put(b, n_call);
  put(b, n_value);
  for (int i = 0; i < 3; ++i) put(b, x);
  return b;
}

TEST(Imatrix, LegacyValuesWithoutCallsAreMeans) {  // as llama-quantize reads them
  const Result<Imatrix> m = Imatrix::parse(legacy_file(1, 8, 0, 3, 2.5f), "old.dat");
  ASSERT_TRUE(m.ok()) << m.error().message;
  EXPECT_THAT(m->means("t.weight", 0), ElementsAre(2.5f, 2.5f, 2.5f));
}

TEST(ImatrixHostile, LegacyNumbers) {
  const auto file = legacy_file;
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  ASSERT_EQ(error_of(file(1, 8, 2, 3, 1.0f)), "read");
  for (const int32_t n : {0, -1, 2, kMost})
    EXPECT_THAT(error_of(file(n, 8, 2, 3, 1.0f)), HasSubstr(n == 2 ? "no" : "is no importance"));
  for (const int32_t n : {0, -1, kMost})
    EXPECT_THAT(error_of(file(1, n, 2, 3, 1.0f)), HasSubstr("entry 0 of 1: name of"));
  EXPECT_THAT(error_of(file(1, 8, -1, 3, 1.0f)), HasSubstr("'t.weight': -1 calls"));
  for (const int32_t n : {0, -1, 4, kMost})
    EXPECT_THAT(error_of(file(1, 8, 2, n, 1.0f)), HasSubstr("'t.weight': " + std::to_string(n)));
  for (const float x : {std::nanf(""), -1.0f, std::numeric_limits<float>::infinity()})
    EXPECT_THAT(error_of(file(1, 8, 2, 3, x)), HasSubstr("'t.weight': sum of squares 0"));
  Bytes twice = file(2, 8, 2, 3, 1.0f);
  const Bytes again = file(1, 8, 2, 3, 1.0f);
  twice.insert(twice.end(), again.begin() + 4, again.end());
  EXPECT_THAT(error_of(twice), HasSubstr("tensor 't.weight' comes twice"));
}

}  // namespace
}  // namespace infer::test
