#include "quantize/mix.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/keys.h"

namespace infer::quantize {
namespace {

bool has(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

/// N of "blk.N.", -1 without one.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return -1;
  int32_t layer = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, layer);
  return error == std::errc() && stop != end && *stop == '.' && layer >= 0 ? layer : -1;
}

enum class Part : uint8_t {
  kEmbedding,
  kOutput,
  kAttnQkv,
  kAttnKvB,
  kAttnV,
  kAttnK,
  kAttnQ,
  kAttnOutput,
  kFfnUp,
  kFfnGate,
  kFfnDown,
  kOther,
};

Part part_of(std::string_view name) {
  if (name == kOutputTensor) return Part::kOutput;
  if (is_token_embedding(name)) return Part::kEmbedding;
  constexpr std::pair<std::string_view, Part> kParts[] = {{"attn_qkv.weight", Part::kAttnQkv},
                                                          {"attn_kv_b.weight", Part::kAttnKvB},
                                                          {"attn_v.weight", Part::kAttnV},
                                                          {"attn_k.weight", Part::kAttnK},
                                                          {"attn_q.weight", Part::kAttnQ},
                                                          {"attn_output.weight", Part::kAttnOutput},
                                                          {"ffn_up", Part::kFfnUp},
                                                          {"ffn_gate", Part::kFfnGate},
                                                          {"ffn_down", Part::kFfnDown}};
  for (const auto& [text, part] : kParts) {
    if (has(name, text)) return part;
  }
  return Part::kOther;
}

bool counts_as_attn_v(Part part) {
  return part == Part::kAttnV || part == Part::kAttnQkv || part == Part::kAttnKvB;
}

/// The first and last eighth of the layers and every third between.
bool more_bits(int64_t i, int64_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

/// An integer key, or the first element where it is a list by layer.
Result<int64_t> first_int(const gguf::Reader& model, const std::string& key, int64_t missing) {
  const gguf::Value* v = model.find(key);
  if (v == nullptr) return missing;
  if (!v->is_array()) return model.get_int(key);
  if (v->size() == 0) return missing;
  Result<int64_t> i = v->int_at(0);
  if (i.ok()) return i;
  return make_error(ErrorCode::kCorrupt, "{}: key '{}' is no list of integers", model.path(), key);
}

bool is_70b_shape(const ModelFacts& f, int64_t n_head, int64_t n_head_kv) {
  if (f.arch == "llama" || f.arch == "llama-embed")
    return f.n_layer == 80 && f.n_expert != 8 && n_head != n_head_kv;
  if (f.arch == "qwen2" || f.arch == "deci" || f.arch == "olmo") return f.n_layer == 80;
  return f.arch == "jais2" && f.n_layer == 68;
}

}  // namespace

bool is_token_embedding(std::string_view name) {
  return name == "token_embd.weight" || name == "per_layer_token_embd.weight";
}

Result<ModelFacts> read_facts(const gguf::Reader& model) {
  ModelFacts f;
  int64_t named_layers = 0;
  for (const gguf::TensorInfo& t : model.tensors()) {
    const Part part = part_of(t.name);
    if (part == Part::kOutput) f.tied = false;
    if (counts_as_attn_v(part)) ++f.n_attn_v;
    named_layers = std::max(named_layers, layer_of(t.name) + 1);
  }
  INFER_ASSIGN(const std::string_view arch, model.get_string(gguf::keys::kArchitecture, ""));
  f.arch = arch;
  const auto key = [&](std::string_view name) { return gguf::keys::arch_key(arch, name); };
  INFER_ASSIGN(f.n_layer, model.get_int(key(gguf::keys::kBlockCount), named_layers));
  INFER_ASSIGN(f.n_expert, model.get_int(key(gguf::keys::kExpertCount), 0));
  INFER_ASSIGN(const int64_t n_head, first_int(model, key(gguf::keys::kHeadCount), 0));
  INFER_ASSIGN(const int64_t n_head_kv, first_int(model, key(gguf::keys::kHeadCountKv), n_head));
  if (n_head > 0 && n_head_kv > 0) f.n_gqa = n_head / n_head_kv;
  f.n_layer = std::clamp<int64_t>(f.n_layer, 0, INT32_MAX);
  f.is_70b = is_70b_shape(f, n_head, n_head_kv);
  return f;
}

std::vector<size_t> counting_order(std::span<const gguf::TensorInfo> tensors, bool by_shard) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    const gguf::TensorInfo &x = tensors[a], &y = tensors[b];
    if (by_shard) return std::pair(x.shard, x.offset) < std::pair(y.shard, y.offset);
    const int64_t i = layer_of(x.name), j = layer_of(y.name);
    return i != j ? i < j : x.name < y.name;
  });
  return order;
}

