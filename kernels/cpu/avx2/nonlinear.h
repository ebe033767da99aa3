#pragma once

#include "kernels/cpu/table.h"

/// The AVX2 (+ FMA, F16C) non-linear kernels, declared for the table (nonlinear.cpp). Contracts:
/// kernels/cpu/table.h.
namespace infer::kern::avx2 {

void rms_norm(const float* x, const float* w, float eps, int64_t n, float* y);
void layer_norm(const float* x, const float* w, const float* b, float eps, int64_t n, float* y);
void add(const float* a, const float* b, int64_t n, float* y);
void mul(const float* a, const float* b, int64_t n, float* y);
void scale(const float* a, float s, int64_t n, float* y);
void softcap(const float* a, float cap, int64_t n, float* y);
void glu(GluKind kind, const float* gate, const float* up, int64_t n, float* y);
void rope(RopeKind kind, float* x, int64_t n_head, int64_t head_dim, int64_t rope_dim,
          const float* cos_sin);
void kv_store(const KvStoreArgs& args);
int64_t attn_scratch_bytes(int64_t n_head, int64_t n_kv_head, int64_t head_dim, int64_t head_dim_v);
void attn_spans(const AttnArgs& args);
void attn_merge(float* left, const float* right, int64_t head_dim_v);
void attn_finish(const float* partial, int64_t head_dim_v, KvType v_type, float* out);
void logit_stats(const float* x, int64_t n, LogitStats* stats);

}  // namespace infer::kern::avx2
