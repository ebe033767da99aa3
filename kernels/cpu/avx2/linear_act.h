#pragma once

#include <cstddef>
#include <cstdint>

/// Same bytes as generic::prepare_* (generic/linear_act.h), faster.
namespace infer::kern::avx2 {

int64_t act_bytes_f32(int64_t k);
int64_t act_bytes_q8(int64_t k);
void prepare_f32(const float* x, int64_t k, std::byte* act);
void prepare_q8(const float* x, int64_t k, std::byte* act);

}  // namespace infer::kern::avx2
