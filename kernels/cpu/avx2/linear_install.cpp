#include "kernels/cpu/avx2/linear_install.h"

#include "kernels/cpu/avx2/install.h"

namespace infer::kern::avx2 {

void install_linear(CpuKernels& table) {
  install_linear_float(table);
  install_linear_legacy(table);
  install_linear_q8_0(table);
  install_linear_k(table);
  install_linear_k_low(table);
  install_linear_iq4(table);
}

}  // namespace infer::kern::avx2
