# The tests that run under the emulator and on a GPU: read by this folder and by ../cuda_on_gpu, each of which has an
# infer_add_cuda_test of its own. Sources are relative to this folder; of DEPENDS, what ends in _emulated is the same
# without that on a GPU. EMULATED_ONLY names cases (as --gtest_filter does) of machines that a GPU cannot be made to be: no
# driver, several devices, little memory, another architecture.
infer_add_cuda_test(cuda_attention SOURCES attention_case.cpp attention_test.cpp
  EMULATED_ONLY Attention.WhatIsRefused)
infer_add_cuda_test(cuda_weight_layout SOURCES weight_layout_test.cpp)
set(linear_support linear_case.cpp ../ops/linear_support.cpp)
infer_add_cuda_test(cuda_gemv
  SOURCES linear_f32_test.cpp linear_gemv_test.cpp linear_run.cpp ${linear_support}
  DEPENDS infer::kernels)
infer_add_cuda_test(cuda_gemm
  SOURCES linear_gemm_case.cpp linear_gemm_test.cpp prepare_act_test.cpp ../ops/linear_support.cpp
  DEPENDS infer::kernels)
infer_add_cuda_test(cuda_rows
  SOURCES
    rope_store_test.cpp
    row_ops_test.cpp
    sample_test.cpp
    ../ops/linear_support.cpp
  DEPENDS infer::kernels)
infer_add_cuda_test(cuda_moe
  SOURCES linear_gemm_case.cpp moe_case.cpp moe_gemm_test.cpp moe_test.cpp ${linear_support}
  DEPENDS infer::kernels)

# The backend under the engine.
infer_add_cuda_test(cuda_backend
  SOURCES backend_run_test.cpp backend_step_test.cpp cuda_engine.cpp
  DEPENDS infer::backend_cuda_emulated infer::backend_cpu infer::test_models
  EMULATED_ONLY Running.StagesGiveTheSameText Steps.AnExceptionLeavesAllUsable:Steps.TwoInFlightAreWhatEachIsAlone)
infer_add_cuda_test(cuda_golden
  SOURCES backend_golden_test.cpp cuda_engine.cpp
  DEPENDS infer::backend_cuda_emulated infer::backend_cpu infer::test_models)
infer_add_cuda_test(cuda_smollm2
  SOURCES smollm2_test.cpp
  DEPENDS infer::backend_cuda_emulated infer::backend_cpu infer::test_models)
