#pragma once

#include <string_view>

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/model/hparams_reader.h"

namespace infer::model {

/// Divisors of the frequencies of a long-context variant (f32 [rope_dim / 2]): for contexts up to
/// the original one, and beyond it.
inline constexpr std::string_view kShortFactors = "rope_factors_short.weight";
inline constexpr std::string_view kLongFactors = "rope_factors_long.weight";

/// The rotary embedding that the keys rope.dimension_count, rope.freq_base and rope.scaling.*
/// (none, linear, yarn), and the tensor rope_freqs.weight (llama3), describe. Errors: kUnsupported
/// for another scaling type, named. Source: RoFormer arXiv:2104.09864; YaRN arXiv:2309.00071
/// section 3; Llama 3's factors come in the tensor.
Result<graph::Rope> read_rope(const HparamsReader& r, graph::RopeKind kind, int64_t head_dim,
                              double default_base);

/// hp->ropes = {that of read_rope}, or, in a file with the two tensors above, hp->ropes,
/// hp->long_ropes and hp->n_ctx_orig: both divided, both scaled by rope.scaling.attn_factor (which
/// converters compute: sqrt(1 + ln(n_ctx_train / n_ctx_orig) / ln(n_ctx_orig))). Needs hp->head_dim
/// and hp->n_ctx_train. Errors: kUnsupported for another kind of scaling besides; kCorrupt for a
/// missing or wrong tensor. Source: LongRoPE, arXiv:2402.13753; the choice by the length of the
/// context as in llama.cpp.
Result<void> read_ropes(const HparamsReader& r, graph::RopeKind kind, double default_base,
                        Hparams* hp);

/// Plain rotary embedding, no scaling. Needs rope_dim even.
graph::Rope plain_rope(graph::RopeKind kind, int64_t rope_dim, double base);

}  // namespace infer::model
