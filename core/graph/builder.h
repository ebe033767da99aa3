#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/graph/graph.h"

namespace infer::graph {

struct Norm {
  NormKind kind = NormKind::kRms;
  WeightId weight = kNoWeight, bias = kNoWeight;
  float eps = 0.0f;
};

struct Linear {
  WeightId weight = kNoWeight, bias = kNoWeight;
};

/// Self-attention of one layer: x + post_norm(out(attention(q, k, v of norm(x)))).
struct AttnSpec {
  Norm norm;
  Linear q, k, v, out;
  WeightId q_norm = kNoWeight, k_norm = kNoWeight;  ///< RMS per head
  Norm post_norm;                                   ///< weight kNoWeight: none
  int64_t n_head = 0, n_kv_head = 0, head_dim = 0, head_dim_v = 0;
  int rope = -1;
  int64_t window = 0;
  float scale = 1.0f, softcap = 0.0f;
  std::vector<float> alibi_slopes;
};

/// x + post_norm(down(act(gate(norm(x))) * up(norm(x)))); without a gate down(act(up(norm(x)))).
struct MlpSpec {
  Norm norm;
  Linear gate, up, down;
  GluKind act = GluKind::kSilu;
  Norm post_norm;
};

/// x + sum over the used experts of weight * down(act(gate(norm(x))) * up(norm(x))), plus a shared
/// expert if there is one.
struct MoeSpec {
  Norm norm;
  WeightId router = kNoWeight;                                  ///< [n_expert, n_embd]
  WeightId gate = kNoWeight, up = kNoWeight, down = kNoWeight;  ///< [n_expert] matrices each
  int64_t n_expert = 0, n_used = 0;
  bool normalise = true;
  GluKind act = GluKind::kSilu;
  WeightId shared_router = kNoWeight;  ///< [1, n_embd]; kNoWeight: no shared expert
  Linear shared_gate, shared_up, shared_down;
};

struct OutputSpec {
  Norm norm;
  Linear output;
  float scale = 1.0f, softcap = 0.0f;
};

/// Collects a Graph. Architectures call the blocks; the blocks emit fused ops, or with `unfused`
/// the composition they are checked against.
class Builder {
 public:
  Builder(Graph* graph, std::unordered_map<std::string, TensorView> tensors, bool unfused);

  /// A tensor that the loader checked to be there; INFER_CHECK otherwise.
  WeightId weight(const std::string& name);
  /// kNoWeight when the file has no such tensor.
  WeightId optional(const std::string& name);
  Linear linear(const std::string& prefix);  ///< prefix + ".weight" and, if present, ".bias"
  /// Rows [begin, begin + n) of prefix + ".weight" and, if present, of ".bias".
  Linear linear_rows(const std::string& prefix, int64_t begin, int64_t n);

  ValueId input_block(const EmbedAttrs& embed, const Norm& norm = {});  // -> [n_tok, n_embd]
  ValueId attn_block(ValueId x, int il, const AttnSpec& spec);          // -> [n_tok, n_embd]
  ValueId mlp_block(ValueId x, int il, const MlpSpec& spec);            // -> [n_tok, n_embd]
  ValueId moe_block(ValueId x, int il, const MoeSpec& spec);            // -> [n_tok, n_embd]
  /// x + attention(x) + mlp(x): both read x, and the layer is one half.
  ValueId parallel_block(ValueId x, int il, const AttnSpec& attn,
                         const MlpSpec& mlp);            // -> [n_tok, n_embd]
  void output_block(ValueId x, const OutputSpec& spec);  // -> [n_logit_rows, n_vocab]

 private:
  ValueId value(std::string name, int64_t n_cols, Rows rows = Rows::kTok);
  Op& op(OpKind kind, int il, std::string name, std::vector<ValueId> in, std::vector<ValueId> out,
         OpAttrs attrs);
  WeightId rows_of_tensor(const std::string& name, int64_t begin, int64_t n);
  ValueId emit_attn(ValueId x, int il, const AttnSpec& spec);
  /// residual + mlp(norm(x)).
  ValueId emit_mlp(ValueId x, ValueId residual, int il, const MlpSpec& spec);
  ValueId glu_values(ValueId y, int il, const std::string& name, const Linear& gate,
                     const Linear& up, GluKind act);
  ValueId norm(ValueId x, int il, const std::string& name, const Norm& spec);
  ValueId single_linear(ValueId x, int il, const std::string& name, const Linear& linear,
                        float scale, float softcap);
  ValueId add_residual(ValueId residual, ValueId x, int il, const std::string& name,
                       const Norm& post_norm);
  /// out = residual + post_norm(x W^T), by whichever ops the mode and the norm ask for.
  ValueId project_back(ValueId residual, ValueId x, int il, const std::string& name,
                       const Linear& linear, const Norm& post_norm);
  struct Qkv {
    ValueId q, k, v;
  };
  Qkv project_qkv(ValueId y, int il, const std::string& blk, const AttnSpec& spec);
  ValueId store_unfused(const Qkv& qkv, int il, const std::string& blk, const AttnSpec& spec,
                        int cache_layer);
  int add_cache_layer(int il, const AttnSpec& spec);
  int64_t rows_of(ValueId v) const;
  int begin_half() const { return static_cast<int>(g_->ops.size()); }
  void end_half(HalfKind kind, int il, int op_begin, ValueId in, ValueId out);

  Graph* g_;
  std::unordered_map<std::string, TensorView> tensors_;
  std::unordered_map<std::string, WeightId> ids_;
  bool unfused_;
};

}  // namespace infer::graph
