#pragma once

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/generic/kv_quant.h"

/// FlashAttention over a paged pool, the vectorised levels': a running softmax over tiles of
/// kBlockTok slots, spans of kSpanSlots merged left to right.
///
/// The (row, query head) pairs of a call are cut into blocks of up to kMaxPairs, and every tile
/// goes through all blocks: one block (two of f16) reads K and V as they lie in the pool and widens
/// them on the way into the registers (generation); for more, they are widened once a tile into
/// f32 scratch that stays in the first-level cache (prompts).
///
/// Order of one (row, head, span), whoever else is in the call or the block: tiles left to right;
/// in a tile (q * scale).k over d in sequence (fma), the maximum, acc * rescale, then for each
/// visible slot in sequence acc[d] = fma(p, v[d], acc[d]); sums in 8 lanes (block_softmax), added
/// by hsum at the end of the span. A tile that a row does not see is not touched for that row. A
/// span starts empty and is merged by attn_merge. Source: FlashAttention-2, arXiv:2307.08691,
/// Algorithm 1; running max and sum, arXiv:1805.02867.
namespace infer::kern {

using ScoresFn = void (*)(const std::byte* k, int64_t head_dim, const float* q,
                          const NextTile& next, float* s);
using ValuesFn = void (*)(const std::byte* v, int64_t n_v, int64_t begin, int64_t end,
                          BlockState state, const float* s, const float* rescale);
using WidenFn = void (*)(const std::byte* tile, int64_t dim, float* to);

/// By [KvType][P - 1]; nullptr: tiles are widened first.
inline constexpr int kKvTypes = 4;
template <class V>
inline constexpr ScoresFn kScores[kKvTypes][kMaxPairs] = {
    {block_scores<V, KvType::kF32, 1>, block_scores<V, KvType::kF32, 2>,
     block_scores<V, KvType::kF32, 3>, block_scores<V, KvType::kF32, 4>,
     block_scores<V, KvType::kF32, 5>, block_scores<V, KvType::kF32, 6>},
    {block_scores<V, KvType::kF16, 1>, block_scores<V, KvType::kF16, 2>,
     block_scores<V, KvType::kF16, 3>, block_scores<V, KvType::kF16, 4>,
     block_scores<V, KvType::kF16, 5>, block_scores<V, KvType::kF16, 6>},
    {block_scores<V, KvType::kQ8_0, 1>, block_scores<V, KvType::kQ8_0, 2>,
     block_scores<V, KvType::kQ8_0, 3>},
    {block_scores<V, KvType::kQ4_0, 1>, block_scores<V, KvType::kQ4_0, 2>,
     block_scores<V, KvType::kQ4_0, 3>}};
template <class V>
inline constexpr ValuesFn kValues[kKvTypes][kMaxPairs] = {
    {block_values<V, KvType::kF32, 1>, block_values<V, KvType::kF32, 2>,
     block_values<V, KvType::kF32, 3>, block_values<V, KvType::kF32, 4>,
     block_values<V, KvType::kF32, 5>, block_values<V, KvType::kF32, 6>},
    {block_values<V, KvType::kF16, 1>, block_values<V, KvType::kF16, 2>,
     block_values<V, KvType::kF16, 3>, block_values<V, KvType::kF16, 4>,
     block_values<V, KvType::kF16, 5>, block_values<V, KvType::kF16, 6>},
    {block_values<V, KvType::kQ8_0, 1>, block_values<V, KvType::kQ8_0, 2>,
     block_values<V, KvType::kQ8_0, 3>},
    {block_values<V, KvType::kQ4_0, 1>, block_values<V, KvType::kQ4_0, 2>,
     block_values<V, KvType::kQ4_0, 3>}};
template <class V>
inline constexpr WidenFn kWidenK[kKvTypes] = {widen_k<V, KvType::kF32>, widen_k<V, KvType::kF16>,
                                              widen_k<V, KvType::kQ8_0>, widen_k<V, KvType::kQ4_0>};
template <class V>
inline constexpr WidenFn kWidenV[kKvTypes] = {widen_v<V, KvType::kF32>, widen_v<V, KvType::kF16>,
                                              widen_v<V, KvType::kQ8_0>, widen_v<V, KvType::kQ4_0>};

/// Where things lie in a call's scratch, in floats.
struct AttnLayout {
  int64_t k, v;          ///< the widened tile
  int64_t states, q;     ///< of n_blocks blocks; [n_blocks][head_dim][pairs of the block]
  int64_t state_stride;  ///< of a block
  int64_t size;

