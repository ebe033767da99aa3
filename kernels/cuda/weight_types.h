#pragma once

#include <cuda_runtime.h>

#include "core/base/dtype.h"

/// Which types kernels are compiled for, and the way from a type at run time to its kernel.
namespace infer::cuda {

template <DType... kTypes>
struct Types {};
using FloatTypes = Types<DType::kF32, DType::kF16, DType::kBF16>;
/// Blocks of 32 weights.
using LegacyTypes =
    Types<DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kIQ4_NL>;
/// Blocks of 256 weights.
using KTypes =
    Types<DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS>;

template <DType... kFirst, DType... kSecond>
constexpr Types<kFirst..., kSecond...> operator+(Types<kFirst...>, Types<kSecond...>) {
  return {};
}

/// launch_it.operator()<type>(), or cudaErrorInvalidValue for a type that is not among `kTypes`.
template <DType... kTypes, class LaunchIt>
cudaError_t with_type(Types<kTypes...>, DType type, LaunchIt launch_it) {
  cudaError_t error = cudaErrorInvalidValue;
  const auto launch_if = [&]<DType kType>() {
    if (type == kType) error = launch_it.template operator()<kType>();
  };
  (launch_if.template operator()<kTypes>(), ...);
  return error;
}

}  // namespace infer::cuda
