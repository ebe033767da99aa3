#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// The ops of design.md section 4 as records: kind, inputs, outputs, attributes. Those marked
/// "unfused" exist only for
/// `--unfused`, the reference composition that fused ops are checked against.
namespace infer::graph {

using ValueId = int32_t;
using WeightId = int32_t;
inline constexpr ValueId kNoValue = -1;
inline constexpr WeightId kNoWeight = -1;

enum class OpKind : uint8_t {
  kEmbed,            ///< tokens -> out
  kNorm,             ///< in {x [, r]} -> out
  kLinearGroup,      ///< in {x [, residual]} -> one output an item, or one for a GLU pair
  kQkNormRopeStore,  ///< in {q, k, v} -> out {q}; K and V go to the pool
  kAttention,        ///< in {q} -> out; reads the pool
  kGatherRows,       ///< in {x [tok]} -> out [logit]
  kAdd,              ///< unfused: in {a, b} -> out
  kGlu,              ///< unfused: in {gate [, up]} -> out, act(gate) [* up]
  kHeadNorm,         ///< unfused: in {x} -> out, RMS norm of each head
  kRope,             ///< unfused: in {x} -> out
  kKvStore,          ///< unfused: in {k, v, q}, no output
  kMoeRoute,         ///< in {router logits} -> out {ids then weights of the experts used}
  kMoeGlu,           ///< in {x, route} -> out, each used expert's act(gate x) * up x
  kMoeDown,          ///< in {h, route, residual} -> out = residual + sum of weight * down(h)
  kGateAdd,          ///< in {y, gate, residual} -> out = residual + sigmoid(gate) * y
};
std::string_view name_of(OpKind kind);

enum class NormKind : uint8_t { kRms, kLayer };
enum class RopeKind : uint8_t {
  kNorm /* pairs (2i, 2i+1) */,
  kNeox /* pairs (i, i + rope_dim / 2) */
};
enum class GluKind : uint8_t { kSilu, kGeluTanh, kGeluErf };
enum class Epilogue : uint8_t { kNone, kResidualAdd, kGlu, kAct };

struct EmbedAttrs {
  WeightId table = kNoWeight;      ///< [n_vocab, n_embd]
  WeightId positions = kNoWeight;  ///< learned positions [n_ctx, n_embd], added; kNoWeight: none
  float scale = 1.0f;
};

struct NormAttrs {
  NormKind kind = NormKind::kRms;
  WeightId weight = kNoWeight;  ///< [n_cols]
  WeightId bias = kNoWeight;
  float eps = 0.0f;
  bool residual_after = false;  ///< out = r + norm(x) with r = in[1]
};

struct LinearItem {
  WeightId weight = kNoWeight;  ///< [n, k]
  WeightId bias = kNoWeight;    ///< [n]
  int adapter = -1;  ///< index into Graph::item_adapters; -1: no adapter adds to this weight
};

/// out_i = scale * (x W_i^T + bias_i + what the row's adapters add), then softcap. kResidualAdd:
/// out = in[1] + that. kGlu: items {gate, up}, out = act(gate) * up. kAct: out = act(that).
struct LinearAttrs {
  std::vector<LinearItem> items;
  Epilogue epilogue = Epilogue::kNone;
  GluKind glu = GluKind::kSilu;
  float scale = 1.0f;
  float softcap = 0.0f;  ///< 0: none
};

struct QkvAttrs {
  int cache_layer = 0;  ///< index into Graph::cache_layers
  int64_t n_head = 0;
  int rope = -1;                                    ///< index into Graph::ropes; -1: none
  WeightId q_norm = kNoWeight, k_norm = kNoWeight;  ///< [head_dim], RMS
  float eps = 0.0f;
};

struct AttentionAttrs {
  int cache_layer = 0;
  int64_t n_head = 0;
  float scale = 1.0f;
  float softcap = 0.0f;
  int64_t window = 0;               ///< 0: full
  std::vector<float> alibi_slopes;  ///< [n_head]; empty: none
};

struct GluAttrs {
  GluKind kind = GluKind::kSilu;
};

struct HeadNormAttrs {
  int64_t n_head = 0, head_dim = 0;
  WeightId weight = kNoWeight;
  float eps = 0.0f;
};

struct RopeAttrs {
  int rope = 0;
  int64_t n_head = 0, head_dim = 0;
};

struct KvStoreAttrs {
  int cache_layer = 0;
};

/// Softmax over all experts, then the n_used likeliest (ties: lower id). out [n_tok, 2 * n_used]:
/// ids as numbers, weights.
struct MoeRouteAttrs {
  int64_t n_expert = 0, n_used = 0;
  bool normalise = true;  ///< the weights of the used experts sum to 1
};

/// Expert weights are [n, k, n_expert] in one tensor.
struct MoeLinearAttrs {
  WeightId gate = kNoWeight, up = kNoWeight;  ///< kMoeGlu
  WeightId down = kNoWeight;                  ///< kMoeDown
  GluKind glu = GluKind::kSilu;
  int64_t n_expert = 0, n_used = 0;
};

struct NoAttrs {};

using OpAttrs =
    std::variant<NoAttrs, EmbedAttrs, NormAttrs, LinearAttrs, QkvAttrs, AttentionAttrs, GluAttrs,
                 HeadNormAttrs, RopeAttrs, KvStoreAttrs, MoeRouteAttrs, MoeLinearAttrs>;

struct Op {
  OpKind kind = OpKind::kAdd;
  int il = -1;       ///< layer, -1 outside of layers
  std::string name;  ///< "blk.3.attn_q|k|v", for dumps and errors
  std::vector<ValueId> in, out;
  OpAttrs attrs;

  template <class T>
  const T& as() const {
    return std::get<T>(attrs);
  }
};

/// Calls fn(WeightId) for each weight of the op, in a fixed order.
template <class Fn>
void for_each_weight(const Op& op, Fn&& fn) {
  const auto visit = [&](WeightId id) {
    if (id != kNoWeight) fn(id);
  };
  if (const auto* embed = std::get_if<EmbedAttrs>(&op.attrs)) {
    visit(embed->table);
    visit(embed->positions);
  } else if (const auto* norm = std::get_if<NormAttrs>(&op.attrs)) {
    visit(norm->weight);
    visit(norm->bias);
  } else if (const auto* linear = std::get_if<LinearAttrs>(&op.attrs)) {
    for (const LinearItem& item : linear->items) {
      visit(item.weight);
      visit(item.bias);
    }
  } else if (const auto* qkv = std::get_if<QkvAttrs>(&op.attrs)) {
    visit(qkv->q_norm);
    visit(qkv->k_norm);
  } else if (const auto* head_norm = std::get_if<HeadNormAttrs>(&op.attrs)) {
    visit(head_norm->weight);
  } else if (const auto* moe = std::get_if<MoeLinearAttrs>(&op.attrs)) {
    visit(moe->gate);
    visit(moe->up);
    visit(moe->down);
  }
}

}  // namespace infer::graph
