# The CUDA kernels, built twice: by nvcc for GPUs (kernels/cuda/CMakeLists.txt), and as C++ for the emulator
# (tests/cuda_on_cpu/CMakeLists.txt).
set(INFER_CUDA_KERNELS
  attention_128.cu
  attention_256.cu
  attention_64.cu
  attention_80.cu
  attention_96.cu
  gemm_half_k.cu
  gemm_half_legacy.cu
  gemm_half_plain.cu
  gemm_q8_k.cu
  gemm_q8_legacy.cu
  gemv.cu
  gemv_float.cu
  gemv_k.cu
  gemv_legacy.cu
  gemv_precise.cu
  linear_gemm.cu
  linear_tile.cu
  moe.cu
  prepare_act.cu
  rope_store.cu
  row_ops.cu
  sample.cu)
# Host code beside them.
set(INFER_CUDA_KERNELS_HOST
  attention.cpp
  weight_layout.cpp)
list(TRANSFORM INFER_CUDA_KERNELS PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM INFER_CUDA_KERNELS_HOST PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
