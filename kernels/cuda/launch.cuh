#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/cuda/device.cuh"

namespace infer::cuda {

/// A grid that remembers the line of the launch, for the emulator's messages.
struct Grid {
  Grid(dim3 size, Site at = Site::current()) : dim(size), site(at) {}
  Grid(unsigned n_block_x, Site at = Site::current()) : dim(n_block_x), site(at) {}
  Grid(int n_block_x, Site at = Site::current())
      : dim(static_cast<unsigned>(n_block_x)), site(at) {}
  dim3 dim;
  Site site;
};

/// launch(kernel, grid, block, shared_bytes, stream, arguments...): what <<<>>> does, as a function
/// that a host compiler accepts too. The arguments are converted to the kernel's parameter types
/// and copied. Errors: as cudaLaunchKernel; more than 48 KiB of shared memory needs
/// cudaFuncSetAttribute first.
template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), Grid grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args));
  static_assert((std::is_trivially_copyable_v<Params> && ...), "parameters are copied as bytes");
  static_assert((sizeof(Params) + ... + 0) <= 4096, "4 KiB of parameters at most");
#if defined(__CUDACC__)
  std::tuple<std::remove_cv_t<Params>...> values(static_cast<Params>(std::forward<Args>(args))...);
  return std::apply(
      [&](auto&... value) {
        std::array<void*, sizeof...(Params) + 1> pointers = {&value..., nullptr};
        return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid.dim, block,
                                pointers.data(), shared_bytes, stream);
      },
      values);
#else
  using Values = std::tuple<std::remove_cv_t<Params>...>;
  const Values values(static_cast<Params>(std::forward<Args>(args))...);
  const auto call = [](const void* function, const void* arguments) {
    std::apply(reinterpret_cast<void (*)(Params...)>(const_cast<void*>(function)),
               *static_cast<const Values*>(arguments));
  };
  return emulated::launch({reinterpret_cast<const void*>(kernel), call, &values, sizeof(values),
                           grid.dim, block, shared_bytes},
                          stream, grid.site);
#endif
}

}  // namespace infer::cuda
