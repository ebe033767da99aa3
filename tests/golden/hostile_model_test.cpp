#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/quant_types.h"
#include "tests/support/model_fixture.h"
#include "tests/support/source_image.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// Values that a file may hold and a model may not: each is refused in one line naming file and
/// key, or runs.
namespace infer::test {
namespace {

constexpr const char* kFile = "hostile.gguf";

/// Loads, encodes a text, and generates a few tokens.
Result<void> try_to_run(const GgufImage& image) {
  INFER_ASSIGN(const auto model, model_of(image, kFile));
  EngineOptions options;
  options.n_ctx = 32;
  options.max_seqs = 1;
  options.n_batch = 16;
  options.manual = true;
  INFER_ASSIGN(const EngineBox engine,
               EngineBox::create(model, options, {.isa = "generic", .n_threads = 1}));
  INFER_ASSIGN(std::vector<TokenId> ids, model->tokenizer().encode("a the <s>\xff\xe2\x96 end"));
  for (const TokenId id : ids) {
    if (id < 0 || id >= model->tokenizer().n_vocab()) ADD_FAILURE() << "encode gave id " << id;
  }
  (void)model->tokenizer().decode(ids, /*special=*/true);
  if (ids.empty() || ids.size() > 16) ids = {0, 1};
  Request request = make_request(std::move(ids), 3, greedy());
  INFER_ASSIGN(const RequestId id, engine->submit(std::move(request)));
  for (;;) {
    INFER_ASSIGN(const bool more, engine->run_step());
    if (!more) break;
  }
  INFER_ASSIGN(const Response response, engine->wait(id));
  EXPECT_EQ(response.samples.size(), 1u);
  return {};
}

enum class Expect : uint8_t { kEither, kError };

/// `names`: one of these must be in the message.
void check(const GgufImage& image, const std::string& what, Expect expect,
           const std::vector<std::string>& names) {
  SCOPED_TRACE(what);
  const Result<void> result = try_to_run(image);
  if (result.ok()) {
    EXPECT_NE(expect, Expect::kError) << "was accepted";
    return;
  }
  const std::string& message = result.error().message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_NE(message.find(kFile), std::string::npos) << message;
  const bool named = std::any_of(names.begin(), names.end(), [&](const std::string& n) {
    return message.find(n) != std::string::npos;
  });
  EXPECT_TRUE(named) << message;
}

std::vector<std::pair<std::string, GgufValue>> bad_numbers() {
  return {{"0", uint32_t{0}},
          {"1", uint32_t{1}},
          {"-1 (i32)", int32_t{-1}},
          {"-1 (u32)", uint32_t{0xffffffffu}},
          {"2^31 (u32)", uint32_t{0x80000000u}},
          {"2^31 (i64)", int64_t{1} << 31},
          {"-2^31", INT32_MIN},
          {"2^63 (u64)", uint64_t{1} << 63},
          {"2^64 - 1", UINT64_MAX},
          {"0.0", 0.0f},
          {"-1.0", -1.0f},
          {"nan", NAN},
          {"inf", INFINITY},
          {"1e300", 1e300},
          {"0.5", 0.5f}};
}

std::vector<std::pair<std::string, GgufValue>> wrong_types() {
  return {{"string", std::string("7")},
          {"bool", true},
          {"empty array", std::vector<int32_t>{}},
          {"array of one", std::vector<uint32_t>{2}},
          {"array of a million", std::vector<uint32_t>(1000000, 2)},
          {"array of strings", std::vector<std::string>{"2", "2"}},
          {"array of -1", std::vector<int32_t>{-1, -1}},
          {"array of 2^31", std::vector<int64_t>{int64_t{1} << 31, int64_t{1} << 31}}};
}

/// Keys whose value decides shapes: everything but the right number is refused.
bool is_structural(const std::string& key) {
  for (const char* name :
       {"block_count", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "attention.value_length"}) {
    if (key.ends_with(std::string(".") + name)) return true;
  }
  return false;
}

class HostileModel : public ::testing::TestWithParam<std::string> {};

TEST_P(HostileModel, TheGoodOneRuns) {
  const Result<void> result = try_to_run(tiny_model(GetParam()));
  EXPECT_TRUE(result.ok()) << result.error().message;
}

TEST_P(HostileModel, EveryHyperParameter) {
  const GgufImage good = tiny_model(GetParam());
  int n_case = 0;
  for (const auto& [key, value] : good.kvs) {
    if (!key.starts_with(GetParam() + ".")) continue;
    // A shape that no longer fits is reported by the tensor that shows it, a head of 1 by the rope
    // that exceeds it.
    const std::vector<std::string> names = {key, "tensor '", "rope.dimension_count"};
    const auto spoil = [&](const std::string& what, const GgufValue& bad, Expect expect) {
      GgufImage image = good;
      image.set(key, bad);
      check(image, key + " = " + what, expect, names);
      ++n_case;
    };
    for (const auto& [what, bad] : bad_numbers()) {
      spoil(what, bad, is_structural(key) ? Expect::kError : Expect::kEither);
    }
    for (const auto& [what, bad] : wrong_types()) {
      spoil(what, bad,
            what == "string" && key != GetParam() + ".rope.scaling.type" ? Expect::kError
                                                                         : Expect::kEither);
    }
    GgufImage image = good;
    image.erase(key);
    const bool needed = key.ends_with(".block_count") || key.ends_with(".embedding_length") ||
                        key.ends_with(".attention.head_count") ||
                        key.ends_with(".feed_forward_length") ||
                        key.ends_with(".layer_norm_rms_epsilon");
    check(image, key + " missing", needed ? Expect::kError : Expect::kEither, names);
    ++n_case;
  }
  EXPECT_GT(n_case, 300);
}

TEST_P(HostileModel, UnknownNamesAreNamed) {
  const GgufImage good = tiny_model(GetParam());
  const std::pair<std::string, GgufValue> cases[] = {
      {"general.architecture", std::string("lama")},
      {"general.architecture", uint32_t{1}},
      {GetParam() + ".rope.scaling.type", std::string("longrope")},
      {GetParam() + ".rope.scaling.type", uint32_t{1}},
      {"tokenizer.ggml.model", std::string("rwkv")},
      {"tokenizer.ggml.model", uint32_t{1}}};
  for (const auto& [key, value] : cases) {
    GgufImage image = good;
    image.set(key, value);
    check(image, key, Expect::kError, {key});
    if (const auto* text = std::get_if<std::string>(&value))
      check(image, key, Expect::kError, {*text});
  }
  for (const char* key : {"general.architecture", "tokenizer.ggml.model"}) {
    GgufImage image = good;
    image.erase(key);
    check(image, std::string(key) + " missing", Expect::kError, {key});
  }
}

TEST_P(HostileModel, TokenizerTables) {
  const GgufImage good = tiny_model(GetParam());
  const auto tokens = std::get<std::vector<std::string>>(*good.find("tokenizer.ggml.tokens"));
  const size_t n = tokens.size();
  auto longer = tokens;
  longer.emplace_back("one more");
  auto twice = tokens;
  twice.back() = twice.front();
  const std::vector<float> nan_scores(n, NAN);
  struct Case {
    const char* key;
    const char* what;
    GgufValue value;
    Expect expect = Expect::kError;
  };
  const Case cases[] = {
      {"tokenizer.ggml.tokens", "numbers", std::vector<int32_t>(n, 1)},
      {"tokenizer.ggml.tokens", "floats", std::vector<float>(n, 1.0f)},
      {"tokenizer.ggml.tokens", "a string", std::string("abc")},
      {"tokenizer.ggml.tokens", "a number", uint32_t{3}},
      {"tokenizer.ggml.tokens", "empty", std::vector<std::string>{}},
      {"tokenizer.ggml.tokens", "one token", std::vector<std::string>{"a"}},
      {"tokenizer.ggml.tokens", "one too many", longer},
      {"tokenizer.ggml.tokens", "doubled", twice, Expect::kEither},
      {"tokenizer.ggml.scores", "integers", std::vector<int32_t>(n, 1), Expect::kEither},
      {"tokenizer.ggml.scores", "strings", std::vector<std::string>(n, "1")},
      {"tokenizer.ggml.scores", "short", std::vector<float>(n - 1, 0.0f)},
      {"tokenizer.ggml.scores", "long", std::vector<float>(n + 1, 0.0f)},
      {"tokenizer.ggml.scores", "empty", std::vector<float>{}},
      {"tokenizer.ggml.scores", "nan", nan_scores, Expect::kEither},
      {"tokenizer.ggml.token_type", "floats", std::vector<float>(n, 1.0f), Expect::kEither},
      {"tokenizer.ggml.token_type", "strings", std::vector<std::string>(n, "1")},
      {"tokenizer.ggml.token_type", "short", std::vector<int32_t>(n - 1, 1)},
      {"tokenizer.ggml.token_type", "long", std::vector<int32_t>(n + 1, 1)},
      {"tokenizer.ggml.token_type", "empty", std::vector<int32_t>{}},
      {"tokenizer.ggml.token_type", "-1", std::vector<int32_t>(n, -1)},
      {"tokenizer.ggml.token_type", "7", std::vector<int32_t>(n, 7)},
      {"tokenizer.ggml.token_type", "2^31", std::vector<int64_t>(n, int64_t{1} << 31)},
      {"tokenizer.ggml.token_type", "all byte tokens", std::vector<int32_t>(n, 6)},
      {"tokenizer.ggml.token_type", "all unknown", std::vector<int32_t>(n, 2), Expect::kEither},
      {"tokenizer.ggml.add_bos_token", "a string", std::string("yes")},
  };
  for (const Case& c : cases) {
    GgufImage image = good;
    image.set(c.key, c.value);
    check(image, std::string(c.key) + ": " + c.what, c.expect,
          {c.key, "tokenizer.ggml.", "token '"});
  }
  for (const char* key :
       {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
    GgufImage image = good;
    image.erase(key);
    check(image, std::string(key) + " missing",
          std::string(key).ends_with("tokens") ? Expect::kError : Expect::kEither, {key});
  }
}

TEST_P(HostileModel, ByteTokensThatAreNone) {
  const GgufImage good = tiny_model(GetParam());
  for (const char* spelling : {"<0x-1>", "<0xGG>", "<0x100>", "<0x>", "<0x1", "0x41", "<0X41>",
                               "<0x 4>", "<0x+1>", "<0x41>>", ""}) {
    GgufImage image = good;
    auto tokens = std::get<std::vector<std::string>>(*good.find("tokenizer.ggml.tokens"));
    const auto at = std::find(tokens.begin(), tokens.end(), "<0x41>");
    ASSERT_NE(at, tokens.end());
    *at = spelling;
    image.set("tokenizer.ggml.tokens", tokens);
    check(image, std::string("byte token '") + spelling + "'", Expect::kError,
          {"tokenizer.ggml.token"});
  }
}

TEST_P(HostileModel, SpecialIdsOutOfRange) {
  const GgufImage good = tiny_model(GetParam());
  const auto n = static_cast<uint32_t>(
      std::get<std::vector<std::string>>(*good.find("tokenizer.ggml.tokens")).size());
  for (const char* name : {"bos", "eos", "unknown", "padding", "eot", "eom"}) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    const std::pair<const char*, GgufValue> cases[] = {{"n_vocab", n},
                                                       {"n_vocab + 1", n + 1},
                                                       {"2^31", uint32_t{1} << 31},
                                                       {"-2", int32_t{-2}},
                                                       {"2^63", uint64_t{1} << 63},
                                                       {"string", std::string("1")},
                                                       {"array", std::vector<uint32_t>{1}}};
    for (const auto& [what, value] : cases) {
      GgufImage image = good;
      image.set(key, value);
      check(image, key + " = " + what, Expect::kError, {key});
    }
  }
}

TEST_P(HostileModel, TensorsMissingMisshapenOrOfAnotherType) {
  const GgufImage good = tiny_model(GetParam());
  for (size_t i = 0; i < good.tensors.size(); ++i) {
    const std::string& name = good.tensors[i].name;
    GgufImage image = good;
    image.tensors.erase(image.tensors.begin() + static_cast<int64_t>(i));
    check(image, name + " missing", Expect::kError, {name});

    image = good;
    std::vector<int64_t>& shape = image.tensors[i].shape;
    shape.insert(shape.begin(), 1);  // the same bytes, other rows
    check(image, name + " with another shape", Expect::kError, {name});

    for (const DType type : {DType::kI32, DType::kMXFP4}) {
      image = good;
      GgufTensor& t = image.tensors[i];
      t.type = type;
      // MXFP4 has 17 bytes for 32 values; rows of 8 and 48 do not fit it, which the reader says.
      if (type == DType::kMXFP4) t.bytes.resize(t.bytes.size() / 4 / 32 * 17);
      const Result<void> result = try_to_run(image);
      ASSERT_FALSE(result.ok()) << name;
      // Where no backend computes with the type, the op that would is named; it says the type
      // itself.
      const std::string& message = result.error().message;
      EXPECT_TRUE(message.find(name) != std::string::npos ||
                  message.find("cannot compute op") != std::string::npos)
          << message;
      EXPECT_NE(message.find(name_of(type)), std::string::npos) << message;
      EXPECT_NE(message.find(kFile), std::string::npos) << message;
    }
  }
  GgufImage image = good;
  image.tensors.push_back(image.tensors.back());
  image.tensors.back().name = "blk.0.surprise.weight";
  check(image, "a tensor too many", Expect::kError, {"blk.0.surprise.weight"});
}

/// NaN in a weight is no crash: loading or the step fails and says where.
TEST_P(HostileModel, NanWeightsAreRefused) {
  const GgufImage good = tiny_model(GetParam());
  for (const char* name : {"blk.1.ffn_up.weight", "blk.0.attn_v.weight", "output_norm.weight"}) {
    GgufImage image = good;
    GgufTensor* t = image.find_tensor(name);
    ASSERT_NE(t, nullptr);
    const float nan = NAN;
    std::memcpy(t->bytes.data(), &nan, sizeof(nan));
    const Result<void> result = try_to_run(image);
    ASSERT_FALSE(result.ok()) << name;
    EXPECT_TRUE(result.error().code == ErrorCode::kNumeric ||
                result.error().code == ErrorCode::kCorrupt);
    const std::string& message = result.error().message;
    EXPECT_TRUE(message.find("nan") != std::string::npos ||
                message.find("NaN") != std::string::npos)
        << message;
    EXPECT_NE(message.find(kFile), std::string::npos) << message;
  }
}

/// The other architectures, as the golden checkpoints have them.
class HostileCheckpoint : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
    good_ = must(convert_hf(shared_dir() / "golden/hf" / GetParam()));
  }
  GgufImage good_;
};

