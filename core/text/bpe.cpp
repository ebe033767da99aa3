#include "core/text/bpe.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/text/unicode.h"
#include "gguf/describe.h"

namespace infer::text {
namespace {

constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxMerges = int64_t{1}
                               << 20;  // keeps what a hostile file can make us allocate small
constexpr size_t kShortWord = 48;      // symbols; above it a heap beats looking through all pairs

uint64_t pair_key(TokenId left, TokenId right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

size_t pair_hash(uint64_t key) {
  key *= 0x9e3779b97f4a7c15u;
  return static_cast<size_t>(key ^ key >> 32);
}

}  // namespace

BpeModel::Slot& BpeModel::slot_for(uint64_t key) {
  size_t i = pair_hash(key) & mask_;
  while (slots_[i].rank >= 0 && slots_[i].key != key) i = (i + 1) & mask_;
  return slots_[i];
}

const BpeModel::Slot* BpeModel::find(TokenId left, TokenId right) const {
  if (left < 0 || right < 0) return nullptr;
  const uint64_t key = pair_key(left, right);
  size_t i = pair_hash(key) & mask_;
  while (slots_[i].rank >= 0) {
    if (slots_[i].key == key) return &slots_[i];
    i = (i + 1) & mask_;
  }
  return nullptr;
}

Result<BpeModel> BpeModel::load(const gguf::Reader& file, const Vocab& vocab, bool ignore_merges) {
  const gguf::Value* merges = file.find(kMerges);
  if (merges == nullptr)
    return make_error(ErrorCode::kNotFound, "{}: {} is missing", vocab.file, kMerges);
  if (merges->type() != gguf::ValueType::kArray ||
      merges->elem_type() != gguf::ValueType::kString) {
    return make_error(ErrorCode::kCorrupt, "{}: {} is not an array of strings", vocab.file,
                      kMerges);
  }
  if (merges->size() > kMaxMerges) {
    return make_error(ErrorCode::kUnsupported, "{}: {} has {} elements, the limit is {}",
                      vocab.file, kMerges, merges->size(), kMaxMerges);
  }
  BpeModel model;
  model.ignore_merges_ = ignore_merges;
  size_t capacity = 16;
  while (capacity < 2 * static_cast<size_t>(merges->size())) capacity *= 2;
  model.slots_.resize(capacity);
  model.mask_ = capacity - 1;
  std::string joined;
  for (int32_t rank = 0; rank < merges->size(); ++rank) {
    INFER_ASSIGN(const std::string_view merge, merges->string_at(rank));
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return make_error(ErrorCode::kCorrupt, "{}: {}[{}] = '{}' is not two tokens and a space",
                        vocab.file, kMerges, rank, gguf::printable(merge));
    }
    const TokenId left = vocab.by_text.find(merge.substr(0, space));
    const TokenId right = vocab.by_text.find(merge.substr(space + 1));
    joined.assign(merge, 0, space).append(merge, space + 1);
    const TokenId merged = vocab.by_text.find(joined);
    if (left < 0 || right < 0 || merged < 0) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: {}[{}] = '{}' names a token that the vocabulary lacks", vocab.file,
                        kMerges, rank, gguf::printable(merge));
    }
    Slot& slot = model.slot_for(pair_key(left, right));
    if (slot.rank < 0)
      slot = {pair_key(left, right), rank, merged};  // a repeated merge keeps its first rank
  }
  for (int b = 0; b < 256; ++b) {
    joined.clear();
    append_utf8(joined, byte_to_stand_in(static_cast<uint8_t>(b)));
    model.byte_id_[b] = vocab.by_text.find(joined);
  }
  return model;
}

void BpeModel::rate_pair(Scratch& s, int32_t left, int32_t right) const {
  const Slot* slot = find(s.id[left], s.id[right]);
  s.rank[left] = slot != nullptr ? slot->rank : kNoRank;
  s.merged[left] = slot != nullptr ? slot->merged : -1;
}

