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

constexpr uint32_t kLayer = 2;

class Filler {
 public:
  Filler(GgufImage& out, const TinyShape& shape) : out_(out), shape_(shape) {}
  void matrix(const std::string& name, int64_t k, int64_t n) {
    fill(name, shape_.type, {k, n}, 0.0f, shape_.sigma);
  }
  void norm(const std::string& name, int64_t n) { fill(name, DType::kF32, {n}, 1.0f, 0.1f); }

 private:
  void fill(const std::string& name, DType type, std::vector<int64_t> shape, float mean,
            float sigma) {
    std::normal_distribution<float> normal(mean, sigma);
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) v = normal(rng_);
    out_.tensors.push_back({name + ".weight", type, std::move(shape), encode(type, x)});
  }
  GgufImage& out_;
  const TinyShape& shape_;
  std::mt19937 rng_{20240607};
};

}  // namespace

GgufImage tiny_model(std::string_view arch, const TinyShape& shape) {
  INFER_CHECK(arch == "llama" || arch == "gemma3", "{}", arch);
  const bool gemma = arch == "gemma3";
  GgufImage out = tiny_spm(
      {{"\u2581a", -1.0f}, {"th", -2.0f}, {"\u2581th", -2.5f}, {"e", -3.0f}, {"\u2581", -4.0f}});
  const auto key = [&](const char* name) { return std::string(arch) + "." + name; };
  out.set("general.architecture", std::string(arch));
  out.set("general.name", std::string("tiny"));
  out.set(key("block_count"), kLayer);
  out.set(key("context_length"), uint32_t{128});
  out.set(key("embedding_length"), shape.n_embd);
  out.set(key("feed_forward_length"), shape.n_ff);
  out.set(key("attention.head_count"), shape.n_head);
  out.set(key("attention.head_count_kv"), shape.n_kv_head);
  out.set(key("attention.key_length"), shape.head_dim);
  out.set(key("attention.value_length"), shape.head_dim);
  out.set(key("attention.layer_norm_rms_epsilon"), 1e-5f);
  out.set(key("attention.sliding_window"), uint32_t{16});
  out.set(key("rope.dimension_count"), shape.head_dim);
  out.set(key("rope.freq_base"), 10000.0f);
  out.set(key("rope.scaling.type"), std::string("linear"));
  out.set(key("rope.scaling.factor"), 2.0f);
  out.set(key("vocab_size"),
          static_cast<uint32_t>(
              std::get<std::vector<std::string>>(*out.find("tokenizer.ggml.tokens")).size()));

  Filler fill(out, shape);
  fill.matrix("token_embd", shape.n_embd, std::get<uint32_t>(*out.find(key("vocab_size"))));
  fill.norm("output_norm", shape.n_embd);
  for (uint32_t il = 0; il < kLayer; ++il) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    fill.norm(blk + "attn_norm", shape.n_embd);
    fill.matrix(blk + "attn_q", shape.n_embd, shape.n_head * shape.head_dim);
    fill.matrix(blk + "attn_k", shape.n_embd, shape.n_kv_head * shape.head_dim);
    fill.matrix(blk + "attn_v", shape.n_embd, shape.n_kv_head * shape.head_dim);
    fill.matrix(blk + "attn_output", shape.n_head * shape.head_dim, shape.n_embd);
    fill.norm(blk + "ffn_norm", shape.n_embd);
    fill.matrix(blk + "ffn_gate", shape.n_embd, shape.n_ff);
    fill.matrix(blk + "ffn_up", shape.n_embd, shape.n_ff);
    fill.matrix(blk + "ffn_down", shape.n_ff, shape.n_embd);
    if (!gemma) continue;
    fill.norm(blk + "attn_q_norm", shape.head_dim);
    fill.norm(blk + "attn_k_norm", shape.head_dim);
    fill.norm(blk + "post_attention_norm", shape.n_embd);
    fill.norm(blk + "post_ffw_norm", shape.n_embd);
  }
  return out;
}

}  // namespace infer::test