TEST_P(HostileCheckpoint, EveryHyperParameter) {
  const std::string prefix = std::get<std::string>(*good_.find("general.architecture")) + ".";
  int n_case = 0;
  for (const auto& [key, value] : good_.kvs) {
    if (!key.starts_with(prefix)) continue;
    // Or the key that no longer goes with it.
    const std::vector<std::string> names = {key, "tensor '", "rope.dimension_count",
                                            "attention.head_count", "expert_used_count"};
    const bool unread = key.ends_with(".rope.scaling.original_context_length");
    // These decide shapes in all of them; what the others do differs.
    // With one number for query and KV heads another number of heads is another good model.
    const bool has_kv = good_.find(prefix + "attention.head_count_kv") != nullptr;
    const bool structural = key.ends_with(".block_count") || key.ends_with(".embedding_length") ||
                            (has_kv && key.ends_with(".attention.head_count")) ||
                            key.ends_with(".expert_count");
    const auto spoil = [&](const std::string& what, const GgufValue& bad, bool wrong) {
      GgufImage image = good_;
      image.set(key, bad);
      check(image, key + " = " + what, wrong ? Expect::kError : Expect::kEither, names);
      ++n_case;
    };
    for (const auto& [what, bad] : bad_numbers()) spoil(what, bad, structural);
    for (const auto& [what, bad] : wrong_types()) spoil(what, bad, what == "string" && !unread);
    GgufImage image = good_;
    image.erase(key);
    check(image, key + " missing", structural ? Expect::kError : Expect::kEither, names);
  }
  EXPECT_GT(n_case, 100);
}

