#include "kernels/cuda/attention.h"

#include "kernels/cuda/attention_launch.h"

namespace infer::cuda {

namespace {

bool is_quantised(DType type) { return type == DType::kQ8_0 || type == DType::kQ4_0; }
bool is_kv_type(DType type) {
  return type == DType::kF16 || type == DType::kBF16 || is_quantised(type);
}

/// fn.operator()<head_dim>().
template <class Fn>
cudaError_t with_head_dim(int head_dim, Fn&& fn) {
  switch (head_dim) {
    case 64:
      return fn.template operator()<64>();
    case 80:
      return fn.template operator()<80>();
    case 96:
      return fn.template operator()<96>();
    case 128:
      return fn.template operator()<128>();
    case 256:
      return fn.template operator()<256>();
    default:
      return cudaErrorNotSupported;
  }
}

cudaError_t check(const AttentionArgs& a) {
  const KvPool& pool = a.pool;
  if (!has_attention(pool.head_dim, pool.type_k, pool.type_v)) return cudaErrorNotSupported;
  if (pool.n_kv_head < 1 || a.n_head < 1 || a.n_head % pool.n_kv_head != 0 || a.rows.m < 0)
    return cudaErrorInvalidValue;
  if (pool.type_k != DType::kBF16 && pool.type_v != DType::kBF16) return cudaSuccess;
  int device = 0, major = 0;
  cudaError_t e = cudaGetDevice(&device);
  if (e == cudaSuccess)
    e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return e != cudaSuccess ? e : major >= 8 ? cudaSuccess : cudaErrorNotSupported;
}

}  // namespace

bool has_attention(int head_dim, DType type_k, DType type_v) {
  if (!is_kv_type(type_k) || !is_kv_type(type_v)) return false;
  const bool groups_of_32 = is_quantised(type_k) || is_quantised(type_v);
  return with_head_dim(head_dim, [&]<int kDim>() {
           return groups_of_32 && kDim % 32 != 0 ? cudaErrorNotSupported : cudaSuccess;
         }) == cudaSuccess;
}

int64_t attention_partial_floats(int m, int n_head, int head_dim, int n_split) {
  return n_split > 1 ? int64_t{m} * n_head * n_split * (head_dim + 2) : 0;
}

cudaError_t attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream) {
  const AttentionArgs& a = args.attention;
  if (const cudaError_t e = check(a); e != cudaSuccess) return e;
  if (args.n_split < 1) return cudaErrorInvalidValue;
  if (a.rows.m == 0) return cudaSuccess;
  return with_head_dim(a.pool.head_dim,
                       [&]<int kDim>() { return attention::launch_decode<kDim>(args, stream); });
}

int query_tile_rows(int /*head_dim*/, int group) {
  return attention::kPrefillRows / attention::heads_per_chunk(group, attention::kPrefillRows);
}

cudaError_t attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream) {
  const AttentionArgs& a = args.attention;
  if (const cudaError_t e = check(a); e != cudaSuccess) return e;
  if (args.n_tile < 0) return cudaErrorInvalidValue;
  if (args.n_tile == 0) return cudaSuccess;
  return with_head_dim(a.pool.head_dim,
                       [&]<int kDim>() { return attention::launch_prefill<kDim>(args, stream); });
}

}  // namespace infer::cuda