namespace {

/// Part of a name, and why tensors that have it stay as they are.
struct Kept {
  std::string_view part, why;
};
constexpr Kept kKept[] = {{"_norm.weight", "a norm"},
                          {"ffn_gate_inp.weight", "gate of the experts"},
                          {"ffn_gate_tid2eid.weight", "gate of the experts"},
                          {"altup", "small"},
                          {"laurel", "small"},
                          {"per_layer_model_proj", "small"},
                          {"ssm_conv1d", "small convolution"},
                          {"shortconv.conv.weight", "small convolution"},
                          {"indexer.k_proj.weight", "small"},
                          {"indexer.q_proj.weight", "small"},
                          {"time_mix_first.weight", "small"},
                          {"time_mix_w0.weight", "small"},
                          {"time_mix_w1.weight", "small"},
                          {"time_mix_w2.weight", "small"},
                          {"time_mix_v0.weight", "small"},
                          {"time_mix_v1.weight", "small"},
                          {"time_mix_v2.weight", "small"},
                          {"time_mix_a0.weight", "small"},
                          {"time_mix_a1.weight", "small"},
                          {"time_mix_a2.weight", "small"},
                          {"time_mix_g1.weight", "small"},
                          {"time_mix_g2.weight", "small"},
                          {"time_mix_decay_w1.weight", "small"},
                          {"time_mix_decay_w2.weight", "small"},
                          {"time_mix_lerp_fused.weight", "small"},
                          {"attn_rel_b.weight", "position bias"},
                          {".position_embd", "position embeddings"},
                          {"sam.pos_embd", "position embeddings"},
                          {"sam.neck.", "part of an image encoder"},
                          {"sam.net_", "part of an image encoder"},
                          {".rel_pos", "position embeddings"},
                          {".patch_embd", "part of an image encoder"},
                          {".patch_merger", "part of an image encoder"},
                          {"a.rvq.codebook", "part of an audio encoder"},
                          {"mm.a.code_embd", "part of an audio encoder"}};

/// Of the architecture glm5-next, too.
constexpr std::string_view kGlm5Next[] = {"hc_",
                                          "indexer.attn_q_b",
                                          "indexer.attn_k",
                                          "indexer.proj",
                                          "indexer_compressor_gate",
                                          "indexer_compressor_ape",
                                          "ssm_f_a.weight",
                                          "ssm_f_b.weight",
                                          "ssm_g_a.weight",
                                          "ssm_g_b.weight",
                                          "ssm_beta.weight",
                                          "attn_kv_a_mqa.weight",
                                          "attn_k_b.weight",
                                          "attn_v_b.weight"};

}  // namespace

std::string kept_because(const gguf::TensorInfo& t, std::string_view arch) {
  const auto& ne = t.view.ne;
  if (ne[1] == 1 && ne[2] == 1 && ne[3] == 1) return "a vector";
  const std::string_view name = t.name;
  if (!name.ends_with("weight")) return "no weight";
  for (const Kept& k : kKept) {
    if (has(name, k.part)) return std::string(k.why);
  }
  if (name == "position_embd.weight") return "position embeddings";
  if (name == "token_types.weight") return "token types";
  const bool glm5 = arch == "glm5-next" &&
                    std::ranges::any_of(kGlm5Next, [&](auto part) { return has(name, part); });
  return glm5 ? "sensitive in glm5-next" : "";
}

Mix::Mix(const RecipeOptions& options, const ModelFacts& facts)
    : target_(options.target->name),
      output_type_(options.output_type),
      has_imatrix_(options.has_imatrix),
      facts_(facts) {}

Mix::Pick Mix::output(DType type) const {
  if (output_type_) return {*output_type_, "--output-tensor-type"};
  if (facts_.arch == "falcon") return {DType::kQ8_0, "the output matrix of falcon"};
  if (type == DType::kQ8_0) return {type, ""};
  // Rows that are too short fall back to Q8_0, which llama.cpp has as a rule of its own here.
  return {DType::kQ6_K,
          facts_.tied ? "embeddings that are the output matrix too" : "the output matrix"};
}