TEST_P(HostileCheckpoint, TensorsMissingOrMisshapen) {
  // Without these a model is another one of the same architecture: tied output, no bias.
  const auto optional = [](const std::string& name) {
    return name == "output.weight" || name.ends_with("_shexp.weight");
  };
  for (size_t i = 0; i < good_.tensors.size(); ++i) {
    const std::string name = good_.tensors[i].name;
    GgufImage image = good_;
    image.tensors.erase(image.tensors.begin() + static_cast<int64_t>(i));
    check(image, name + " missing", optional(name) ? Expect::kEither : Expect::kError, {name});
    image = good_;
    std::vector<int64_t>& shape = image.tensors[i].shape;
    shape.insert(shape.begin(), 1);
    check(image, name + " with another shape", Expect::kError, {name});
  }
}

INSTANTIATE_TEST_SUITE_P(Arch, HostileCheckpoint,
                         ::testing::Values("gemma2", "qwen2", "qwen3", "phi3", "gpt2", "gpt-neox",
                                           "bloom-alibi", "mpt-alibi", "mixtral-moe", "qwen2-moe",
                                           "qwen3-moe"),
                         [](const auto& p) {
                           std::string label = p.param;
                           std::replace(label.begin(), label.end(), '-', '_');
                           return label;
                         });

INSTANTIATE_TEST_SUITE_P(Arch, HostileModel, ::testing::Values("llama", "gemma3"),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace infer::test
