#include "kernels/cpu/avx2/attention_quant.h"
#include "kernels/cpu/avx2/attention_tile.h"
#include "kernels/cpu/avx2/nonlinear.h"
#include "kernels/cpu/generic/kv_quant.h"

/// FlashAttention over a paged pool: a running softmax over tiles of kBlockTok slots, spans of
/// kSpanSlots merged left to right. The (row, query head) pairs that see a tile go through it in
/// blocks of up to kMaxPairs, so that each load of K and V serves several of them. Order of one
/// (row, head, span), whoever else is in the call or the block: tiles left to right; in a tile q.k
/// over d in sequence (fma), the maximum, acc * rescale, then for each visible slot in sequence
/// acc[d] = fma(p, v[d], acc[d]) (quantised K and V: attention_quant.h); sums in 8 lanes
/// (tile_softmax), added by hsum at the end of the span. A tile that a row does not see is not
/// touched for that row. A span starts empty and is merged by attn_merge. Source: FlashAttention-2,
/// arXiv:2307.08691, Algorithm 1; running max and sum, arXiv:1805.02867.
namespace infer::kern::avx2 {
namespace {

using ScoresFn = void (*)(const std::byte* k, int64_t head_dim, const TilePair* pairs,
                          const NextTile& next, float* s);
using ValuesFn = void (*)(const std::byte* v, int64_t n_v, const TilePair* pairs, const float* s,
                          const float* rescale);

template <KvType T, int P>
[[gnu::noinline]] void scores(const std::byte* k, int64_t head_dim, const TilePair* pairs,
                              const NextTile& next, float* s) {
  if constexpr (is_quantised(T)) {
    tile_scores_quant<T, P>(k, head_dim, pairs, next, s);
  } else {
    tile_scores<T, P>(k, head_dim, pairs, next, s);
  }
}

template <KvType T, int P>
[[gnu::noinline]] void values(const std::byte* v, int64_t n_v, const TilePair* pairs,
                              const float* s, const float* rescale) {
  if constexpr (is_quantised(T)) {
    tile_values_quant<T, P>(v, n_v, pairs, s, rescale);
  } else {
    tile_values<T, P>(v, n_v, pairs, s, rescale);
  }
}

/// By [KvType][P - 1].
constexpr int kKvTypes = 4;
constexpr ScoresFn kScores[kKvTypes][kMaxPairs] = {
    {scores<KvType::kF32, 1>, scores<KvType::kF32, 2>, scores<KvType::kF32, 3>,
     scores<KvType::kF32, 4>, scores<KvType::kF32, 5>, scores<KvType::kF32, 6>},
    {scores<KvType::kF16, 1>, scores<KvType::kF16, 2>, scores<KvType::kF16, 3>,
     scores<KvType::kF16, 4>, scores<KvType::kF16, 5>, scores<KvType::kF16, 6>},
    {scores<KvType::kQ8_0, 1>, scores<KvType::kQ8_0, 2>, scores<KvType::kQ8_0, 3>,
     scores<KvType::kQ8_0, 4>, scores<KvType::kQ8_0, 5>, scores<KvType::kQ8_0, 6>},
    {scores<KvType::kQ4_0, 1>, scores<KvType::kQ4_0, 2>, scores<KvType::kQ4_0, 3>,
     scores<KvType::kQ4_0, 4>, scores<KvType::kQ4_0, 5>, scores<KvType::kQ4_0, 6>}};
constexpr ValuesFn kValues[kKvTypes][kMaxPairs] = {
    {values<KvType::kF32, 1>, values<KvType::kF32, 2>, values<KvType::kF32, 3>,
     values<KvType::kF32, 4>, values<KvType::kF32, 5>, values<KvType::kF32, 6>},
    {values<KvType::kF16, 1>, values<KvType::kF16, 2>, values<KvType::kF16, 3>,
     values<KvType::kF16, 4>, values<KvType::kF16, 5>, values<KvType::kF16, 6>},
    {values<KvType::kQ8_0, 1>, values<KvType::kQ8_0, 2>, values<KvType::kQ8_0, 3>,
     values<KvType::kQ8_0, 4>, values<KvType::kQ8_0, 5>, values<KvType::kQ8_0, 6>},
    {values<KvType::kQ4_0, 1>, values<KvType::kQ4_0, 2>, values<KvType::kQ4_0, 3>,
     values<KvType::kQ4_0, 4>, values<KvType::kQ4_0, 5>, values<KvType::kQ4_0, 6>}};

int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/// What stays the same over a call.
struct Call {
  explicit Call(const AttnArgs& args);

