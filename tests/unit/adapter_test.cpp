#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/model/adapter.h"
#include "tests/support/lora.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// What an adapter may be wrong in: one line that names its file, and the tensor or key.
namespace infer::test {
namespace {

constexpr const char* kFile = "adapter.gguf";

/// Reads the adapter and runs a request with it on a model of one architecture.
Result<void> try_adapter(const std::vector<std::byte>& bytes, std::string_view arch = "llama") {
  INFER_ASSIGN(auto file, gguf::Reader::parse(bytes, kFile));
  INFER_ASSIGN(auto adapter, model::Adapter::load(std::move(file)));
  INFER_ASSIGN(const auto model, model_of(tiny_model(arch), "model.gguf"));
  EngineOptions options;
  options.n_ctx = 32;
  options.n_batch = 16;
  options.max_seqs = 1;
  options.manual = true;
  options.adapters = {std::move(adapter)};
  options.default_adapters = {{0, 1.0f}};
  INFER_ASSIGN(const EngineBox engine, EngineBox::create(model, options, {.isa = "generic"}));
  INFER_ASSIGN(const RequestId id, engine->submit(make_request({1, 2, 3}, 3, greedy())));
  run_to_end(*engine);
  INFER_ASSIGN(const Response response, engine->wait(id));
  EXPECT_EQ(response.samples.size(), 1u);
  return {};
}

GgufImage good() {
  return make_lora(tiny_model("llama"), {.rank = 3, .wanted = [](const std::string& name) {
                                           return name.starts_with("blk.0.attn");
                                         }});
}

void refuse(const GgufImage& image, const std::string& name, const std::string& why,
            std::string_view arch = "llama") {
  SCOPED_TRACE(name + ": " + why);
  const Result<void> result = try_adapter(image.serialize(), arch);
  ASSERT_FALSE(result.ok());
  const std::string& message = result.error().message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_TRUE(message.starts_with(std::string(kFile) + ":")) << message;
  EXPECT_NE(message.find("'" + name + "'"), std::string::npos) << message;
  EXPECT_NE(message.find(why), std::string::npos) << message;
}

TEST(Adapter, TheGoodOneRuns) {
  const Result<void> result = try_adapter(good().serialize());
  EXPECT_TRUE(result.ok()) << result.error().message;
}

TEST(Adapter, Keys) {
  const auto with = [](const char* key, GgufValue value) {
    GgufImage image = good();
    image.set(key, std::move(value));
    return image;
  };
  refuse(with("general.type", std::string("model")), "general.type", "model");
  refuse(with("general.type", uint32_t{1}), "general.type", "string");
  refuse(with("adapter.type", std::string("control_vector")), "adapter.type", "control_vector");
  refuse(with("adapter.lora.alpha", NAN), "adapter.lora.alpha", "nan");
  refuse(with("adapter.lora.alpha", INFINITY), "adapter.lora.alpha", "inf");
  refuse(with("adapter.lora.alpha", std::string("8")), "adapter.lora.alpha", "number");
  refuse(with("adapter.alora.invocation_tokens", std::vector<uint32_t>{1}),
         "adapter.alora.invocation_tokens", "not computed");
  refuse(with("general.architecture", std::string("gemma3")), "general.architecture", "'llama'");
  refuse(good(), "general.architecture", "'gemma3'", "gemma3");
  for (const char* key :
       {"general.type", "general.architecture", "adapter.type", "adapter.lora.alpha"}) {
    GgufImage image = good();
    image.erase(key);
    refuse(image, key, "missing");
  }
}

TEST(Adapter, Tensors) {
  const std::string a = "blk.0.attn_q.weight.lora_a";
  const std::string b = "blk.0.attn_q.weight.lora_b";
  const auto spoil = [](const std::string& name, auto&& change) {
    GgufImage image = good();
    change(*image.find_tensor(name));
    return image;
  };
  const auto reshape = [&](const std::string& name, std::vector<int64_t> shape) {
    return spoil(name, [&](GgufTensor& t) {
      int64_t n = 1;
      for (const int64_t d : shape) n *= d;
      t.shape = std::move(shape);
      t.bytes.assign(static_cast<size_t>(n) * 4, std::byte{0});
    });
  };
  const auto rename = [&](const std::string& name, const std::string& to) {
    return spoil(name, [&](GgufTensor& t) { t.name = to; });
  };
  refuse(reshape(a, {32, 4}), a, "rank");
  refuse(reshape(b, {2, 32}), a, "rank");
  refuse(reshape(a, {31, 3}), a, "[32, 32");
  refuse(reshape(b, {3, 33}), b, "[32, 32");
  refuse(reshape(a, {32}), a, "rank");
  refuse(reshape(a, {32, 3, 2}), a, "experts");
  refuse(rename(a, "blk.0.attn_q.weight.lora_c"), "blk.0.attn_q.weight.lora_c", "neither");
  refuse(rename(a, "blk.9.attn_q.weight.lora_a"), b, "stands alone");
  refuse(spoil(a, [](GgufTensor& t) { t.type = DType::kI32; }), a, "i32");
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (const std::string& name : {a, b}) {
      refuse(
          spoil(name,
                [&](GgufTensor& t) { std::memcpy(t.bytes.data() + t.bytes.size() - 4, &bad, 4); }),
          name, "not a finite number");
    }
  }
  // Both halves of a tensor that the model has not, or that is no matrix of a linear layer.
  const std::pair<const char*, const char*> targets[] = {{"blk.7.attn_q.weight", "no counterpart"},
                                                         {"token_embd.weight", ""}};
  for (const auto& [target, why] : targets) {
    GgufImage image = good();
    image.find_tensor(a)->name = std::string(target) + ".lora_a";
    image.find_tensor(b)->name = std::string(target) + ".lora_b";
    refuse(image, std::string(target) + (*why != '\0' ? ".lora_a" : ".lora_b"), why);
  }
  GgufImage norm = good();
  norm.tensors.push_back(
      {"blk.0.attn_norm.weight", DType::kF32, {32}, std::vector<std::byte>(128)});
  refuse(norm, "blk.0.attn_norm.weight", "neither");
  GgufImage empty = good();
  empty.tensors.clear();
  EXPECT_FALSE(try_adapter(empty.serialize()).ok());
}

TEST(Adapter, EmbeddingsAreRefused) {
  GgufImage image = good();
  GgufImage tiny = tiny_model("llama");
  const int64_t n_vocab = tiny.find_tensor("token_embd.weight")->shape[1];
  image.tensors.clear();
  image.tensors.push_back(
      {"token_embd.weight.lora_a", DType::kF32, {32, 2}, std::vector<std::byte>(32 * 2 * 4)});
  image.tensors.push_back({"token_embd.weight.lora_b",
                           DType::kF32,
                           {2, n_vocab},
                           std::vector<std::byte>(static_cast<size_t>(2 * n_vocab * 4))});
  refuse(image, "token_embd.weight.lora_a", "cannot be added to");
}

/// Cut anywhere, and with every byte of the header changed: an error or a run, never a crash.
TEST(Adapter, SpoiltBytes) {
  const std::vector<std::byte> bytes = good().serialize();
  for (size_t n = 0; n < bytes.size(); n += 97) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<int64_t>(n));
    EXPECT_FALSE(try_adapter(cut).ok()) << n;
  }
  for (size_t i = 0; i < 900; i += 7) {
    std::vector<std::byte> changed = bytes;
    changed[i] ^= std::byte{0x41};
    const Result<void> result = try_adapter(changed);
    if (result.ok()) continue;
    EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
  }
}