// Few symbols, kept dense: the arrays shrink by one at each merge.
void BpeModel::merge_short(Scratch& s, size_t n) const {
  for (size_t i = 0; i + 1 < n; ++i)
    rate_pair(s, static_cast<int32_t>(i), static_cast<int32_t>(i + 1));
  while (n > 1) {
    const auto best =
        std::min_element(s.rank.begin(), s.rank.begin() + static_cast<ptrdiff_t>(n - 1));
    if (*best == kNoRank) break;
    const auto at = static_cast<size_t>(best - s.rank.begin());
    s.id[at] = s.merged[at];
    for (size_t i = at + 1; i + 1 < n; ++i) {
      s.id[i] = s.id[i + 1];
      s.rank[i] = s.rank[i + 1];
      s.merged[i] = s.merged[i + 1];
    }
    --n;
    if (at > 0) rate_pair(s, static_cast<int32_t>(at - 1), static_cast<int32_t>(at));
    if (at + 1 < n) rate_pair(s, static_cast<int32_t>(at), static_cast<int32_t>(at + 1));
  }
  s.id.resize(n);
}

// A heap of pairs; an entry is stale when the pair that starts at its symbol has another rank by
// now (ranks are unique to a pair, so an equal rank means the same two tokens).
void BpeModel::merge_long(Scratch& s, size_t n) const {
  const auto later = [](const Scratch::Pair& a, const Scratch::Pair& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  s.prev.resize(n);
  s.next.resize(n);
  s.heap.clear();
  for (size_t i = 0; i < n; ++i) {
    const auto at = static_cast<int32_t>(i);
    s.prev[i] = at - 1;
    s.next[i] = i + 1 < n ? at + 1 : -1;
    s.rank[i] = kNoRank;
    if (i + 1 < n) rate_pair(s, at, at + 1);
    if (s.rank[i] != kNoRank) s.heap.push_back({s.rank[i], at});
  }
  std::make_heap(s.heap.begin(), s.heap.end(), later);
  const auto rate = [&](int32_t left) {
    s.rank[left] = kNoRank;
    if (s.next[left] < 0) return;
    rate_pair(s, left, s.next[left]);
    if (s.rank[left] == kNoRank) return;
    s.heap.push_back({s.rank[left], left});
    std::push_heap(s.heap.begin(), s.heap.end(), later);
  };
  while (!s.heap.empty()) {
    std::pop_heap(s.heap.begin(), s.heap.end(), later);
    const Scratch::Pair top = s.heap.back();
    s.heap.pop_back();
    if (s.rank[top.left] != top.rank) continue;
    const int32_t gone = s.next[top.left];
    s.id[top.left] = s.merged[top.left];
    s.rank[gone] = kNoRank;
    s.next[top.left] = s.next[gone];
    if (s.next[gone] >= 0) s.prev[s.next[gone]] = top.left;
    if (s.prev[top.left] >= 0) rate(s.prev[top.left]);
    rate(top.left);
  }
  size_t n_left = 0;
  for (int32_t i = 0; i >= 0; i = s.next[i]) s.id[n_left++] = s.id[i];
  s.id.resize(n_left);
}

void BpeModel::encode_word(std::string_view word, const Vocab& vocab, Scratch& s,
                           std::vector<TokenId>& out) const {
  if (ignore_merges_) {
    s.spelling.clear();
    append_stand_ins(s.spelling, word);
    const TokenId whole = vocab.by_text.find(s.spelling);
    if (whole >= 0) {
      out.push_back(whole);
      return;
    }
  }
  const size_t n = word.size();
  s.id.resize(n);
  s.rank.resize(n);
  s.merged.resize(n);
  for (size_t i = 0; i < n; ++i) s.id[i] = byte_id_[static_cast<uint8_t>(word[i])];
  if (n <= kShortWord) {
    merge_short(s, n);
  } else {
    merge_long(s, n);
  }
  for (const TokenId id : s.id) {
    const TokenId known = id >= 0 ? id : vocab.special.unk;
    if (known >= 0) out.push_back(known);
  }
}

}  // namespace infer::text
