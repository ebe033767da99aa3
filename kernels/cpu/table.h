#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/dtype.h"

/// The CPU kernels of one ISA level as a table of plain functions. `generic/` fills every entry
/// that can be computed; a faster level installs over it what it does better. Kernels know no
/// graph, file or allocator, never throw, never allocate, and see only what the caller validated.
///
/// One reduction order (design.md section 3): per (ISA, weight type, ActMode) the value of an
/// output depends on its inputs alone, never on m, n range, tails, neighbours or the thread that
/// computed it.
namespace infer::kern {

/// How activations meet quantised weights.
enum class ActMode : uint8_t {
  kFast,     ///< 8-bit activations (per 32 or 256) where the weight type's dot takes them
  kPrecise,  ///< f32 activations for every weight type
};
inline constexpr int kActModes = 2;

/// out[r * out_stride + (j - n_begin)] = dot(W[j, :], x[r, :])  for r in [0, m), j in [n_begin,
/// n_end).
struct LinearArgs {
  const std::byte* w = nullptr;  ///< the whole matrix, in the kernel's packed layout
  const std::byte* act =
      nullptr;  ///< m rows made by LinearKernel::prepare, act_stride bytes apart, 64-byte aligned
  int64_t act_stride = 0;  ///< bytes, multiple of 64
  int64_t m = 0, n = 0, k = 0;
  int64_t n_begin = 0;     ///< multiple of n_align
  int64_t n_end = 0;       ///< multiple of n_align, or n
  float* out = nullptr;    ///< overlaps no input
  int64_t out_stride = 0;  ///< floats
  std::byte* scratch =
      nullptr;  ///< scratch_bytes(k), 64-byte aligned, private to the calling thread
  int64_t l2_bytes = 256 * 1024;  ///< of the thread's core: how many rows are a block, no bits
};

struct LinearKernel {
  int64_t n_align = 1;  ///< height of a panel of outputs; work is shared out in multiples of it
  bool file_layout = false;  ///< the packed layout is the file's: `pack` is not needed, the mapping
                             ///< is used as it is
  int64_t (*packed_bytes)(int64_t n, int64_t k) = nullptr;
  /// Packs rows [n_begin, n_end) (n_begin a multiple of n_align) of the file's matrix; `file` and
  /// `packed` point at row 0.
  void (*pack)(const std::byte* file, int64_t n, int64_t k, int64_t n_begin, int64_t n_end,
               std::byte* packed) = nullptr;
  int64_t (*act_bytes)(int64_t k) =
      nullptr;  ///< bytes of one prepared row (caller rounds the stride up to 64)
  void (*prepare)(const float* x, int64_t k, std::byte* act) = nullptr;  ///< one row
  int64_t (*scratch_bytes)(int64_t k) = nullptr;
  void (*run)(const LinearArgs& args) = nullptr;  ///< nullptr: this type cannot be computed

