#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/model/archs/archs.h"
#include "core/model/archs/decoder.h"
#include "core/model/archs/hf_keys.h"
#include "core/model/hparams_reader.h"
#include "core/model/rope.h"

/// Llama 1, 2, 3, SmolLM2, 42dot LLM, Mistral with its sliding window, Mixtral with its experts.
/// Source: arXiv:2302.13971, arXiv:2307.09288, arXiv:2310.06825, arXiv:2401.04088. Rotary pairs are
/// (2i, 2i + 1): converters permute q and k.
namespace infer::model {
namespace {

constexpr int64_t kMaxHeadDim = 1 << 12;

constexpr decoder::Layout kLayout{.qkv_bias = decoder::Has::kMaybe,
                                  .proj_bias = decoder::Has::kMaybe};

Result<Hparams> read_hparams(const gguf::Reader& file) {
  const HparamsReader r(file, "llama");
  INFER_ASSIGN(Hparams hp, read_common(r, "attention.layer_norm_rms_epsilon"));
  INFER_TRY(read_experts(r, &hp));
  INFER_TRY(read_ropes(r, graph::RopeKind::kNorm, 10000.0, &hp));
  INFER_ASSIGN(const int64_t window, r.integer("attention.sliding_window", 0, int64_t{1} << 30, 0));
  for (LayerHparams& layer : hp.layers) layer.window = window;
  return hp;
}

std::vector<TensorSpec> tensors(const Hparams& hp) { return decoder::tensors(hp, kLayout); }

void build(graph::Builder& g, const Hparams& hp) {
  decoder::build(g, hp, kLayout, graph::GluKind::kSilu);
}

Result<void> write_llama3_factors(const HfConfig& c, int64_t head_dim, double base, HfKeys& out) {
  INFER_ASSIGN(const double factor, c.number({"factor"}, 8.0));
  INFER_ASSIGN(const double low, c.number({"low_freq_factor"}, 1.0));
  INFER_ASSIGN(const double high, c.number({"high_freq_factor"}, 4.0));
  INFER_ASSIGN(const double n_ctx_orig, c.number({"original_max_position_embeddings"}, 8192.0));
  if (!(low > 0.0 && high > low)) return c.unsupported("high_freq_factor", "must be above low's");
  std::vector<float> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double freq =
        std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double wave = 2.0 * std::numbers::pi / freq;
    double f = 1.0;
    if (wave > n_ctx_orig / low) {
      f = factor;
    } else if (wave >= n_ctx_orig / high) {
      const double smooth = (n_ctx_orig / wave - low) / (high - low);
      f = 1.0 / ((1.0 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(f));
  }
  out.tensor("rope_freqs.weight", std::move(factors));
  return {};
}

Result<void> write_keys(const HfConfig& c, HfKeys& out) {
  INFER_TRY(hf::expect_text(c, "hidden_act", {"silu"}));
  INFER_ASSIGN(const hf::Sizes s, hf::read_sizes(c));
  INFER_ASSIGN(hf::Rope rope, hf::read_rope(c));
  INFER_ASSIGN(const double eps, c.number({"rms_norm_eps"}));
  if (rope.partial != 1.0)
    return c.unsupported("partial_rotary_factor", "Llama rotates whole heads");
  if (rope.type == "llama3") {
    if (s.head_dim > kMaxHeadDim) return c.unsupported("head_dim", "too large");
    INFER_TRY(write_llama3_factors(rope.scaling, s.head_dim, rope.base, out));
    rope.type = "default";
  }
  INFER_TRY(hf::write_base(c, s, rope, eps, out));
  INFER_ASSIGN(const int64_t n_vocab, c.integer({"vocab_size"}));
  out.u32("vocab_size", n_vocab).u32("rope.dimension_count", s.head_dim);
  // llama.cpp's converter leaves the window of Mistral out.
  INFER_ASSIGN(const std::string type, c.text({"model_type"}, "llama"));
  INFER_ASSIGN(const int64_t window, c.integer({"sliding_window"}, 0));
  if (type == "llama" || window == 0) return {};
  INFER_ASSIGN(const auto layer_types, c.texts("layer_types"));
  if (std::count(layer_types.begin(), layer_types.end(), "full_attention") > 0)
    return c.unsupported("layer_types", "full attention beside a sliding window");
  out.u32("attention.sliding_window", window);
  return {};
}

constexpr std::array<std::string_view, 4> kNames{"LlamaForCausalLM", "LLaMAForCausalLM",
                                                 "MistralForCausalLM", "MixtralForCausalLM"};
constexpr std::array<HfName, 22> kInner{{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight", HfChange::kPermuteQ},
    {"self_attn.q_proj.bias", "attn_q.bias", HfChange::kPermuteQ},
    {"self_attn.k_proj.weight", "attn_k.weight", HfChange::kPermuteK},
    {"self_attn.k_proj.bias", "attn_k.bias", HfChange::kPermuteK},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"self_attn.rotary_emb.inv_freq", ""},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.up_proj.bias", "ffn_up.bias"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.down_proj.bias", "ffn_down.bias"},
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight"},
    // Mixtral as transformers 5 holds it: [n_expert, 2 * n_ff, n_embd], w1's rows before w3's.
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.experts.gate_up_proj", "ffn_gate_exps.weight", HfChange::kFirstHalf},
    {"mlp.experts.gate_up_proj", "ffn_up_exps.weight", HfChange::kSecondHalf},
    {"mlp.experts.down_proj", "ffn_down_exps.weight"},
}};
constexpr std::array<HfName, 3> kExperts{{
    {"w1.weight", "ffn_gate_exps.weight"},
    {"w2.weight", "ffn_down_exps.weight"},
    {"w3.weight", "ffn_up_exps.weight"},
}};
constexpr HfSide kHf{.names = kNames,
                     .prefixes = hf::kModelPrefix,
                     .layers = "layers.",
                     .outer = hf::kOuter,
                     .inner = kInner,
                     .write_keys = write_keys,
                     .experts = "block_sparse_moe.experts.",
                     .expert_tensors = kExperts};

}  // namespace

constinit const ArchDef kLlama{
    .name = "llama", .read_hparams = read_hparams, .tensors = tensors, .build = build, .hf = &kHf};

}  // namespace infer::model
