#include "kernels/cpu/avx512/linear_install.h"

#include "kernels/cpu/avx512/install.h"

namespace infer::kern::avx512 {

void install_linear(CpuKernels& table) {
  install_linear_float(table);
  install_linear_legacy(table);
  install_linear_k(table);
}

}  // namespace infer::kern::avx512