  /// Kernels with the same `prepare` share one prepared copy of their input (q/k/v, gate/up).
  bool same_act(const LinearKernel& o) const { return prepare == o.prepare; }
};

enum class RopeKind : uint8_t {
  kNorm /* pairs (2i, 2i+1) */,
  kNeox /* pairs (i, i + rope_dim/2) */
};
enum class GluKind : uint8_t { kSilu, kGeluTanh, kGeluErf };
enum class KvType : uint8_t { kF32, kF16, kQ8_0, kQ4_0 };

/// Tokens in a KV block: one constant of every plan (design.md section 3).
inline constexpr int64_t kBlockTok = 32;
/// Slots in a span of the running softmax; spans are merged left to right (multiple of kBlockTok).
inline constexpr int64_t kSpanSlots = 512;

/// Elements along head_dim that share a scale in a quantised pool.
inline constexpr int64_t kKvGroup = 32;

/// The KV pool of one layer. K blocks are transposed so that lanes run over tokens.
/// k [n_block][n_kv_head][head_dim][kBlockTok];  v [n_block][n_kv_head][kBlockTok][head_dim_v].
/// q8_0 and q4_0 (head_dim a multiple of kKvGroup): each head of a block has two planes, levels as
/// above and then scales f16 [head_dim / kKvGroup][kBlockTok], for K and V alike. Levels of q8_0
/// are i8. Those of q4_0 stand for q - 8 and lie two a byte, never of two tokens: in K dims 2i and
/// 2i + 1 (low, high nibble), in V element i of a group with i + 16, as in the file's q4_0. What is
/// rounded is the row of a head times a Hadamard matrix (generic/kv_quant.h): kv_store rotates K
/// and V, attn_spans the query, and attn_finish rotates back. Never holds NaN or inf in slots that
/// were not written (the pool starts as zeros).
struct KvPoolView {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  KvType k_type = KvType::kF32, v_type = KvType::kF32;
  int64_t n_kv_head = 0, head_dim = 0, head_dim_v = 0;
};

/// Stores one token's K and V rows. k_row [n_kv_head, head_dim], v_row [n_kv_head, head_dim_v],
/// f32.
struct KvStoreArgs {
  KvPoolView pool;
  int32_t block = 0;   ///< physical block
  int32_t offset = 0;  ///< slot within the block, < kBlockTok
  const float* k_row = nullptr;
  const float* v_row = nullptr;
  /// The token's queries as attention takes them, [n_head, head_dim], or nullptr: q4_0 rounds K
  /// with regard to them (generic/kv_quant.h). n_head is a multiple of n_kv_head.
  const float* q_row = nullptr;
  int64_t n_head = 0;
};

/// Attention of up to attn_rows(group) query rows of one sequence against one KV head, over spans
/// [span_begin, span_end). Row i (at slot q_slot[i]) sees slots s with  s <= q_slot[i]  and, if
/// window > 0,  s > q_slot[i] - window. logits = softcap(q.k * scale) + alibi_slope[head] * (s -
/// q_slot[i]).
struct AttnArgs {
  KvPoolView pool;
  const int32_t* block_table =
      nullptr;  ///< physical block of each block of slots; only visible blocks are read
  const float* q = nullptr;         ///< row i, head h at q + i * q_stride + h * head_dim
  int64_t q_stride = 0;             ///< floats
  const int32_t* q_slot = nullptr;  ///< [n_rows]
  int64_t n_rows = 0;
  int64_t n_head = 0;  ///< query heads in all; head h reads KV head h / (n_head / n_kv_head)
  int64_t kv_head = 0;
  float scale = 1.0f;
  float softcap = 0.0f;                 ///< 0: none; else cap * tanh(x / cap)
  int64_t window = 0;                   ///< 0: full
  const float* alibi_slopes = nullptr;  ///< [n_head] or nullptr
  int64_t span_begin = 0, span_end = 0;
  /// One partial a (row, query head of this KV head): running max, sum, then acc[head_dim_v],
  /// unnormalised. Layout [n_rows][n_head / n_kv_head][2 + head_dim_v]. A span that a row does not
  /// see leaves max = -inf, sum = 0, acc = 0.
  float* partial = nullptr;
  int64_t partial_row_stride = 0;  ///< floats between rows of `partial`
  std::byte* scratch =
      nullptr;  ///< attn_scratch_bytes(...), 64-byte aligned, private to the thread
};
/// Rows of a call at most, by query heads a KV head: enough (row, head) pairs to share what it
/// takes to bring K and V to f32, and not more states than a second-level cache holds.
[[gnu::always_inline]] constexpr int64_t attn_rows(int64_t group) {
  return group >= 8 ? 16 : group >= 3 ? 32 : 64;
}
inline constexpr int64_t kAttnRows = attn_rows(1);  ///< for any group

struct LogitStats {
  float max = 0.0f;
  int32_t argmax = 0;  ///< lowest index among equals
  double sum_exp =
      0.0;  ///< sum of exp(x - max), natural; log-softmax(x_i) = x_i - max - log(sum_exp)
  bool has_nan = false;  ///< any NaN, or a max that is not finite
};

struct CpuKernels {
  const char* isa = "";  ///< "generic", "avx2", ...
  LinearKernel linear[kActModes][kDTypeCount];
  /// One row from the file's layout to f32; nullptr: no decoder. n_elem is a multiple of the block
  /// length.
  void (*decode_row[kDTypeCount])(const std::byte* src, int64_t n_elem, float* dst) = {};

