#pragma once

#include <cstddef>
#include <cstdint>

/// One row from the file's layout to f32, for every type that can be computed with: the oracle of
/// all kernels. Shapes: src n_elem elements in blocks along k, any alignment; dst [n_elem]. Needs:
/// n_elem a multiple of the block. Values are those of gguf-py's `dequantize`, bit for bit
/// (tests/ops/decode_test.cpp).
namespace infer::kern::generic {

void decode_f32(const std::byte* src, int64_t n_elem, float* dst);
void decode_f16(const std::byte* src, int64_t n_elem, float* dst);
void decode_bf16(const std::byte* src, int64_t n_elem, float* dst);
void decode_q4_0(const std::byte* src, int64_t n_elem, float* dst);
void decode_q4_1(const std::byte* src, int64_t n_elem, float* dst);
void decode_q5_0(const std::byte* src, int64_t n_elem, float* dst);
void decode_q5_1(const std::byte* src, int64_t n_elem, float* dst);
void decode_q8_0(const std::byte* src, int64_t n_elem, float* dst);
void decode_q2_k(const std::byte* src, int64_t n_elem, float* dst);
void decode_q3_k(const std::byte* src, int64_t n_elem, float* dst);
void decode_q4_k(const std::byte* src, int64_t n_elem, float* dst);
void decode_q5_k(const std::byte* src, int64_t n_elem, float* dst);
void decode_q6_k(const std::byte* src, int64_t n_elem, float* dst);
void decode_iq4_nl(const std::byte* src, int64_t n_elem, float* dst);
void decode_iq4_xs(const std::byte* src, int64_t n_elem, float* dst);

}  // namespace infer::kern::generic
