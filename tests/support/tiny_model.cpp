#include "tests/support/tiny_model.h"

#include <random>
#include <string>
#include <variant>
#include <vector>

#include "core/base/check.h"
#include "tests/support/encode.h"
#include "tests/support/tiny_vocab.h"

namespace infer::test {
namespace {

constexpr uint32_t kEmbd = 32;
constexpr uint32_t kHead = 4;
constexpr uint32_t kKvHead = 2;
constexpr uint32_t kHeadDim = 8;
constexpr uint32_t kFf = 48;
constexpr uint32_t kLayer = 2;

class Filler {
 public:
  explicit Filler(GgufImage& out) : out_(out) {}
  void matrix(const std::string& name, int64_t k, int64_t n) { fill(name, {k, n}, 0.0f, 0.2f); }
  void norm(const std::string& name, int64_t n) { fill(name, {n}, 1.0f, 0.1f); }

 private:
  void fill(const std::string& name, std::vector<int64_t> shape, float mean, float sigma) {
    std::normal_distribution<float> normal(mean, sigma);
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = normal(rng_);
    out_.tensors.push_back(
        {name + ".weight", DType::kF32, std::move(shape), encode(DType::kF32, x)});
  }
  GgufImage& out_;
  std::mt19937 rng_{20240607};
};

}  // namespace

GgufImage tiny_model(std::string_view arch) {
  INFER_CHECK(arch == "llama" || arch == "gemma3", "{}", arch);
  const bool gemma = arch == "gemma3";
  GgufImage out = tiny_spm(
      {{"\u2581a", -1.0f}, {"th", -2.0f}, {"\u2581th", -2.5f}, {"e", -3.0f}, {"\u2581", -4.0f}});
  const auto key = [&](const char* name) { return std::string(arch) + "." + name; };
  out.set("general.architecture", std::string(arch));
  out.set("general.name", std::string("tiny"));
  out.set(key("block_count"), kLayer);
  out.set(key("context_length"), uint32_t{128});
  out.set(key("embedding_length"), kEmbd);
  out.set(key("feed_forward_length"), kFf);
  out.set(key("attention.head_count"), kHead);
  out.set(key("attention.head_count_kv"), kKvHead);
  out.set(key("attention.key_length"), kHeadDim);
  out.set(key("attention.value_length"), kHeadDim);
  out.set(key("attention.layer_norm_rms_epsilon"), 1e-5f);
  out.set(key("attention.sliding_window"), uint32_t{16});
  out.set(key("rope.dimension_count"), kHeadDim);
  out.set(key("rope.freq_base"), 10000.0f);
  out.set(key("rope.scaling.type"), std::string("linear"));
  out.set(key("rope.scaling.factor"), 2.0f);
  out.set(key("vocab_size"),
          static_cast<uint32_t>(
              std::get<std::vector<std::string>>(*out.find("tokenizer.ggml.tokens")).size()));

  Filler fill(out);
  fill.matrix("token_embd", kEmbd, std::get<uint32_t>(*out.find(key("vocab_size"))));
  fill.norm("output_norm", kEmbd);
  for (uint32_t il = 0; il < kLayer; ++il) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    fill.norm(blk + "attn_norm", kEmbd);
    fill.matrix(blk + "attn_q", kEmbd, kHead * kHeadDim);
    fill.matrix(blk + "attn_k", kEmbd, kKvHead * kHeadDim);
    fill.matrix(blk + "attn_v", kEmbd, kKvHead * kHeadDim);
    fill.matrix(blk + "attn_output", kHead * kHeadDim, kEmbd);
    fill.norm(blk + "ffn_norm", kEmbd);
    fill.matrix(blk + "ffn_gate", kEmbd, kFf);
    fill.matrix(blk + "ffn_up", kEmbd, kFf);
    fill.matrix(blk + "ffn_down", kFf, kEmbd);
    if (!gemma) continue;
    fill.norm(blk + "attn_q_norm", kHeadDim);
    fill.norm(blk + "attn_k_norm", kHeadDim);
    fill.norm(blk + "post_attention_norm", kEmbd);
    fill.norm(blk + "post_ffw_norm", kEmbd);
  }
  return out;
}

}  // namespace infer::test
