#include "core/model/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "core/base/error.h"

namespace infer::model {
namespace {

constexpr double kMaxFactor = 1e6;
constexpr std::string_view kFactors = "rope_freqs.weight";  // Llama 3.1 and later

/// Dimension (in pairs) whose wave turns `n_rot` times over the original context.
double correction_pair(double n_rot, double n_ctx_orig, double base, int64_t rope_dim) {
  return static_cast<double>(rope_dim) * std::log(n_ctx_orig / (n_rot * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(base));
}

Result<void> apply_yarn(const HparamsReader& r, double base, double factor, graph::Rope* rope) {
  INFER_ASSIGN(const int64_t n_ctx_train, r.integer("context_length", 1, int64_t{1} << 30));
  INFER_ASSIGN(const int64_t n_ctx_orig,
               r.integer("rope.scaling.original_context_length", 1, int64_t{1} << 30, n_ctx_train));
  INFER_ASSIGN(const float beta_fast, r.number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0));
  INFER_ASSIGN(const float beta_slow, r.number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0));
  INFER_ASSIGN(const float ext_factor, r.number("rope.scaling.yarn_ext_factor", 0.0, 1.0, 1.0));
  INFER_ASSIGN(const float old_attn_factor,
               r.number("rope.scaling.attn_factor", 0.0, kMaxFactor, 1.0));
  INFER_ASSIGN(const float attn_factor,
               r.number("rope.scaling.yarn_attn_factor", 0.0, kMaxFactor, old_attn_factor));
  const double last = static_cast<double>(rope->rope_dim) - 1.0;
  const auto orig = static_cast<double>(n_ctx_orig);
  const double low =
      std::max(0.0, std::floor(correction_pair(beta_fast, orig, base, rope->rope_dim)));
  const double high =
      std::min(last, std::ceil(correction_pair(beta_slow, orig, base, rope->rope_dim)));
  for (size_t i = 0; i < rope->inv_freq.size(); ++i) {
    const double ramp =
        std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
    const double extrapolate = (1.0 - ramp) * ext_factor;  // share of the unscaled frequency
    rope->inv_freq[i] *= extrapolate + (1.0 - extrapolate) / factor;
  }
  rope->mscale = attn_factor;
  if (ext_factor != 0.0f && factor > 1.0) rope->mscale *= 1.0 + 0.1 * std::log(factor);
  return {};
}

/// Divides each frequency by the tensor's factor.
Result<void> apply_factors(const HparamsReader& r, std::string_view name, graph::Rope* rope) {
  const gguf::TensorInfo* t = r.file().find_tensor(name);
  const auto n = static_cast<int64_t>(rope->inv_freq.size());
  if (t == nullptr) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' [{}] is missing", r.file().path(), name,
                      n);
  }
  if (t->view.type != DType::kF32 || t->view.n_elem() != n) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' has {} elements, expected {} of f32",
                      r.file().path(), name, t->view.n_elem(), n);
  }
  for (size_t i = 0; i < rope->inv_freq.size(); ++i) {
    float factor = 0.0f;
    std::memcpy(&factor, t->view.data + i * sizeof(float), sizeof(float));
    if (!(factor > 0.0f && factor < kMaxFactor)) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}'[{}] = {}", r.file().path(), name, i,
                        factor);
    }
    rope->inv_freq[i] /= factor;
  }
  return {};
}

/// rope.dimension_count and rope.freq_base.
Result<graph::Rope> read_plain(const HparamsReader& r, graph::RopeKind kind, int64_t head_dim,
                               double default_base) {
  INFER_ASSIGN(const int64_t rope_dim, r.integer("rope.dimension_count", 2, head_dim, head_dim));
  if (rope_dim % 2 != 0) return r.contradiction("rope.dimension_count", rope_dim, "must be even");
  INFER_ASSIGN(const float base, r.number("rope.freq_base", 1.0, 1e12, default_base));
  return plain_rope(kind, rope_dim, base);
}

}  // namespace