  const AttnArgs& a;
  const ScoresFn* scores;
  const ValuesFn* values;
  int64_t group;                             ///< query heads per KV head
  int64_t state_size;                        ///< floats
  float* rotated_q;                          ///< [n_rows][group][head_dim] behind the states
  int64_t k_block, k_head, v_block, v_head;  ///< bytes of a block, and of one head in it
  int64_t first = 0, last = 0;               ///< slots [first, last) that some row sees
  int64_t lo[kAttnRows];                     ///< first slot that a row sees
  SoftmaxParams softmax;

  float* state(int64_t row, int64_t h) const {
    return reinterpret_cast<float*>(a.scratch) + (row * group + h) * state_size;
  }
  /// Query of a row and head of the group: rotated in scratch where K is quantised.
  const float* q(int64_t row, int64_t h) const {
    if (is_quantised(a.pool.k_type)) return rotated_q + (row * group + h) * a.pool.head_dim;
    return a.q + row * a.q_stride + (a.kv_head * group + h) * a.pool.head_dim;
  }
  float* partial(int64_t row, int64_t h) const {
    return a.partial + row * a.partial_row_stride + h * (2 + a.pool.head_dim_v);
  }
};

Call::Call(const AttnArgs& args) : a(args) {
  const KvPoolView& p = a.pool;
  scores = kScores[static_cast<int>(p.k_type)];
  values = kValues[static_cast<int>(p.v_type)];
  group = a.n_head / p.n_kv_head;
  state_size = state_floats(p.head_dim_v);
  k_head = kv_head_bytes(p.k_type, p.head_dim);
  v_head = kv_head_bytes(p.v_type, p.head_dim_v);
  k_block = k_block_bytes(p);
  v_block = v_block_bytes(p);
  for (int64_t row = 0; row < a.n_rows; ++row) {
    const int64_t slot = a.q_slot[row];
    lo[row] = a.window > 0 ? max64(0, slot - a.window + 1) : 0;
    first = row == 0 ? lo[row] : min64(first, lo[row]);
    last = max64(last, slot + 1);
  }
  rotated_q = state(kAttnRows, 0);
  for (int64_t row = 0; is_quantised(p.k_type) && row < a.n_rows; ++row) {
    const float* from = a.q + row * a.q_stride + a.kv_head * group * p.head_dim;
    float* to = rotated_q + row * group * p.head_dim;
    for (int64_t i = 0; i < group * p.head_dim; i += p.head_dim) {
      rotate_kv(from + i, p.head_dim, to + i);
    }
  }
  softmax.scale = a.scale;
  softmax.softcap = a.softcap;
  softmax.alibi = a.alibi_slopes != nullptr;
}

/// The rows that see a tile, and which part of it.
struct Visible {
  int64_t row[kAttnRows];
  int32_t begin[kAttnRows], end[kAttnRows];
  int64_t n = 0;
};

void find_visible(const Call& c, int64_t slot0, Visible* vis) {
  vis->n = 0;
  for (int64_t row = 0; row < c.a.n_rows; ++row) {
    const int64_t begin = max64(0, c.lo[row] - slot0);
    const int64_t end = min64(kBlockTok, c.a.q_slot[row] + 1 - slot0);
    if (begin >= end) continue;
    vis->row[vis->n] = row;
    vis->begin[vis->n] = static_cast<int32_t>(begin);
    vis->end[vis->n] = static_cast<int32_t>(end);
    ++vis->n;
  }
}

/// One block of n pairs through one tile.
void run_block(const Call& c, const std::byte* k, const std::byte* v, const TilePair* pairs, int n,
               const NextTile& next) {
  alignas(32) float s[kMaxPairs * kBlockTok];
  float rescale[kMaxPairs];
  c.scores[n - 1](k, c.a.pool.head_dim, pairs, next, s);
  bool same = true;
  for (int p = 0; p < n; ++p) {
    rescale[p] = tile_softmax(c.softmax, pairs[p], s + p * kBlockTok);
    same = same && pairs[p].begin == pairs[0].begin && pairs[p].end == pairs[0].end;
  }
  if (same) {
    c.values[n - 1](v, c.a.pool.head_dim_v, pairs, s, rescale);
    return;
  }
  for (int p = 0; p < n; ++p) {
    c.values[0](v, c.a.pool.head_dim_v, pairs + p, s + p * kBlockTok, rescale + p);
  }
}

/// The tile of slots [slot0, slot0 + kBlockTok) through every pair that sees some of it.
void run_tile(const Call& c, int64_t slot0, int64_t end) {
  Visible vis;
  find_visible(c, slot0, &vis);
  if (vis.n == 0) return;
  const int32_t* table = c.a.block_table + slot0 / kBlockTok;
  const std::byte* k = c.a.pool.k + table[0] * c.k_block + c.a.kv_head * c.k_head;
  const std::byte* v = c.a.pool.v + table[0] * c.v_block + c.a.kv_head * c.v_head;
  NextTile next;
  if (slot0 + kBlockTok < end && table[1] >= 0) {
    next.k = c.a.pool.k + table[1] * c.k_block + c.a.kv_head * c.k_head;
    next.v = c.a.pool.v + table[1] * c.v_block + c.a.kv_head * c.v_head;
    next.k_step = c.k_head * kFetchRows / c.a.pool.head_dim;
    next.v_step = c.v_head * kFetchRows / c.a.pool.head_dim;
  }
  const int64_t n_pairs = vis.n * c.group;
  const int64_t n_blocks = (n_pairs + kMaxPairs - 1) / kMaxPairs;
  int64_t i = 0, r = 0, h = 0;
  for (int64_t b = 0; b < n_blocks; ++b) {
    // Blocks of nearly equal size: a rest of one pair would waste most of a register block.
    const int64_t stop = n_pairs * (b + 1) / n_blocks;
    TilePair pairs[kMaxPairs];
    int n = 0;
    for (; i < stop; ++i, ++n) {
      const int64_t row = vis.row[r];
      const int64_t head = c.a.kv_head * c.group + h;
      pairs[n].q = c.q(row, h);
      pairs[n].state = c.state(row, h);
      pairs[n].slope = c.softmax.alibi ? c.a.alibi_slopes[head] : 0.0f;
      pairs[n].distance = static_cast<int32_t>(slot0 - c.a.q_slot[row]);
      pairs[n].begin = vis.begin[r];
      pairs[n].end = vis.end[r];
      if (++h == c.group) {
        h = 0;
        ++r;
      }
    }
    run_block(c, k, v, pairs, n, b == 0 ? next : NextTile{});
  }
}

void clear_state(float* state, int64_t n) {
  std::memset(state, 0, static_cast<size_t>(n) * sizeof(float));
  StateView{state}.max() = kNegInf;
}

void clear_partial(float* partial, int64_t head_dim_v) {
  std::memset(partial, 0, static_cast<size_t>(2 + head_dim_v) * sizeof(float));
  partial[0] = kNegInf;
}

/// Merges a finished span; in place in `state`, whose max and sum move in front of acc.
void merge_state(float* state, int64_t head_dim_v, float* partial) {
  const StateView view{state};
  const float sum = hsum(_mm256_load_ps(view.sum()));
  const float max = view.max();
  float* packed = view.acc() - 2;
  packed[0] = max;
  packed[1] = sum;
  attn_merge(partial, packed, head_dim_v);
}

}  // namespace

int64_t attn_scratch_bytes(int64_t n_head, int64_t n_kv_head, int64_t head_dim,
                           int64_t head_dim_v) {
  return kAttnRows * (n_head / n_kv_head) * (state_floats(head_dim_v) + head_dim) *
         static_cast<int64_t>(sizeof(float));
}

void attn_spans(const AttnArgs& a) {
  const Call c(a);
  const int64_t n_v = a.pool.head_dim_v;
  for (int64_t row = 0; row < a.n_rows; ++row) {
    for (int64_t h = 0; h < c.group; ++h) clear_partial(c.partial(row, h), n_v);
  }
  const int64_t span_first = max64(a.span_begin, c.first / kSpanSlots);
  const int64_t span_last = min64(a.span_end, (c.last + kSpanSlots - 1) / kSpanSlots);
  const int64_t end = min64(c.last, a.span_end * kSpanSlots);
  for (int64_t span = span_first; span < span_last; ++span) {
    for (int64_t i = 0; i < a.n_rows * c.group; ++i) {
      clear_state(c.state(0, i), c.state_size);
    }
    const int64_t span_end = min64(end, (span + 1) * kSpanSlots);
    const int64_t from = max64(span * kSpanSlots, c.first / kBlockTok * kBlockTok);
    for (int64_t slot0 = from; slot0 < span_end; slot0 += kBlockTok) run_tile(c, slot0, end);
    for (int64_t row = 0; row < a.n_rows; ++row) {
      for (int64_t h = 0; h < c.group; ++h) merge_state(c.state(row, h), n_v, c.partial(row, h));
    }
  }
}

void attn_merge(float* left, const float* right, int64_t head_dim_v) {
  // A visible slot adds exp(0) = 1 or NaN to a sum, so only an empty partial has sum 0.
  if (right[1] == 0.0f) return;
  if (left[1] == 0.0f) {
    std::memcpy(left, right, static_cast<size_t>(2 + head_dim_v) * sizeof(float));
    return;
  }
  const float max = left[0] > right[0] ? left[0] : right[0];
  const __m256 scale_left = _mm256_set1_ps(exp_nonpos(left[0] - max));
  const __m256 scale_right = _mm256_set1_ps(exp_nonpos(right[0] - max));
  left[0] = max;
  const int64_t n = 1 + head_dim_v;  // the sum is scaled like acc
  float* l = left + 1;
  const float* r = right + 1;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(r + i), scale_right);
    _mm256_storeu_ps(l + i, _mm256_fmadd_ps(_mm256_loadu_ps(l + i), scale_left, scaled));
  }
  if (i < n) {
    const __m256 scaled = _mm256_mul_ps(load_tail(r + i, n - i), scale_right);
    store_tail(l + i, n - i, _mm256_fmadd_ps(load_tail(l + i, n - i), scale_left, scaled));
  }
}

void attn_finish(const float* partial, int64_t head_dim_v, KvType v_type, float* out) {
  const __m256 sum = _mm256_set1_ps(partial[1]);
  const float* acc = partial + 2;
  int64_t i = 0;
  for (; i + 8 <= head_dim_v; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_div_ps(_mm256_loadu_ps(acc + i), sum));
  }
  if (i < head_dim_v) {
    store_tail(out + i, head_dim_v - i, _mm256_div_ps(load_tail(acc + i, head_dim_v - i), sum));
  }
  if (is_quantised(v_type)) rotate_kv(out, head_dim_v, out);
}

}  // namespace infer::kern::avx2
