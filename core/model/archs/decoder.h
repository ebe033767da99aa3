#pragma once

#include <string>
#include <vector>

#include "core/graph/builder.h"
#include "core/model/arch.h"
#include "core/model/hparams.h"

/// What decoder-only architectures share: names and shapes of the tensors of a layer, and specs
/// filled from them. An architecture file says which of these it has and puts the blocks together.
namespace infer::model::decoder {

inline std::string blk(int il) { return "blk." + std::to_string(il) + "."; }

/// Whether a tensor must be there, may be, or must not.
enum class Has : uint8_t { kNo, kMaybe, kYes };

struct Layout {
  graph::NormKind norm = graph::NormKind::kRms;
  Has norm_bias = Has::kNo;
  bool fused_qkv = false;  ///< attn_qkv instead of attn_q, attn_k, attn_v
  Has qkv_bias = Has::kNo;
  Has proj_bias = Has::kNo;  ///< of attn_output, ffn_up, ffn_down, ffn_gate
  bool qk_norm = false;
  bool post_norms = false;     ///< post_attention_norm, post_ffw_norm
  bool gated = true;           ///< ffn_gate beside ffn_up
  bool fused_gate_up = false;  ///< ffn_up holds gate, then up
};

/// Embedding, output norm and output matrix, then every layer. With hp.n_expert > 0 the layers have
/// experts.
std::vector<TensorSpec> tensors(const Hparams& hp, const Layout& layout);

graph::Norm norm(graph::Builder& g, const Hparams& hp, const Layout& layout,
                 const std::string& prefix);
graph::AttnSpec attn(graph::Builder& g, const Hparams& hp, const Layout& layout, int il);
graph::MlpSpec mlp(graph::Builder& g, const Hparams& hp, const Layout& layout, int il,
                   graph::GluKind act);
graph::MoeSpec moe(graph::Builder& g, const Hparams& hp, const Layout& layout, int il);
/// "output.weight", or the embedding where the file has none.
void output(graph::Builder& g, const Hparams& hp, const Layout& layout, graph::ValueId x);

/// Embedding, layers of attention and MLP (or experts) one after the other, output.
void build(graph::Builder& g, const Hparams& hp, const Layout& layout, graph::GluKind act);

}  // namespace infer::model::decoder
