#include "backends/cuda/supports.h"

#include <algorithm>
#include <limits>

#include "backends/cuda/weights.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/weight_layout.h"

namespace infer::cuda {
namespace {

using graph::Graph;
using graph::Op;
using graph::WeightId;

constexpr int64_t kMaxInt = std::numeric_limits<int>::max();

bool takes_matrix(const Graph& g, WeightId id) {
  const graph::Weight& w = g.weights[static_cast<size_t>(id)];
  const WeightLayout layout = weight_layout(w.view.type);
  return layout.n_plane > 0 && w.k() % layout.block_len == 0 && w.n() <= kMaxInt &&
         w.k() <= kMaxInt && w.n_expert() <= kMaxInt;
}

bool takes_vector(const Graph& g, WeightId id) {
  return id == graph::kNoWeight || decodes(g.weights[static_cast<size_t>(id)].view.type);
}

bool takes_linear(const Graph& g, const Op& op, const runtime::CompileOptions& options) {
  const auto& attrs = op.as<graph::LinearAttrs>();
  if (options.tap != nullptr || static_cast<int>(attrs.items.size()) > kMaxItems) return false;
  return std::all_of(attrs.items.begin(), attrs.items.end(), [&](const graph::LinearItem& item) {
    return item.adapter < 0 && takes_matrix(g, item.weight) && takes_vector(g, item.bias);
  });
}

bool takes_experts(const Graph& g, const Op& op, const runtime::CompileOptions& options) {
  const auto& attrs = op.as<graph::MoeLinearAttrs>();
  bool ok = options.tap == nullptr;
  for_each_weight(op, [&](WeightId id) { ok = ok && takes_matrix(g, id); });
  // Gate and up are computed at once.
  const auto type = [&](WeightId id) { return g.weights[static_cast<size_t>(id)].view.type; };
  return ok && (attrs.gate == graph::kNoWeight || type(attrs.gate) == type(attrs.up));
}

bool takes_cache(const Graph& g, int cache_layer, int64_t n_head,
                 const runtime::CompileOptions& options, const Device& device) {
  const graph::CacheLayer& layer = g.cache_layers[static_cast<size_t>(cache_layer)];
  const bool bf16 = options.type_k == DType::kBF16 || options.type_v == DType::kBF16;
  return layer.head_dim == layer.head_dim_v && n_head % layer.n_kv_head == 0 &&
         (!bf16 || device.has_bf16()) &&
         has_attention(static_cast<int>(layer.head_dim), options.type_k, options.type_v);
}

}  // namespace

bool supports_op(const Graph& g, const Op& op, const runtime::CompileOptions& options,
                 const Device& device) {
  switch (op.kind) {
    case graph::OpKind::kEmbed: {
      const auto& attrs = op.as<graph::EmbedAttrs>();
      return takes_matrix(g, attrs.table) && takes_vector(g, attrs.positions);
    }
    case graph::OpKind::kNorm: {
      const auto& attrs = op.as<graph::NormAttrs>();
      return takes_vector(g, attrs.weight) && takes_vector(g, attrs.bias);
    }
    case graph::OpKind::kLinearGroup:
      return takes_linear(g, op, options);
    case graph::OpKind::kQkNormRopeStore: {
      const auto& attrs = op.as<graph::QkvAttrs>();
      return takes_cache(g, attrs.cache_layer, attrs.n_head, options, device) &&
             takes_vector(g, attrs.q_norm) && takes_vector(g, attrs.k_norm);
    }
    case graph::OpKind::kAttention: {
      const auto& attrs = op.as<graph::AttentionAttrs>();
      return takes_cache(g, attrs.cache_layer, attrs.n_head, options, device) &&
             attrs.window <= kMaxInt;
    }
    case graph::OpKind::kMoeGlu:
    case graph::OpKind::kMoeDown:
      return takes_experts(g, op, options);
    case graph::OpKind::kGatherRows:
    case graph::OpKind::kMoeRoute:
    case graph::OpKind::kGateAdd:
      return true;
    case graph::OpKind::kAdd:
    case graph::OpKind::kGlu:
    case graph::OpKind::kHeadNorm:
    case graph::OpKind::kRope:
    case graph::OpKind::kKvStore:
      return false;  // of the unfused composition, which only the CPU has
  }
  return false;
}

}  // namespace infer::cuda