  /// y = x / sqrt(mean(x^2) + eps) * w (w nullptr: ones). y may be x.
  void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, float* y) = nullptr;
  /// y = (x - mean) / sqrt(var + eps) * w + b (either may be nullptr). y may be x.
  void (*layer_norm)(const float* x, const float* w, const float* b, float eps, int64_t n,
                     float* y) = nullptr;
  void (*add)(const float* a, const float* b, int64_t n,
              float* y) = nullptr;  ///< y = a + b; y may be a or b
  void (*mul)(const float* a, const float* b, int64_t n,
              float* y) = nullptr;  ///< y = a * b; y may be a or b
  void (*scale)(const float* a, float s, int64_t n, float* y) = nullptr;  ///< y = a * s; y may be a
  void (*softcap)(const float* a, float cap, int64_t n,
                  float* y) = nullptr;  ///< y = cap * tanh(a / cap)
  void (*glu)(GluKind kind, const float* gate, const float* up, int64_t n,
              float* y) = nullptr;  ///< y = act(gate) * up; up nullptr: ones
  /// Rotates the first rope_dim of each head of x [n_head, head_dim] in place; cos_sin [rope_dim /
  /// 2][2].
  void (*rope)(RopeKind kind, float* x, int64_t n_head, int64_t head_dim, int64_t rope_dim,
               const float* cos_sin) = nullptr;

  void (*kv_store)(const KvStoreArgs& args) = nullptr;
  int64_t (*attn_scratch_bytes)(int64_t n_head, int64_t n_kv_head, int64_t head_dim,
                                int64_t head_dim_v) = nullptr;
  void (*attn_spans)(const AttnArgs& args) =
      nullptr;  ///< gathers its spans left to right into `partial`
  /// Merges the next span (right) into what was gathered so far (left), both [2 + head_dim_v], left
  /// to right only. An empty right is an exact no-op; merging into an empty left is an exact copy.
  /// attn_spans merges with it as well.
  void (*attn_merge)(float* left, const float* right, int64_t head_dim_v) = nullptr;
  /// out [head_dim_v] = acc / sum, rotated back where v_type is quantised.
  void (*attn_finish)(const float* partial, int64_t head_dim_v, KvType v_type,
                      float* out) = nullptr;

  void (*logit_stats)(const float* x, int64_t n, LogitStats* stats) = nullptr;
};

[[gnu::always_inline]] constexpr bool is_quantised(KvType t) {
  return t == KvType::kQ8_0 || t == KvType::kQ4_0;
}
/// Bytes of the levels of one head in a block of K or V: where its scales begin.
[[gnu::always_inline]] constexpr int64_t kv_scales_at(KvType t, int64_t dim) {
  const int64_t n = dim * kBlockTok;
  return t == KvType::kF32 ? 4 * n : t == KvType::kF16 ? 2 * n : t == KvType::kQ8_0 ? n : n / 2;
}
/// Bytes of one head in a block of K or V.
[[gnu::always_inline]] constexpr int64_t kv_head_bytes(KvType t, int64_t dim) {
  return kv_scales_at(t, dim) + (is_quantised(t) ? dim / kKvGroup * kBlockTok * 2 : 0);
}
/// Bytes of one layer's block in the K or the V pool.
[[gnu::always_inline]] constexpr int64_t k_block_bytes(const KvPoolView& p) {
  return p.n_kv_head * kv_head_bytes(p.k_type, p.head_dim);
}
[[gnu::always_inline]] constexpr int64_t v_block_bytes(const KvPoolView& p) {
  return p.n_kv_head * kv_head_bytes(p.v_type, p.head_dim_v);
}

}  // namespace infer::kern
