#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/runtime/block_pool.h"
#include "core/runtime/prefix_index.h"
#include "core/runtime/step.h"

/// Host side of the paged cache (design.md section 3, "Cache groups over paged static pools"): who
/// owns which block.
namespace infer::runtime {

struct KvGroupConfig {
  int64_t window = 0;   ///< a row at slot s sees slots > s - window; 0: all of them
  int64_t n_block = 0;  ///< physical blocks of kBlockTok tokens
};

struct KvCacheOptions {
  std::vector<KvGroupConfig> groups;
  int max_seqs = 1;
  int64_t n_ctx = 0;         ///< tokens one sequence may have
  bool prefix_cache = true;  ///< keep full blocks for later prompts that begin alike
};

using SeqId = int32_t;
inline constexpr SeqId kNoSeq = -1;

/// Blocks a group needs so that one sequence can have n_tok tokens.
int64_t blocks_needed(int64_t window, int64_t n_tok);
/// First slot that a row at `slot` sees.
int64_t first_seen(int64_t window, int64_t slot);

/// Block tables, reference counts, copy on write and prefix sharing for all sequences and groups.
/// A cached prefix holds exactly what computing it again would give, because the K and V of a token
/// do not depend on the batch nor on the chunking (design.md section 3, "One reduction order").
/// Threads: one at a time. Decoding allocates nothing: all tables have room for n_ctx from the
/// start.
class KvCache {
 public:
  explicit KvCache(const KvCacheOptions& options);

  int n_group() const { return static_cast<int>(groups_.size()); }
  int64_t n_block(int group) const { return pool(group).n_block(); }
  /// Cached blocks of prefixes count as free.
  int64_t n_free(int group) const { return pool(group).n_free(); }
  int64_t window(int group) const { return groups_[static_cast<size_t>(group)].window; }

  /// An empty sequence; kNoSeq when max_seqs exist.
  SeqId create(int32_t adapter = -1);
  void release(SeqId seq);
  /// A second sequence with the same tokens, sharing all blocks; kNoSeq when max_seqs exist.
  SeqId fork(SeqId seq);

  int64_t len(SeqId seq) const { return at(seq).len; }
  /// Physical blocks of the sequence, -1 for those that slid out of the window.
  std::span<const int32_t> table(SeqId seq, int group) const {
    return at(seq).tables[static_cast<size_t>(group)];
  }
  /// Blocks that the sequence holds, shared ones included.
  int64_t n_held(SeqId seq, int group) const;

  /// Makes slots [len, len + n) writable: takes blocks, and appends copies of blocks that others
  /// see too. All or nothing: false when a group has too few free blocks. Needs: len + n <= n_ctx.
  bool reserve(SeqId seq, int64_t n, std::vector<BlockCopy>& copies);
  /// The largest n' <= n for which reserve() would succeed.
  int64_t max_reservable(SeqId seq, int64_t n) const;
  /// The next tokens.size() reserved slots now hold these tokens. Full blocks become shareable,
  /// blocks that no later row sees are dropped.
  void commit(SeqId seq, std::span<const int32_t> tokens);

  /// Forgets the tokens from n on and returns how many are left: n, or 0 when a window group no
  /// longer has what a row at slot n sees (the caller computes again from there).
  int64_t truncate(SeqId seq, int64_t n);

  /// Gives an empty sequence the longest cached prefix of tokens[0, limit), whole blocks only;
  /// returns its length.
  int64_t match_prefix(SeqId seq, std::span<const int32_t> tokens, int64_t limit);

  /// Empties the sequence and gives it blocks for these tokens, those that a row behind them sees;
  /// the caller fills them with K and V before the next step. False, and an empty sequence, when a
  /// group has too few free blocks. Needs: 0 < tokens.size() <= n_ctx.
  bool restore(SeqId seq, std::span<const int32_t> tokens);

 private:
  struct Seq {
    bool used = false;
    int64_t len = 0;
    int32_t adapter = -1;
    std::vector<int32_t> tokens;               ///< [len]
    std::vector<std::vector<int32_t>> tables;  ///< [n_group][blocks]
    std::vector<int64_t> n_dropped;            ///< [n_group] leading table entries that are -1
    NodeId tail = kNoNode;                     ///< entry of the first `depth` full blocks
    int64_t depth = 0;
  };
  struct Group {
    int64_t window = 0;
    BlockPool pool;
  };
  BlockPool& pool(int g) { return groups_[static_cast<size_t>(g)].pool; }
  const BlockPool& pool(int g) const { return groups_[static_cast<size_t>(g)].pool; }
  size_t place(SeqId seq) const;
  Seq& at(SeqId seq) { return seqs_[place(seq)]; }
  const Seq& at(SeqId seq) const { return seqs_[place(seq)]; }

  int32_t allocate(int group);
  /// The block loses its entry. Entries below stay: they count again when somebody computes the
  /// missing block.
  void forget(int group, int32_t block);
  bool shared_tail(const Seq& s, int group) const;
  void enter(Seq& s);
  void drop_unseen(Seq& s);
  void cut_tables(Seq& s, int64_t n_tok);
  void step_back(Seq& s, int64_t depth);

  KvCacheOptions options_;
  std::vector<Group> groups_;
  PrefixIndex index_;
  std::vector<Seq> seqs_;
  std::vector<SeqId> unused_;
  std::vector<NodeId> path_;  ///< scratch of match_prefix
};

}  // namespace infer::runtime
