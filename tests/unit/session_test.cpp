#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/crc32c.h"
#include "core/engine_session.h"
#include "tests/support/model_fixture.h"

/// Session files: what is written comes back, and anything else is one clear line.
namespace infer::test {
namespace {

uint32_t crc_of(std::string_view text) { return crc32c(0, std::as_bytes(std::span(text))); }

/// Values from RFC 3720 appendix B.4 and the usual check word.
TEST(Crc32c, PublishedValues) {
  EXPECT_EQ(crc_of(""), 0u);
  EXPECT_EQ(crc_of("123456789"), 0xe3069283u);
  EXPECT_EQ(crc_of(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc_of(std::string(32, '\xff')), 0x62a8ab43u);
  std::string up;
  for (int i = 0; i < 32; ++i) up += static_cast<char>(i);
  EXPECT_EQ(crc_of(up), 0x46dd794eu);
}

TEST(Crc32c, PiecesAreTheWhole) {
  std::vector<std::byte> bytes;
  for (int i = 0; i < 100; ++i) bytes.push_back(static_cast<std::byte>(i * 37));
  const std::span<const std::byte> all(bytes);
  for (size_t cut = 0; cut <= bytes.size(); ++cut)
    EXPECT_EQ(crc32c(crc32c(0, all.first(cut)), all.subspan(cut)), crc32c(0, all)) << cut;
}

/// Layer 0 sees everything, layer 1 a window of 40 tokens.
SessionBinding binding() {
  SessionBinding b;
  b.model_hash = 0x1234567890abcdefu;
  b.type_k = DType::kF16;
  b.type_v = DType::kF32;
  b.layers = {{.n_kv_head = 2, .head_dim = 4, .head_dim_v = 6, .window = 0},
              {.n_kv_head = 1, .head_dim = 8, .head_dim_v = 8, .window = 40}};
  b.n_vocab = 300;
  return b;
}

Session session(int n_tok) {
  Session s;
  s.adapter_hash = 77;
  for (int i = 0; i < n_tok; ++i) s.tokens.push_back(i * 7 % 300);
  const SessionBinding b = binding();
  for (const SessionBinding::Layer& shape : b.layers) {
    Session::Layer& layer = s.layers.emplace_back();
    layer.first = shape.window > 0 ? std::max(0, n_tok - 39) / 32 * 32 : 0;
    const auto n_row = static_cast<size_t>(n_tok - layer.first);
    const auto fill = [&](size_t row_bytes) {
      std::vector<std::byte> out(n_row * row_bytes);
      for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i * 31 % 59);
      return out;
    };
    layer.k = fill(static_cast<size_t>(shape.n_kv_head * shape.head_dim * 2));
    layer.v = fill(static_cast<size_t>(shape.n_kv_head * shape.head_dim_v * 4));
  }
  return s;
}

class SessionFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "infer-ses-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return (folder_ / "a.session").string(); }
  std::vector<std::byte> bytes_of(const Session& s) const {
    must(write_session(path(), binding(), s));
    std::ifstream in(path(), std::ios::binary);
    std::vector<char> text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    const auto raw = std::as_bytes(std::span(text));
    return {raw.begin(), raw.end()};
  }
  std::filesystem::path folder_;
};

/// What is not finite depends on the type: these bytes are a number as bf16 and none as f16.
TEST_F(SessionFile, KnowsBf16) {
  SessionBinding b = binding();
  b.type_k = DType::kBF16;
  b.type_v = DType::kBF16;
  EXPECT_EQ(session_row_bytes(DType::kBF16, 2, 4), 16);
  Session s = session(5);
  for (size_t i = 0; i < s.layers.size(); ++i) {
    const SessionBinding::Layer& shape = b.layers[i];
    s.layers[i].v.resize(static_cast<size_t>(5 * shape.n_kv_head * shape.head_dim_v * 2));
  }
  const auto put = [&](uint16_t bits) { std::memcpy(s.layers[0].k.data(), &bits, 2); };
  put(0x7c01);
  must(write_session(path(), b, s));
  EXPECT_EQ(must(read_session(path(), b)).layers[0].k, s.layers[0].k);
  put(0x7f80);
  must(write_session(path(), b, s));
  EXPECT_FALSE(read_session(path(), b).ok());
}

void refuse(std::span<const std::byte> bytes, const SessionBinding& b, const std::string& why) {
  SCOPED_TRACE(why);
  const auto result = parse_session(bytes, "a.session", b);
  ASSERT_FALSE(result.ok());
  const std::string& message = result.error().message;
  EXPECT_TRUE(message.starts_with("a.session: ")) << message;
  EXPECT_NE(message.find(why), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST_F(SessionFile, ComesBack) {
  for (const int n_tok : {0, 1, 31, 32, 40, 100}) {
    const Session want = session(n_tok);
    must(write_session(path(), binding(), want));
    const Session got = must(read_session(path(), binding()));
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_EQ(got.adapter_hash, want.adapter_hash);
    ASSERT_EQ(got.layers.size(), want.layers.size());
    for (size_t i = 0; i < want.layers.size(); ++i) {
      EXPECT_EQ(got.layers[i].first, want.layers[i].first);
      EXPECT_EQ(got.layers[i].k, want.layers[i].k);
      EXPECT_EQ(got.layers[i].v, want.layers[i].v);
    }
    const auto files = std::filesystem::directory_iterator(folder_);
    EXPECT_EQ(std::distance(begin(files), end(files)), 1) << "a temporary file is left";
  }
}

TEST_F(SessionFile, OfAnotherRun) {
  const std::vector<std::byte> bytes = bytes_of(session(100));
  const auto other = [](auto&& change) {
    SessionBinding b = binding();
    change(b);
    return b;
  };
  refuse(bytes, other([](SessionBinding& b) { ++b.model_hash; }), "another model");
  refuse(bytes, other([](SessionBinding& b) { b.precise = true; }), "--precise");
  refuse(bytes, other([](SessionBinding& b) { b.long_rope = true; }), "less context");
  refuse(bytes, other([](SessionBinding& b) { b.type_k = DType::kQ8_0; }), "K of type f16");
  refuse(bytes, other([](SessionBinding& b) { b.type_v = DType::kF16; }), "V of type f32");
  refuse(bytes, other([](SessionBinding& b) { b.layers.pop_back(); }), "layers");
  refuse(bytes, other([](SessionBinding& b) { b.layers[1].head_dim = 4; }), "layer 1");
  refuse(bytes, other([](SessionBinding& b) { b.layers[1].window = 0; }), "begins at token");
  refuse(bytes, other([](SessionBinding& b) { b.n_vocab = 10; }), "vocabulary");
}

/// A checksum that fits again, so that the checks behind it are met.
void seal(std::vector<std::byte>* bytes) {
  const std::span<const std::byte> body(bytes->data(), bytes->size() - 4);
  const uint32_t crc = crc32c(0, body);
  std::memcpy(bytes->data() + bytes->size() - 4, &crc, 4);
}

template <class T>
std::vector<std::byte> with(std::vector<std::byte> bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
  seal(&bytes);
  return bytes;
}

TEST_F(SessionFile, SpoiltOnPurpose) {
  const std::vector<std::byte> good = bytes_of(session(50));
  const SessionBinding b = binding();
  EXPECT_TRUE(parse_session(good, "good", b).ok());
  refuse(with(good, 0, 'X'), b, "no session file");
  refuse(with(good, 8, uint32_t{2}), b, "version 2");
  refuse(with(good, 12, uint32_t{2}), b, "more context");
  refuse(with(good, 12, uint32_t{4}), b, "flags");
  refuse(with(good, 32, uint32_t{999}), b, "type");
  refuse(with(good, 40, uint32_t{0xffffffffu}), b, "layers");
  refuse(with(good, 44, uint32_t{1}), b, "flags");
  for (const uint64_t n : {uint64_t{49}, uint64_t{51}, uint64_t{1} << 24, uint64_t{1} << 32,
                           uint64_t{1} << 62, UINT64_MAX})
    EXPECT_FALSE(parse_session(with(good, 48, n), "a.session", b).ok()) << n;
  refuse(with(good, 56, int32_t{-1}), b, "vocabulary");
  refuse(with(good, 56, int32_t{300}), b, "vocabulary");
  const size_t layer = 56 + 50 * 4;
  refuse(with(good, layer, uint32_t{3}), b, "layer 0");
  refuse(with(good, layer + 12, uint32_t{32}), b, "begins at token 32");
  refuse(with(good, layer + 12, uint32_t{0xffffffe0u}), b, "begins at token");
  refuse(with(good, layer + 16, uint16_t{0x7e00}), b, "not finite");  // a NaN in K
  std::vector<std::byte> longer = good;
  longer.insert(longer.end(), 4, std::byte{0});
  seal(&longer);
  refuse(longer, b, "at its end");
}

TEST_F(SessionFile, CutOrFlippedAnywhere) {
  const std::vector<std::byte> good = bytes_of(session(5));
  const SessionBinding b = binding();
  for (size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(parse_session(std::span(good).first(n), "cut", b).ok()) << n;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::vector<std::byte> flipped = good;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(parse_session(flipped, "flipped", b).ok()) << "bit " << bit;
    seal(&flipped);
    const auto result = parse_session(flipped, "flipped", b);  // may be another good session
    if (!result.ok()) {
      EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
    }
  }
}

TEST_F(SessionFile, FilesThatAreNot) {
  EXPECT_FALSE(read_session((folder_ / "none").string(), binding()).ok());
  EXPECT_FALSE(read_session(folder_.string(), binding()).ok());
  EXPECT_FALSE(write_session((folder_ / "no" / "folder").string(), binding(), session(3)).ok());
  const std::string link = (folder_ / "link").string();
  for (const char* target : {"/dev/null", "/tmp"}) {  // no device and no folder is ever replaced
    std::filesystem::create_symlink(target, link);
    EXPECT_FALSE(write_session(link, binding(), session(3)).ok()) << target;
    EXPECT_TRUE(std::filesystem::is_symlink(link)) << target;
    std::filesystem::remove(link);
  }
}

}  // namespace
}  // namespace infer::test
