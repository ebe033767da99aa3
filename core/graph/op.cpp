#include "core/graph/op.h"

namespace infer::graph {

std::string_view name_of(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbed:
      return "embed";
    case OpKind::kNorm:
      return "norm";
    case OpKind::kLinearGroup:
      return "linear_group";
    case OpKind::kQkNormRopeStore:
      return "qk_norm_rope_store";
    case OpKind::kAttention:
      return "attention";
    case OpKind::kGatherRows:
      return "gather_rows";
    case OpKind::kAdd:
      return "add";
    case OpKind::kGlu:
      return "glu";
    case OpKind::kHeadNorm:
      return "head_norm";
    case OpKind::kRope:
      return "rope";
    case OpKind::kKvStore:
      return "kv_store";
    case OpKind::kMoeRoute:
      return "moe_route";
    case OpKind::kMoeGlu:
      return "moe_glu";
    case OpKind::kMoeDown:
      return "moe_down";
    case OpKind::kGateAdd:
      return "gate_add";
  }
  return "?";
}

}  // namespace infer::graph