  [[gnu::always_inline]] AttnLayout(int64_t n_pairs, int64_t head_dim, int64_t head_dim_v) {
    const int64_t n_blocks = (n_pairs + kMaxPairs - 1) / kMaxPairs;
    state_stride = 16 + kMaxPairs * pair_floats(head_dim_v);
    k = 0;
    v = k + kBlockTok * head_dim;
    states = v + kBlockTok * padded_dim(head_dim_v);
    q = states + n_blocks * state_stride;
    size = q + n_pairs * head_dim;
  }
};

/// Attention of one call.
template <class V>
class AttnRun {
 public:
  [[gnu::always_inline]] explicit AttnRun(const AttnArgs& args)
      : a_(args),
        group_(a_.n_head / a_.pool.n_kv_head),
        n_pairs_(a_.n_rows * group_),
        n_blocks_((n_pairs_ + kMaxPairs - 1) / kMaxPairs),
        small_(n_pairs_ / n_blocks_),
        n_large_(n_pairs_ % n_blocks_),
        layout_(n_pairs_, a_.pool.head_dim, a_.pool.head_dim_v),
        scratch_(reinterpret_cast<float*>(a_.scratch)) {
    const KvPoolView& p = a_.pool;
    const int k_type = static_cast<int>(p.k_type), v_type = static_cast<int>(p.v_type);
    // A conversion costs less than a store and a load, so two blocks both convert f16.
    const auto direct = [&](KvType type, auto* kernels) {
      const int64_t most = type == KvType::kF32 ? n_blocks_ : type == KvType::kF16 ? 2 : 1;
      return n_blocks_ <= most && kernels[block_pairs(0) - 1] != nullptr;
    };
    // Values are read directly in whole vectors, so rows must have a length to match.
    const bool whole_v = p.head_dim_v == padded_dim(p.head_dim_v);
    direct_k_ = direct(p.k_type, kScores<V>[k_type]);
    direct_v_ = whole_v && direct(p.v_type, kValues<V>[v_type]);
    scores_ = kScores<V>[direct_k_ ? k_type : 0];
    values_ = kValues<V>[direct_v_ ? v_type : 0];
    softmax_.softcap = a_.softcap;
    softmax_.alibi = a_.alibi_slopes != nullptr;
    for (int64_t row = 0; row < a_.n_rows; ++row) {
      const int64_t slot = a_.q_slot[row];
      lo_[row] = a_.window > 0 ? max_of(0, slot - a_.window + 1) : 0;
      first_ = row == 0 ? lo_[row] : min_of(first_, lo_[row]);
      last_first_ = max_of(last_first_, lo_[row]);
      end_ = max_of(end_, slot + 1);
      first_end_ = row == 0 ? slot + 1 : min_of(first_end_, slot + 1);
    }
    n_fetch_ = (p.head_dim + kFetchRows - 1) / kFetchRows;
    const int64_t n_share = n_blocks_ * n_fetch_;
    share_.k_step = (kv_head_bytes(p.k_type, p.head_dim) + n_share - 1) / n_share;
    share_.v_step = (kv_head_bytes(p.v_type, p.head_dim_v) + n_share - 1) / n_share;
    pack_queries();
  }

  [[gnu::always_inline]] void run() {
    for (int64_t i = 0; i < n_pairs_; ++i) clear_partial(partial(i));
    const int64_t span_end = min_of(a_.span_end, (end_ + kSpanSlots - 1) / kSpanSlots);
    const int64_t end = min_of(end_, a_.span_end * kSpanSlots);
    for (int64_t span = max_of(a_.span_begin, first_ / kSpanSlots); span < span_end; ++span) {
      for (int64_t b = 0; b < n_blocks_; ++b) clear_state(b);
      const int64_t stop = min_of(end, (span + 1) * kSpanSlots);
      const int64_t from = max_of(span * kSpanSlots, first_ / kBlockTok * kBlockTok);
      for (int64_t slot0 = from; slot0 < stop; slot0 += kBlockTok) run_tile(slot0, end);
      for (int64_t b = 0; b < n_blocks_; ++b) merge_state(b);
    }
  }

 private:
  static constexpr int64_t kStrip = 16;  ///< blocks whose scores are kept until their values

