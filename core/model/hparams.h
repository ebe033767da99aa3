#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace infer::model {

/// What may differ from layer to layer.
struct LayerHparams {
  int64_t n_head = 0, n_kv_head = 0;
  int64_t n_ff = 0;
  int64_t window = 0;  ///< 0: full attention
  int rope = 0;        ///< index into Hparams::ropes
};

/// Hyper-parameters after all checks: every field is in range, so that graph building cannot fail
/// on them.
struct Hparams {
  std::string arch, name;
  int64_t n_layer = 0, n_embd = 0, n_vocab = 0;
  int64_t n_ctx_train = 0;
  int64_t head_dim = 0, head_dim_v = 0;
  float norm_eps = 0.0f;
  float embed_scale = 1.0f;
  float attn_scale = 0.0f;    ///< of q.k
  float attn_softcap = 0.0f;  ///< 0: none
  float logit_softcap = 0.0f;
  float logit_scale = 1.0f;
  float alibi_max_bias = 0.0f;  ///< 0: none
  int64_t n_pos = 0;  ///< rows of a learned position table: more context is impossible; 0: no table
  bool embed_norm = false;  ///< token_embd_norm after the embedding
  bool parallel_residual = false;
  int64_t n_expert = 0, n_expert_used = 0;  ///< 0: no mixture of experts
  int64_t n_ff_exp = 0, n_ff_shexp = 0;     ///< width of an expert, of the shared expert (0: none)
  bool expert_weights_norm = true;          ///< the weights of the used experts sum to 1
  std::vector<LayerHparams> layers;         ///< [n_layer]
  std::vector<graph::Rope> ropes;
  /// In place of `ropes` where a sequence may have more than n_ctx_orig tokens; empty: no such
  /// thing.
  std::vector<graph::Rope> long_ropes;
  int64_t n_ctx_orig = 0;  ///< context of the first training; set with long_ropes

  /// Whether an engine of `n_ctx` tokens a sequence takes long_ropes.
  bool takes_long_ropes(int64_t n_ctx) const { return !long_ropes.empty() && n_ctx > n_ctx_orig; }

  const LayerHparams& at(int il) const { return layers[static_cast<size_t>(il)]; }
  int64_t n_head(int il) const { return at(il).n_head; }
  int64_t n_kv_head(int il) const { return at(il).n_kv_head; }
  int64_t n_ff(int il) const { return at(il).n_ff; }
  int64_t window(int il) const { return at(il).window; }
  int rope(int il) const { return at(il).rope; }
};

}  // namespace infer::model