graph::Rope plain_rope(graph::RopeKind kind, int64_t rope_dim, double base) {
  graph::Rope rope;
  rope.kind = kind;
  rope.rope_dim = rope_dim;
  for (int64_t i = 0; i < rope_dim / 2; ++i) {
    rope.inv_freq.push_back(
        std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(rope_dim)));
  }
  return rope;
}

Result<graph::Rope> read_rope(const HparamsReader& r, graph::RopeKind kind, int64_t head_dim,
                              double default_base) {
  INFER_ASSIGN(graph::Rope rope, read_plain(r, kind, head_dim, default_base));
  if (r.file().find_tensor(kFactors) != nullptr) {
    INFER_TRY(apply_factors(r, kFactors, &rope));
  }

  INFER_ASSIGN(const float legacy, r.number("rope.scale_linear", 1e-3, kMaxFactor, 1.0));
  INFER_ASSIGN(const std::string type,
               r.text("rope.scaling.type", legacy == 1.0f ? "none" : "linear"));
  INFER_ASSIGN(const float factor, r.number("rope.scaling.factor", 0.0, kMaxFactor, legacy));
  if (type == "none") return rope;
  if (type != "linear" && type != "yarn") {
    return r.unsupported(
        "rope.scaling.type", type,
        "known are none, linear, yarn, llama3 by the tensor rope_freqs.weight, and for some "
        "architectures longrope");
  }
  if (factor == 0.0f) return rope;  // written by converters that mean "no scaling"
  if (type == "yarn") {
    INFER_ASSIGN(const float base, r.number("rope.freq_base", 1.0, 1e12, default_base));
    INFER_TRY(apply_yarn(r, base, factor, &rope));
  } else {
    for (double& f : rope.inv_freq) f /= factor;
  }
  return rope;
}

Result<void> read_ropes(const HparamsReader& r, graph::RopeKind kind, double default_base,
                        Hparams* hp) {
  INFER_ASSIGN(const std::string type, r.text("rope.scaling.type", "none"));
  const bool has_factors = r.file().find_tensor(kShortFactors) != nullptr ||
                           r.file().find_tensor(kLongFactors) != nullptr;
  if (type != "longrope" && !has_factors) {
    INFER_ASSIGN(graph::Rope rope, read_rope(r, kind, hp->head_dim, default_base));
    hp->ropes = {std::move(rope)};
    return {};
  }
  if (!has_factors) {
    return r.unsupported(
        "rope.scaling.type", type,
        "without the tensors rope_factors_short.weight and rope_factors_long.weight");
  }
  // Converters of Phi-3 write no type.
  if (type != "longrope" && type != "none")
    return r.unsupported("rope.scaling.type", type, "beside the tensors rope_factors_*");
  INFER_ASSIGN(const float scale, r.number("rope.scaling.factor", 0.0, kMaxFactor, 1.0));
  if (scale != 0.0f && scale != 1.0f) {
    return r.unsupported("rope.scaling.factor", fmt::format("{}", scale),
                         "beside the tensors rope_factors_*");
  }
  if (r.file().find_tensor(kFactors) != nullptr) {
    return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' beside rope_factors_*",
                      r.file().path(), kFactors);
  }
  INFER_ASSIGN(hp->n_ctx_orig, r.integer("rope.scaling.original_context_length", 1,
                                         int64_t{1} << 30, hp->n_ctx_train));
  INFER_ASSIGN(const float mscale, r.number("rope.scaling.attn_factor", 0.0, kMaxFactor, 1.0));
  INFER_ASSIGN(graph::Rope rope, read_plain(r, kind, hp->head_dim, default_base));
  rope.mscale = mscale;
  graph::Rope long_rope = rope;
  INFER_TRY(apply_factors(r, kShortFactors, &rope));
  INFER_TRY(apply_factors(r, kLongFactors, &long_rope));
  hp->ropes = {std::move(rope)};
  hp->long_ropes = {std::move(long_rope)};
  return {};
}

}  // namespace infer::model