  /// Blocks of nearly equal size: a rest of one pair would waste most of a register block.
  int64_t block_begin(int64_t b) const { return b * small_ + min_of(b, n_large_); }
  int block_pairs(int64_t b) const { return static_cast<int>(small_ + (b < n_large_ ? 1 : 0)); }
  BlockState state(int64_t b) const {
    return {scratch_ + layout_.states + b * layout_.state_stride, pair_floats(a_.pool.head_dim_v)};
  }
  float* queries(int64_t b) const {
    return scratch_ + layout_.q + block_begin(b) * a_.pool.head_dim;
  }
  float* partial(int64_t pair) const {
    return a_.partial + pair / group_ * a_.partial_row_stride +
           pair % group_ * (2 + a_.pool.head_dim_v);
  }

  /// Queries times `scale`, rotated before where K is, interleaved by block.
  void pack_queries() {
    const int64_t dim = a_.pool.head_dim;
    for (int64_t b = 0; b < n_blocks_; ++b) {
      const int n = block_pairs(b);
      float* to = queries(b);
      for (int p = 0; p < n; ++p) {
        const int64_t pair = block_begin(b) + p;
        const float* from =
            a_.q + pair / group_ * a_.q_stride + (a_.kv_head * group_ + pair % group_) * dim;
        if (is_quantised(a_.pool.k_type)) {
          float* rotated = scratch_ + layout_.k;  // free until the first tile
          rotate_kv(from, dim, rotated);
          from = rotated;
        }
        for (int64_t d = 0; d < dim; ++d) to[d * n + p] = from[d] * a_.scale;
      }
    }
  }

  /// Which slots of a tile the pairs of a block see.
  void look(int64_t b, int64_t slot0, BlockView* view) const {
    view->full = slot0 >= last_first_ && slot0 + kBlockTok <= first_end_;
    view->empty = false;
    if (view->full && !softmax_.alibi) return;
    const int64_t first = block_begin(b);
    const int n = block_pairs(b);
    bool some = false, all = true;
    for (int p = 0; p < n; ++p) {
      const int64_t row = (first + p) / group_;
      const int64_t begin = max_of(0, lo_[row] - slot0);
      const int64_t end = min_of(kBlockTok, a_.q_slot[row] + 1 - slot0);
      const bool sees = begin < end;
      some = some || sees;
      all = all && begin == 0 && end == kBlockTok;
      view->begin[p] = sees ? static_cast<int32_t>(begin) : 0;
      view->end[p] = sees ? static_cast<int32_t>(end) : 0;
      view->distance[p] = static_cast<int32_t>(slot0 - a_.q_slot[row]);
      const int64_t head = a_.kv_head * group_ + (first + p) % group_;
      view->slope[p] = softmax_.alibi ? a_.alibi_slopes[head] : 0.0f;
    }
    view->full = all;
    view->empty = !some;
  }

  /// The tile of slots [slot0, slot0 + kBlockTok) through every pair that sees some of it: scores
  /// of a strip of blocks, then values, so that only one of K and V has to stay in the cache.
  void run_tile(int64_t slot0, int64_t end) const {
    const KvPoolView& p = a_.pool;
    const int32_t* table = a_.block_table + slot0 / kBlockTok;
    const bool more = slot0 + kBlockTok < end && table[1] >= 0;
    const std::byte* k = nullptr;
    const std::byte* v = nullptr;
    alignas(64) float s[kStrip][kMaxPairs * kBlockTok];
    alignas(32) float rescale[kStrip][kMaxLanes];
    BlockView view[kStrip];
    for (int64_t b0 = 0; b0 < n_blocks_; b0 += kStrip) {
      const int64_t n = min_of(kStrip, n_blocks_ - b0);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t b = b0 + i;
        look(b, slot0, &view[i]);
        if (view[i].empty) continue;
        if (k == nullptr) {
          k = widened(head_of(p.k, table[0], p.k_type, p.head_dim), direct_k_, kWidenK<V>, p.k_type,
                      p.head_dim, layout_.k);
        }
        scores_[block_pairs(b) - 1](k, p.head_dim, queries(b),
                                    more ? share_of_next(b, table[1]) : NextTile{}, s[i]);
        block_softmax<V>(softmax_, view[i], block_pairs(b), state(b), s[i], rescale[i]);
      }
      for (int64_t i = 0; i < n; ++i) {
        if (view[i].empty) continue;
        if (v == nullptr) {
          v = widened(head_of(p.v, table[0], p.v_type, p.head_dim_v), direct_v_, kWidenV<V>,
                      p.v_type, p.head_dim_v, layout_.v);
        }
        add_values(view[i], b0 + i, v, s[i], rescale[i]);
      }
    }
  }
  /// What block b fetches of the tile in a physical block.
  NextTile share_of_next(int64_t b, int32_t block) const {
    const KvPoolView& p = a_.pool;
    NextTile next = share_;
    next.k = head_of(p.k, block, p.k_type, p.head_dim) + b * n_fetch_ * share_.k_step;
    next.v = head_of(p.v, block, p.v_type, p.head_dim_v) + b * n_fetch_ * share_.v_step;
    return next;
  }