TEST(Adapter, RequestsThatCannotBe) {
  const auto model = must(model_of(tiny_model("llama"), "model.gguf"));
  const auto bytes = good().serialize();
  EngineOptions options;
  options.n_ctx = 32;
  options.max_seqs = 1;
  options.manual = true;
  options.adapters = {must(model::Adapter::load(must(gguf::Reader::parse(bytes, kFile))))};
  const EngineBox engine = must(EngineBox::create(model, options, {.isa = "generic"}));
  const auto submit = [&](std::vector<AdapterUse> mix) {
    Request request = make_request({1, 2}, 1, greedy());
    request.adapters = std::move(mix);
    return engine->submit(std::move(request));
  };
  EXPECT_FALSE(submit({{1, 1.0f}}).ok());
  EXPECT_FALSE(submit({{-1, 1.0f}}).ok());
  EXPECT_FALSE(submit({{0, NAN}}).ok());
  EXPECT_FALSE(submit({{0, 1.0f}, {0, 2.0f}}).ok());
  EXPECT_TRUE(submit({{0, -3.0f}}).ok());
  options.default_adapters = {{3, 1.0f}};
  EXPECT_FALSE(EngineBox::create(model, options, {.isa = "generic"}).ok());
}

}  // namespace
}  // namespace infer::test
