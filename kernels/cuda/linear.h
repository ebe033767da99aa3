#pragma once

#include "kernels/cuda/args.h"
#include "kernels/cuda/weight_layout.h"

/// Matrix products, out[r, j] = dot(x[r, :], W[j, :]): few rows straight from f32 (gemv), more rows
/// from prepared activations (gemm), both with the ops' prologues and epilogues. m = 0 is success
/// and launches nothing; *n_live above m counts as m.
namespace infer::cuda {

enum class Epilogue : uint8_t { kNone, kResidualAdd, kGlu, kAct, kActMul };

/// scale * (x W^T + bias), then softcap; kResidualAdd: + residual; kAct: act(that); kActMul:
/// act(that) * residual; kGlu: items {gate, up} of one shape and type, items[0].out = act(gate) *
/// up.
struct LinearEpilogue {
  Epilogue kind = Epilogue::kNone;
  GluKind glu = GluKind::kSilu;
  float scale = 1.0f;
  float softcap = 0.0f;             ///< 0: none; else cap * tanh(x / cap)
  const float* residual = nullptr;  ///< [m, n]; may be the output
};

struct LinearItem {
  Matrix w;
  const float* bias = nullptr;  ///< [w.n] or nullptr
  float* out = nullptr;         ///< [m, w.n]; overlaps no input but the residual
};
inline constexpr int kMaxItems = 3;

/// All items have the same k.
struct LinearItems {
  int n = 0;
  LinearItem item[kMaxItems];
};

// --- Few rows

/// Rows that one gemv takes.
inline constexpr int kGemvRows = 8;

/// x [m, k] f32, m <= kGemvRows. Each block normalises the rows itself (norm) and, for quantised
/// weights, rounds them to 8 bits per 32; weights of f32, f16, bf16 meet f32 activations. One
/// launch for each type among the items.
struct GemvArgs {
  const float* x = nullptr;
  Norm norm;
  int m = 0;
  const int32_t* n_live = nullptr;
  LinearItems items;
  LinearEpilogue epilogue;
};
cudaError_t linear_gemv(const GemvArgs& args, cudaStream_t stream);

/// The same for any m with f32 activations whatever the weights (`--precise`, and f32 weights of
/// many rows). x [m, k] is already normalised. One launch for each type among the items.
struct LinearF32Args {
  const float* x = nullptr;
  int m = 0;
  const int32_t* n_live = nullptr;
  LinearItems items;
  LinearEpilogue epilogue;
};
cudaError_t linear_f32(const LinearF32Args& args, cudaStream_t stream);

// --- Many rows

/// Activations rounded to 8 bits per 32 along k: x = d * q; s = d * sum(q) of the 32.
struct ActQ8 {
  int8_t* q = nullptr;   ///< [m, k]
  float2* ds = nullptr;  ///< [m, k / 32] {d, s}
};

/// Reads x [m, k], normalises it, and writes every form whose pointer is set. One launch. f32 may
/// be x or residual_after; otherwise no output overlaps an input.
struct PrepareArgs {
  const float* x = nullptr;
  Norm norm;
  int m = 0, k = 0;
  const int32_t* n_live = nullptr;
  float* f32 = nullptr;      ///< [m, k]
  uint16_t* f16 = nullptr;   ///< [m, k]; finite values saturate at +-65504, infinities and NaN stay
  uint16_t* bf16 = nullptr;  ///< [m, k]
  ActQ8 q8;                  ///< k a multiple of 32
  const float* residual_after = nullptr;  ///< f32 = residual_after + norm(x)
};
cudaError_t prepare_act(const PrepareArgs& args, cudaStream_t stream);

/// Products of prepared activations, of which the form that the kernel takes is set.
struct GemmArgs {
  ActQ8 q8;  ///< linear_gemm_q8
  /// linear_gemm_half: f16 [m, k]. Weights of bf16 take bf16 from sm_80 on, and f16 on sm_75; no
  /// call mixes them with other types there.
  const uint16_t* half = nullptr;
  int m = 0;
  const int32_t* n_live = nullptr;
  LinearItems items;
  LinearEpilogue epilogue;
};
/// Quantised weights times 8-bit activations on int8 tensor cores, best for m of 2 to 64. One
/// launch for each type among the items.
bool has_gemm_q8(DType type);
cudaError_t linear_gemm_q8(const GemmArgs& args, cudaStream_t stream);

/// Weights of any type but f32, made f16 (bf16 stays bf16; on sm_75 it becomes f16, finite values
/// within +-65504) in shared memory, times f16 activations on tensor cores with f32 sums: for large
/// m. A quantised weight beyond f16's range becomes infinite. One launch for each type among the
/// items.
bool has_gemm_half(DType type);
cudaError_t linear_gemm_half(const GemmArgs& args, cudaStream_t stream);

/// What cuBLAS leaves to do: bias, scale, softcap, activation, residual, in place on items' outputs
/// [m, n] that hold x W^T. kGlu: item[0].out = act(item[0].out ...) * item[1].out.
cudaError_t linear_epilogue(const GemmArgs& args, cudaStream_t stream);

}  // namespace infer::cuda