  /// One head of a physical block.
  const std::byte* head_of(const std::byte* pool, int32_t block, KvType type, int64_t dim) const {
    return pool + (block * a_.pool.n_kv_head + a_.kv_head) * kv_head_bytes(type, dim);
  }
  const std::byte* widened(const std::byte* tile, bool direct, const WidenFn* widen, KvType type,
                           int64_t dim, int64_t at) const {
    if (direct) return tile;
    widen[static_cast<int>(type)](tile, dim, scratch_ + at);
    return reinterpret_cast<const std::byte*>(scratch_ + at);
  }

  /// Where pairs see different slots: those that all see together, before and behind alone.
  void add_values(const BlockView& view, int64_t b, const std::byte* v, const float* s,
                  float* rescale) const {
    const int n = block_pairs(b);
    const BlockState st = state(b);
    const int64_t n_v = padded_dim(a_.pool.head_dim_v);
    if (view.full) return values_[n - 1](v, n_v, 0, kBlockTok, st, s, rescale);
    int64_t begin = 0, end = kBlockTok;
    for (int p = 0; p < n; ++p) {
      begin = max_of(begin, view.begin[p]);
      end = min_of(end, view.end[p]);
    }
    const bool together = begin < end;
    const auto alone = [&](int p, int64_t from, int64_t to) {
      if (from >= to) return;
      values_[0](v, n_v, from, to, st.from(p), s + p * kBlockTok, rescale + p);
      rescale[p] = 1.0f;
    };
    for (int p = 0; p < n; ++p) alone(p, view.begin[p], together ? begin : view.end[p]);
    if (!together) return;
    values_[n - 1](v, n_v, begin, end, st, s, rescale);
    for (int p = 0; p < n; ++p) {
      rescale[p] = 1.0f;
      alone(p, end, view.end[p]);
    }
  }

  void clear_state(int64_t b) const {
    float* data = state(b).data;
    __builtin_memset(data, 0, static_cast<size_t>(layout_.state_stride) * sizeof(float));
    for (int p = 0; p < kMaxLanes; ++p) data[p] = -__builtin_inff();
  }
  void clear_partial(float* to) const {
    __builtin_memset(to, 0, static_cast<size_t>(2 + a_.pool.head_dim_v) * sizeof(float));
    to[0] = -__builtin_inff();
  }
  /// Merges a finished span; in place in the state, whose max and sum move in front of acc.
  void merge_state(int64_t b) const {
    const BlockState st = state(b);
    for (int p = 0; p < block_pairs(b); ++p) {
      const float sum = V::total(st.sum(p));
      float* packed = st.acc(p) - 2;
      packed[0] = st.max()[p];
      packed[1] = sum;
      V::merge(partial(block_begin(b) + p), packed, a_.pool.head_dim_v);
    }
  }

  const AttnArgs& a_;
  int64_t group_;  ///< query heads per KV head
  int64_t n_pairs_, n_blocks_;
  int64_t small_, n_large_;  ///< pairs of a block, and how many of the first ones have one more
  AttnLayout layout_;
  float* scratch_;
  bool direct_k_ = false, direct_v_ = false;  ///< read where they lie
  const ScoresFn* scores_ = nullptr;          ///< by [P - 1]
  const ValuesFn* values_ = nullptr;
  SoftmaxParams softmax_;
  NextTile share_;                          ///< of a block in what is fetched: steps only
  int64_t n_fetch_ = 0;                     ///< fetches of a block
  int64_t lo_[kAttnRows];                   ///< first slot that a row sees
  int64_t first_ = 0, end_ = 0;             ///< slots [first_, end_) that some row sees
  int64_t last_first_ = 0, first_end_ = 0;  ///< slots [last_first_, first_end_) that all see
};

}  // namespace infer::kern
