#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/runtime/kv_cache.h"
#include "core/runtime/step.h"

namespace infer::runtime {

/// One sequence of tokens as the scheduler sees it; owned by whoever made it, who keeps it in place
/// while it is scheduled.
struct Sequence {
  uint64_t request = 0;  ///< age: a smaller (request, sample) is older
  int32_t sample = 0;
  std::vector<AdapterUse> adapters;  ///< empty: the model as it is
  int32_t adapter = -1;  ///< number of that mix, which keeps its K and V apart; -1: none
  /// Prompt, then what was drawn. With room for all tokens to come, so that decoding allocates
  /// nothing.
  std::vector<int32_t> tokens;
  int64_t n_prompt = 0;
  bool want_last = true;  ///< logits of the last token's row: the next token is drawn from them
  int32_t n_top = -1;     ///< of these the best so many will do, <= kMaxTop; -1: all are needed

  /// Prompt rows whose logits somebody wants: those in want_rows (ascending) and all from want_from
  /// on.
  std::vector<int32_t> want_rows;
  int64_t want_from = std::numeric_limits<int64_t>::max();
  int64_t n_delivered =
      0;  ///< prompt rows whose logits were delivered, if wanted; they need no second time

  /// Tokens whose K and V somebody has at hand, and per cache group the first of them (a multiple
  /// of kBlockTok); empty: nobody. Kept by the owner.
  std::span<const int32_t> saved_tokens;
  std::vector<int64_t> saved_first;

  enum class State : uint8_t { kIdle, kWaiting, kRunning } state = State::kIdle;
  SeqId kv = kNoSeq;      ///< while running
  int64_t n_matched = 0;  ///< tokens found in the prefix cache at the last admission

  bool older_than(const Sequence& other) const {
    return request != other.request ? request < other.request : sample < other.sample;
  }
  /// Whether the logits of prompt row `pos` are still to be delivered.
  bool wants_prompt_row(int64_t pos) const {
    if (pos < n_delivered || pos >= n_prompt) return false;
    return pos >= want_from ||
           std::binary_search(want_rows.begin(), want_rows.end(), static_cast<int32_t>(pos));
  }
  /// The first such row, or a row that no sequence has.
  int64_t first_wanted_prompt_row() const {
    constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    const auto it = std::lower_bound(want_rows.begin(), want_rows.end(), n_delivered);
    const int64_t row =
        std::min(it == want_rows.end() ? kNone : *it, std::max(want_from, n_delivered));
    return row < n_prompt ? row : kNone;
  }
};

}  // namespace infer::runtime
