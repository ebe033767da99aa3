#include "core/text/samplers/stage.h"

namespace infer::text {

Stage::~Stage() = default;

void Stage::accept(int32_t) {}

size_t Stage::n_edit() const { return 0; }

size_t window_size(int32_t n, int64_t max_tokens) {
  const int64_t all = std::max<int64_t>(max_tokens, 0);
  return static_cast<size_t>(n < 0 ? all : std::min<int64_t>(n, all));
}

std::unique_ptr<Stage> make_stage(SamplerKind kind, const SamplingParams& params,
                                  const StageContext& context, uint32_t stream) {
  switch (kind) {
    case SamplerKind::kPenalties:
      return make_penalties(params, context);
    case SamplerKind::kDry:
      return make_dry(params, context);
    case SamplerKind::kXtc:
      return make_xtc(params, stream);
    case SamplerKind::kTemperature:
      return make_temperature(params);
    case SamplerKind::kTopNSigma:
    case SamplerKind::kTopK:
    case SamplerKind::kTypicalP:
    case SamplerKind::kTopP:
    case SamplerKind::kMinP:
      return make_truncation(kind, params);
  }
  return nullptr;
}

}  // namespace infer::text