Mix::Pick Mix::attn_v(DType type) {
  const int64_t i = i_attn_v_++;
  Pick p{type, ""};
  const bool shared = facts_.n_gqa >= 4;
  if (is("Q2_K"))
    p = {shared ? DType::kQ4_K : DType::kQ3_K, "attention values"};
  else if (is("Q2_K_S") && shared)
    p = {DType::kQ4_K, "attention values, shared by 4 or more heads"};
  else if (is("Q3_K_M"))
    p = {i < 2 ? DType::kQ5_K : DType::kQ4_K, "attention values"};
  else if (is("Q3_K_L"))
    p = {DType::kQ5_K, "attention values"};
  else if (is("IQ4_NL") && shared)
    p = {DType::kQ5_K, "attention values, shared by 4 or more heads"};
  else if ((is("Q4_K_M") || is("Q5_K_M")) && more_bits(i, facts_.n_attn_v))
    p = {DType::kQ6_K, "attention values, more bits in this layer"};
  else if (is("Q4_K_S") && i < 4)
    p = {DType::kQ5_K, "attention values of the first layers"};
  if (facts_.is_70b && (p.type == DType::kQ3_K || p.type == DType::kQ4_K))
    p = {DType::kQ5_K, "attention values of a 70B model"};
  if (facts_.n_expert == 8) p = {DType::kQ8_0, "attention values beside 8 experts"};
  return p;
}

Mix::Pick Mix::ffn_down(const gguf::TensorInfo& t, DType type) {
  const int64_t count = i_ffn_down_++;
  const int64_t named = layer_of(t.name);
  // With experts there may be several such tensors a layer.
  const int64_t i = facts_.n_expert > 1 && named >= 0 ? named : count;
  const int64_t n = facts_.n_layer;
  const bool falcon = facts_.arch == "falcon";
  constexpr std::string_view kFirst = "ffn_down of the first layers";
  constexpr std::string_view kMore = "ffn_down, more bits in this layer";
  if (is("Q2_K")) return {DType::kQ3_K, "ffn_down"};
  if (is("Q2_K_S") && i < n / 8) return {DType::kQ4_K, kFirst};
  if (is("Q3_K_M")) {
    if (i < n / 16) return {DType::kQ5_K, kFirst};
    if (!falcon || more_bits(i, n)) return {DType::kQ4_K, "ffn_down"};
  }
  if (is("Q3_K_L")) return {falcon ? DType::kQ4_K : DType::kQ5_K, "ffn_down"};
  if (is("Q4_K_M") && falcon && i >= n / 16)
    return more_bits(i, n) ? Pick{DType::kQ5_K, kMore} : Pick{type, ""};
  if (is("Q4_K_M") && (falcon || more_bits(i, n))) return {DType::kQ6_K, kMore};
  if (is("Q5_K_M") && more_bits(i, n)) return {DType::kQ6_K, kMore};
  if (i >= n / 8) return {type, ""};
  if (is("IQ4_NL") && !has_imatrix_) return {DType::kQ5_K, kFirst};
  if (is("Q4_K_S") && !falcon) return {DType::kQ5_K, kFirst};
  if (is("Q4_0") && has_imatrix_) return {DType::kQ4_1, kFirst};
  if (is("Q5_0") && has_imatrix_) return {DType::kQ5_1, kFirst};
  return {type, ""};
}

Mix::Pick Mix::attn_output(DType type) const {
  constexpr std::string_view kWhy = "attention output";
  if (facts_.arch == "falcon") return {is("Q3_K_L") ? DType::kQ4_K : type, kWhy};
  if (facts_.n_expert == 8) {
    constexpr std::string_view kTargets[] = {"Q2_K",   "Q3_K_S", "Q3_K_M",
                                             "IQ4_NL", "Q4_K_S", "Q4_K_M"};
    if (std::ranges::find(kTargets, target_) == std::end(kTargets)) return {type, ""};
    return {DType::kQ5_K, "attention output beside 8 experts"};
  }
  if (is("Q2_K")) return {DType::kQ3_K, kWhy};
  if (is("Q3_K_M")) return {DType::kQ4_K, kWhy};
  if (is("Q3_K_L")) return {DType::kQ5_K, kWhy};
  return {type, ""};
}

void Mix::refine(const gguf::TensorInfo& t, Choice* choice) {
  const Part part = part_of(t.name);
  Pick p{choice->type, ""};
  const bool floats = quant_type(p.type).block_len == 1;
  const bool glm5 =
      facts_.arch == "glm5-next" &&
      (has(t.name, "attn_q_a") || has(t.name, "attn_q_b") || has(t.name, "nextn.eh_proj"));
  if (glm5 && !floats)
    p = {DType::kQ8_0, "sensitive in glm5-next"};
  else if (part == Part::kOutput || (facts_.tied && part == Part::kEmbedding))
    p = output(p.type);
  else if (counts_as_attn_v(part))
    p = attn_v(p.type);
  else if (part == Part::kAttnK && facts_.n_expert == 8)
    p = {DType::kQ8_0, "attention keys beside 8 experts"};
  else if (part == Part::kFfnDown)
    p = ffn_down(t, p.type);
  else if (part == Part::kAttnOutput)
    p = attn_output(p.type);
  choice->type = p.type;
  choice->why = p.why;
  if (p.why.starts_with("--")) choice->reason = Reason::kFlag;
}

}  // namespace infer::quantize
