#pragma once

#include "kernels/cuda/args.h"
#include "kernels/cuda/weight_layout.h"

/// Ops on rows: embedding, rotary embedding with the store into the pool, and small ones. One
/// launch each.
namespace infer::cuda {

/// The architecture (75, 80, ...) that the code which the current device runs was compiled for:
/// what it has no instruction for, kernels do otherwise, whatever the device could. Kernels are
/// compiled alike: one stands for all. Errors: cudaErrorNoKernelImageForDevice and the like where
/// there is no code for the device.
cudaError_t code_architecture(int* architecture);

/// out [m, k] = scale * table[token] (+ positions[pos]). Tables of any type with a layout.
struct EmbedArgs {
  Matrix table;      ///< [n_vocab, k]
  Matrix positions;  ///< [n_ctx, k]; n == 0: none
  float scale = 1.0f;
  Rows rows;
  float* out = nullptr;
};
cudaError_t embed(const EmbedArgs& args, cudaStream_t stream);

/// Per head: RMS norm (where a weight is given), rotary embedding, store of K and V into the pool;
/// q goes to q_out rotated (and, where K is quantised, rotated by Hadamard as well, as attention
/// takes it).
struct RopeStoreArgs {
  const float* q = nullptr;       ///< [m, n_head, head_dim]
  const float* k = nullptr;       ///< [m, n_kv_head, head_dim]
  const float* v = nullptr;       ///< [m, n_kv_head, head_dim]
  float* q_out = nullptr;         ///< [m, n_head, head_dim]; may be q
  const float* q_norm = nullptr;  ///< [head_dim] or nullptr
  const float* k_norm = nullptr;
  float eps = 0.0f;
  RopeKind rope_kind = RopeKind::kNorm;
  int rope_dim = 0;                 ///< 0: none
  const float2* cos_sin = nullptr;  ///< [n_pos, rope_dim / 2]
  int n_head = 0;
  KvPool pool;
  Rows rows;
  BlockTable table;
};
cudaError_t rope_store(const RopeStoreArgs& args, cudaStream_t stream);

/// Copies block src to dst in K and V of a pool, in order: copies [n] {src, dst} on the device.
cudaError_t copy_blocks(const KvPool& pool, const int2* copies, int n, cudaStream_t stream);

/// out[i] = x[index[i]] for i < *n_live. x [., k], out [m, k].
struct GatherArgs {
  const float* x = nullptr;
  const int32_t* index = nullptr;
  int m = 0, k = 0;
  const int32_t* n_live = nullptr;
  float* out = nullptr;
};
cudaError_t gather_rows(const GatherArgs& args, cudaStream_t stream);

/// out = residual + sigmoid(gate[row]) * y, [m, k].
cudaError_t gate_add(const float* y, const float* gate, const float* residual, int m, int k,
                     const int32_t* n_live, float* out, cudaStream_t stream);

// --- The wanted rows' logits --------------------------------------------------------------------

/// Most candidates a row may ask for.
inline constexpr int kMaxTop = 64;

/// Of one row of logits: what runtime::LogitStats says, and its best n_top logits.
struct RowStats {
  float max;
  int32_t argmax;   ///< lowest index among equals
  double sum_exp;   ///< of exp(x - max)
  int32_t has_nan;  ///< any NaN, or a max that is not finite
  int32_t reserved;
};
struct SampleArgs {
  const float* logits = nullptr;  ///< [m, n_vocab]
  int m = 0, n_vocab = 0;
  const int32_t* n_live = nullptr;
  int n_top = 0;                 ///< candidates a row, 0..kMaxTop
  RowStats* stats = nullptr;     ///< [m]
  float* top_logit = nullptr;    ///< [m, n_top] descending, ties by lower id
  int32_t* top_id = nullptr;     ///< [m, n_top]
  int32_t* counter = nullptr;    ///< [m] zeros, and zeros again afterwards
  std::byte* scratch = nullptr;  ///< sample_scratch_bytes(m, n_vocab, n_top)
};
int64_t sample_scratch_bytes(int m, int n_vocab, int n_top);
/// One launch: several blocks a row, the last to end merges.
cudaError_t sample(const SampleArgs& args, cudaStream_t stream);

}  // namespace infer::cuda
