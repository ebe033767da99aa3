# The CUDA backend: plain C++ against CUDA's runtime API, built with the toolkit's runtime (backends/cuda/CMakeLists.txt) and
# with the emulator's (tests/cuda_on_cpu/CMakeLists.txt).
set(INFER_CUDA_BACKEND
  backend.cpp
  cublas.cpp
  executable.cpp
  graph_cache.cpp
  kv_rows.cpp
  layout.cpp
  linear.cpp
  logits.cpp
  memory.cpp
  ops.cpp
  stage.cpp
  step_arrays.cpp
  supports.cpp
  upload.cpp
  weights.cpp)
# How the backend comes to cuBLAS; the emulator has a table of its own.
set(INFER_CUDA_BACKEND_CUBLAS
  cublas_opened.cpp)
list(TRANSFORM INFER_CUDA_BACKEND PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM INFER_CUDA_BACKEND_CUBLAS PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
