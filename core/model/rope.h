#pragma once

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/model/hparams_reader.h"

namespace infer::model {

/// The rotary embedding that the keys rope.dimension_count, rope.freq_base and rope.scaling.*
/// (none, linear, yarn), and the tensor rope_freqs.weight (llama3), describe. Errors: kUnsupported
/// for another scaling type, named. Source: RoFormer arXiv:2104.09864; YaRN arXiv:2309.00071
/// section 3; Llama 3's factors come in the tensor.
Result<graph::Rope> read_rope(const HparamsReader& r, graph::RopeKind kind, int64_t head_dim,
                              double default_base);

/// Plain rotary embedding, no scaling. Needs rope_dim even.
graph::Rope plain_rope(graph::RopeKind kind, int64_t rope_dim, double base);

}  // namespace infer::model
