#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/text/vocab.h"

namespace infer::text {

/// Byte-level BPE over one word at a time. Of all adjacent pairs the one with the lowest rank is
/// joined first, of equal rank the leftmost. Source: Sennrich et al., arXiv:1508.07909; GPT-2's
/// encoder.py.
class BpeModel {
 public:
  struct Scratch {
    struct Pair {
      int32_t rank, left;
    };
    std::vector<TokenId> id;          ///< [n] of a symbol; -1: no token
    std::vector<int32_t> prev, next;  ///< [n] links between living symbols
    std::vector<int32_t> rank;        ///< [n] of the pair that starts here, kNoRank if none
    std::vector<TokenId> merged;      ///< [n] what that pair becomes
    std::vector<Pair> heap;
    std::string spelling;
  };

  /// Errors: kNotFound, kCorrupt (a merge without a space, or of tokens that the vocabulary lacks).
  static Result<BpeModel> load(const gguf::Reader& file, const Vocab& vocab, bool ignore_merges);

  /// Appends the tokens of one word (any bytes). A byte that has no token becomes `unk`, or nothing
  /// without one.
  void encode_word(std::string_view word, const Vocab& vocab, Scratch& scratch,
                   std::vector<TokenId>& out) const;

 private:
  struct Slot {
    uint64_t key = 0;  // left << 32 | right
    int32_t rank = -1;
    TokenId merged = -1;
  };
  const Slot* find(TokenId left, TokenId right) const;
  Slot& slot_for(uint64_t key);
  void merge_short(Scratch& s, size_t n) const;
  void merge_long(Scratch& s, size_t n) const;
  void rate_pair(Scratch& s, int32_t left, int32_t right) const;

  std::vector<Slot> slots_;  ///< open addressing, at most half full; rank < 0: free
  size_t mask_ = 0;
  std::array<TokenId, 256> byte_id_{};
  bool ignore_merges_ = false;
};

}  // namespace infer::text
