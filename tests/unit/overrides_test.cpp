#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/model/model.h"
#include "gguf/overrides.h"
#include "gguf/reader.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// --override-kv: keys from outside the file.
namespace infer::test {
namespace {

using gguf::KeyOverride;

KeyOverride parsed(const std::string& text) { return must(gguf::parse_override(text, "--flag")); }

TEST(OverrideText, Kinds) {
  EXPECT_EQ(parsed("a.b=int:-12").key, "a.b");
  EXPECT_EQ(std::get<int64_t>(parsed("a.b=int:-12").value), -12);
  EXPECT_EQ(std::get<double>(parsed("a.b=float:1e4").value), 1e4);
  EXPECT_EQ(std::get<double>(parsed("a.b=float:5").value), 5.0);
  EXPECT_EQ(std::get<bool>(parsed("a=bool:true").value), true);
  EXPECT_EQ(std::get<bool>(parsed("a=bool:false").value), false);
  EXPECT_EQ(std::get<std::string>(parsed("a=str:x=y:z ").value), "x=y:z ");
  EXPECT_EQ(std::get<std::string>(parsed("a=str:").value), "");
}

TEST(OverrideText, WrongOnes) {
  for (const char* text :
       {"",         "a",           "a=",          "a=int",         "=int:1",
        "a=int:",   "a=int:1x",    "a=int: 1",    "a=int:1.5",     "a=int:9223372036854775808",
        "a=float:", "a=float:nan", "a=float:inf", "a=float:1e999", "a=float:x",
        "a=bool:1", "a=bool:True", "a=uint:1",    "a=:1",          ".a=int:1",
        "a:int=1"}) {
    const auto result = gguf::parse_override(text, "--flag");
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(result.error().message.starts_with("--flag '" + std::string(text) + "'"))
        << result.error().message;
  }
}

Result<std::shared_ptr<const gguf::Reader>> open_with(const std::vector<std::byte>& bytes,
                                                      std::vector<KeyOverride> overrides) {
  gguf::ReadOptions options;
  options.overrides = std::move(overrides);
  return gguf::Reader::parse(bytes, "model.gguf", options);
}

TEST(Overrides, ReplaceAndAdd) {
  const std::vector<std::byte> bytes = tiny_model("llama").serialize();
  const auto file = must(
      open_with(bytes, {parsed("llama.rope.freq_base=float:5e5"), parsed("llama.block_count=int:1"),
                        parsed("general.name=str:other"), parsed("zzz.new=bool:true"),
                        parsed("llama.block_count=int:2"), parsed("aaa.new=int:7")}));
  EXPECT_EQ(must(file->get_float("llama.rope.freq_base")), 5e5);
  EXPECT_EQ(must(file->get_int("llama.block_count")), 2);  // the last one
  EXPECT_EQ(must(file->get_string("general.name")), "other");
  EXPECT_EQ(must(file->get_bool("zzz.new", false)), true);
  EXPECT_EQ(must(file->get_int("aaa.new")), 7);
  const auto plain = must(open_with(bytes, {}));
  EXPECT_EQ(file->kvs().size(), plain->kvs().size() + 2);
  for (const gguf::KeyValue& kv : plain->kvs()) EXPECT_NE(file->find(kv.key), nullptr) << kv.key;
}

TEST(Overrides, BehindTheArchitecture) {
  const std::vector<std::byte> bytes = tiny_model("gemma3").serialize();
  KeyOverride base = {".rope.freq_base", 123.0, "--rope-freq-base", false};
  KeyOverride type = {".rope.scaling.type", std::string("yarn"), "--x", true};
  KeyOverride missing = {".missing", int64_t{3}, "--x", true};
  const auto file = must(open_with(bytes, {base, type, missing}));
  EXPECT_EQ(must(file->get_float("gemma3.rope.freq_base")), 123.0);
  EXPECT_EQ(must(file->get_string("gemma3.rope.scaling.type")), "linear");
  EXPECT_EQ(must(file->get_int("gemma3.missing")), 3);
}

TEST(Overrides, WrongKindsNameTheFlag) {
  const std::vector<std::byte> bytes = tiny_model("llama").serialize();
  for (const char* text :
       {"llama.block_count=float:2", "llama.block_count=bool:true", "llama.block_count=str:2",
        "llama.rope.freq_base=int:10000", "general.name=int:1", "tokenizer.ggml.tokens=str:a",
        "tokenizer.ggml.scores=float:1", "general.alignment=int:64", "split.count=int:2"}) {
    const KeyOverride o = parsed(text);
    const auto result = open_with(bytes, {o});
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(result.error().message.starts_with("--flag " + o.key)) << result.error().message;
    EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
  }
}

/// The model reads what it would read had the file said so: hyper-parameters and tokenizer.
TEST(Overrides, ReachTheModel) {
  GgufImage image = tiny_model("llama");
  const std::vector<std::byte> bytes = image.serialize();
  gguf::ReadOptions options;
  options.overrides = {
      parsed("llama.rope.freq_base=float:77"), parsed("llama.rope.scaling.factor=float:4"),
      parsed("llama.context_length=int:64"), parsed("tokenizer.ggml.add_bos_token=bool:false")};
  const auto got = must(model::Model::load(must(gguf::Reader::parse(bytes, "m", options))));
  image.set("llama.rope.freq_base", 77.0f);
  image.set("llama.rope.scaling.factor", 4.0f);
  image.set("llama.context_length", uint32_t{64});
  image.set("tokenizer.ggml.add_bos_token", false);
  const auto want = must(model_of(image, "m"));
  EXPECT_EQ(got->hparams().ropes, want->hparams().ropes);
  EXPECT_EQ(got->hparams().n_ctx_train, 64);
  EXPECT_EQ(must(got->tokenizer().encode("a the")), must(want->tokenizer().encode("a the")));
  const auto plain = must(model_of(tiny_model("llama"), "m"));
  EXPECT_NE(got->hparams().ropes, plain->hparams().ropes);
  EXPECT_NE(must(got->tokenizer().encode("a the")), must(plain->tokenizer().encode("a the")));
}

}  // namespace
}  // namespace infer::test
