#include "quantize/codec.h"

#include "core/base/cpu_features.h"
#include "kernels/cpu/dispatch.h"

namespace infer::quantize {

Result<Codec> select_codec(std::string_view isa) {
  const CpuFeatures cpu = detect_cpu_features();
  Codec codec;
  INFER_ASSIGN(codec.kernels, kern::select_kernels(cpu, isa));
  INFER_ASSIGN(codec.encoders, select_encoders(cpu, isa));
  return codec;
}

}  // namespace infer::quantize
