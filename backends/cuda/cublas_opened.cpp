#include <dlfcn.h>

#include <initializer_list>

#include "backends/cuda/cublas_functions.h"

namespace infer::cuda {
namespace {

template <class Fn>
bool find(void* library, const char* name, Fn** out) {
  *out = reinterpret_cast<Fn*>(dlsym(library, name));
  return *out != nullptr;
}

const CublasFunctions* open() {
  static CublasFunctions f;
  for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);  // stays open as long as the process
    if (library == nullptr) continue;
    if (find(library, "cublasCreate_v2", &f.create) &&
        find(library, "cublasDestroy_v2", &f.destroy) &&
        find(library, "cublasSetStream_v2", &f.set_stream) &&
        find(library, "cublasSetWorkspace_v2", &f.set_workspace) &&
        find(library, "cublasGemmEx", &f.gemm_ex))
      return &f;
    dlclose(library);
  }
  return nullptr;
}

}  // namespace

const CublasFunctions* cublas_functions() {
  static const CublasFunctions* const functions = open();
  return functions;
}

}  // namespace infer::cuda
