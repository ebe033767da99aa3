#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/tensor_view.h"
#include "core/graph/op.h"

/// A model as data: what is computed, in which order, with which weights. Built once by an
/// architecture file.
namespace infer::graph {

/// Whose rows a value has: one a token of the step, or one a token whose logits are wanted.
enum class Rows : uint8_t { kTok, kLogit };

/// An activation [n_rows, n_cols], f32.
struct Value {
  std::string name;  ///< "blk.3.attn_norm"
  Rows rows = Rows::kTok;
  int64_t n_cols = 0;
};

/// A tensor of the model file, or some rows of one. Matrices are [n, k]: view.ne[0] = k, view.ne[1]
/// = n; experts are view.ne[2].
struct Weight {
  std::string name;  ///< "blk.0.attn_qkv.weight[0, 576)" for rows of a fused tensor
  TensorView view;
  std::string tensor;     ///< the file's name
  int64_t row_begin = 0;  ///< the first row of that tensor
  int64_t k() const { return view.ne[0]; }
  int64_t n() const { return view.ne[1]; }
  int64_t n_expert() const { return view.ne[2]; }
};

/// Rotary embedding as it is applied: angle of pair i at position p is p * inv_freq[i]; cos and sin
/// are times mscale.
struct Rope {
  RopeKind kind = RopeKind::kNorm;
  int64_t rope_dim = 0;
  std::vector<double> inv_freq;  ///< [rope_dim / 2]
  double mscale = 1.0;
  bool operator==(const Rope&) const = default;
};

enum class CacheKind : uint8_t { kFull, kWindow, kState };

/// Layers that share block tables, because they need the same tokens of the past.
struct CacheGroup {
  CacheKind kind = CacheKind::kFull;
  int64_t window = 0;             ///< tokens seen, the row's own included; 0 for kFull
  std::vector<int> cache_layers;  ///< indices into Graph::cache_layers
};

/// K and V of one layer.
struct CacheLayer {
  int il = 0;
  int group = 0;
  int64_t n_kv_head = 0, head_dim = 0, head_dim_v = 0;
};

enum class HalfKind : uint8_t { kInput, kMixer, kFfn, kOutput };

/// The unit of placement: ops [op_begin, op_end) turn one residual stream into the next.
struct HalfLayer {
  HalfKind kind = HalfKind::kMixer;
  int il = -1;
  int op_begin = 0, op_end = 0;
  ValueId in = kNoValue;   ///< residual stream; kNoValue for kInput
  ValueId out = kNoValue;  ///< residual stream, or the logits of kOutput
};

/// What one adapter adds to one weight: scale * B (A x). Source: LoRA, arXiv:2106.09685.
struct LowRank {
  int adapter = 0;  ///< < Graph::n_adapter
  TensorView a, b;  ///< [rank, k], and [n, rank] for the weight's own rows
  float scale = 1.0f;
  std::string where;  ///< "story.gguf: tensor 'blk.0.attn_q.weight": errors add ".lora_a'"
  int64_t rank() const { return a.ne[1]; }
};

struct Graph {
  std::string arch;
  int64_t n_embd = 0, n_vocab = 0;
  std::vector<Value> values;
  std::vector<Weight> weights;
  std::vector<Op> ops;
  std::vector<HalfLayer> halves;
  std::vector<Rope> ropes;
  std::vector<CacheLayer> cache_layers;
  std::vector<CacheGroup> cache_groups;
  int n_adapter = 0;
  std::vector<std::vector<LowRank>> item_adapters;  ///< LinearItem::adapter; by adapter, ascending
};

}  // namespace infer::graph
