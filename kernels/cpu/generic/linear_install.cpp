#include "kernels/cpu/generic/linear_install.h"

#include "kernels/cpu/generic/decode_row.h"
#include "kernels/cpu/generic/install.h"

namespace infer::kern::generic {

void install_linear(CpuKernels& table) {
  const auto set = [&](DType type, void (*fn)(const std::byte*, int64_t, float*)) {
    table.decode_row[static_cast<int>(type)] = fn;
  };
  set(DType::kF32, decode_f32);
  set(DType::kF16, decode_f16);
  set(DType::kBF16, decode_bf16);
  set(DType::kQ4_0, decode_q4_0);
  set(DType::kQ4_1, decode_q4_1);
  set(DType::kQ5_0, decode_q5_0);
  set(DType::kQ5_1, decode_q5_1);
  set(DType::kQ8_0, decode_q8_0);
  set(DType::kQ2_K, decode_q2_k);
  set(DType::kQ3_K, decode_q3_k);
  set(DType::kQ4_K, decode_q4_k);
  set(DType::kQ5_K, decode_q5_k);
  set(DType::kQ6_K, decode_q6_k);
  set(DType::kIQ4_NL, decode_iq4_nl);
  set(DType::kIQ4_XS, decode_iq4_xs);
  install_linear_decoded(table);
  install_linear_quant(table);
}

}  // namespace infer::kern::generic
