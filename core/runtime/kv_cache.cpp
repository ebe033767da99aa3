#include "core/runtime/kv_cache.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/checked.h"

namespace infer::runtime {
namespace {

int64_t index_size(const KvCacheOptions& options) {
  int64_t n = options.max_seqs * ceil_div(options.n_ctx, kBlockTok);
  for (const KvGroupConfig& group : options.groups) n += group.n_block;
  return options.prefix_cache ? std::max<int64_t>(n, 1) : 1;
}

}  // namespace

int64_t first_seen(int64_t window, int64_t slot) {
  return window == 0 ? 0 : std::max<int64_t>(0, slot - window + 1);
}

int64_t blocks_needed(int64_t window, int64_t n_tok) {
  const int64_t all = ceil_div(n_tok, kBlockTok);
  return window == 0 ? all : std::min(all, ceil_div(window - 1, kBlockTok) + 1);
}

KvCache::KvCache(const KvCacheOptions& options)
    : options_(options), index_(static_cast<int>(options.groups.size()), index_size(options)) {
  INFER_CHECK(options.max_seqs > 0 && options.n_ctx > 0, "max_seqs {}, n_ctx {}", options.max_seqs,
              options.n_ctx);
  for (const KvGroupConfig& g : options.groups)
    groups_.push_back({.window = g.window, .pool = BlockPool(g.n_block)});
  const auto n_table = static_cast<size_t>(ceil_div(options.n_ctx, kBlockTok));
  seqs_.resize(static_cast<size_t>(options.max_seqs));
  unused_.reserve(seqs_.size());
  path_.reserve(n_table);
  for (size_t i = seqs_.size(); i-- > 0;) {
    Seq& s = seqs_[i];
    s.tokens.reserve(static_cast<size_t>(options.n_ctx));
    s.tables.resize(groups_.size());
    for (std::vector<int32_t>& table : s.tables) table.reserve(n_table);
    s.n_dropped.resize(groups_.size());
    unused_.push_back(static_cast<SeqId>(i));
  }
}

size_t KvCache::place(SeqId seq) const {
  const auto i = static_cast<size_t>(seq);
  INFER_CHECK(seq >= 0 && i < seqs_.size() && seqs_[i].used, "no sequence {}", seq);
  return i;
}

SeqId KvCache::create(int32_t adapter) {
  if (unused_.empty()) return kNoSeq;
  const SeqId id = unused_.back();
  unused_.pop_back();
  Seq& s = seqs_[static_cast<size_t>(id)];
  s.used = true;
  s.adapter = adapter;
  return id;
}

void KvCache::release(SeqId seq) {
  Seq& s = at(seq);
  cut_tables(s, 0);
  step_back(s, 0);
  s.tokens.clear();
  s.len = 0;
  s.used = false;
  unused_.push_back(seq);
}

SeqId KvCache::fork(SeqId seq) {
  const Seq& from = at(seq);
  const SeqId id = create(from.adapter);
  if (id == kNoSeq) return id;
  Seq& to = at(id);
  to.len = from.len;
  to.tokens = from.tokens;
  to.n_dropped = from.n_dropped;
  to.tail = from.tail;
  to.depth = from.depth;
  index_.add_ref(to.tail);
  const auto n_table = static_cast<size_t>(ceil_div(from.len, kBlockTok));
  for (int g = 0; g < n_group(); ++g) {
    const std::vector<int32_t>& source = from.tables[static_cast<size_t>(g)];
    std::vector<int32_t>& table = to.tables[static_cast<size_t>(g)];
    table.assign(source.begin(), source.begin() + static_cast<int64_t>(n_table));
    for (int32_t block : table) {
      if (block >= 0) pool(g).add_ref(block);
    }
  }
  return id;
}

int64_t KvCache::n_held(SeqId seq, int group) const {
  const Seq& s = at(seq);
  const auto g = static_cast<size_t>(group);
  return static_cast<int64_t>(s.tables[g].size()) - s.n_dropped[g];
}

int32_t KvCache::allocate(int group) {
  BlockPool& p = pool(group);
  if (!p.has_blank()) forget(group, p.oldest_cached());
  return p.take();
}

void KvCache::forget(int group, int32_t block) {
  const NodeId node = pool(group).node(block);
  pool(group).clear_node(block);
  index_.clear_block(node, group);
}

/// Whether the block of slot `len` is partly filled and others see it too.
bool KvCache::shared_tail(const Seq& s, int group) const {
  if (s.len % kBlockTok == 0) return false;
  const int32_t block =
      s.tables[static_cast<size_t>(group)][static_cast<size_t>(s.len / kBlockTok)];
  return pool(group).n_ref(block) > 1;
}

int64_t KvCache::max_reservable(SeqId seq, int64_t n) const {
  const Seq& s = at(seq);
  n = std::min(n, options_.n_ctx - s.len);
  for (int g = 0; g < n_group(); ++g) {
    const int64_t n_take = pool(g).n_free() - (shared_tail(s, g) ? 1 : 0);
    if (n_take < 0) return 0;
    const auto n_table = static_cast<int64_t>(s.tables[static_cast<size_t>(g)].size());
    n = std::min(n, (n_table + n_take) * kBlockTok - s.len);
  }
  return n;
}

bool KvCache::reserve(SeqId seq, int64_t n, std::vector<BlockCopy>& copies) {
  Seq& s = at(seq);
  INFER_CHECK(n > 0 && s.len + n <= options_.n_ctx, "{} + {} tokens, n_ctx = {}", s.len, n,
              options_.n_ctx);
  if (max_reservable(seq, n) < n) return false;
  const auto n_table = static_cast<size_t>(ceil_div(s.len + n, kBlockTok));
  for (int g = 0; g < n_group(); ++g) {
    std::vector<int32_t>& table = s.tables[static_cast<size_t>(g)];
    if (s.len % kBlockTok != 0) {
      int32_t& tail = table[static_cast<size_t>(s.len / kBlockTok)];
      if (shared_tail(s, g)) {
        const int32_t copy = allocate(g);
        copies.push_back({.group = g, .src = tail, .dst = copy});
        pool(g).drop_ref(tail);
        tail = copy;
      } else if (pool(g).node(tail) != kNoNode) {  // a full block that was cut: its rest changes
        forget(g, tail);
      }
    }
    while (table.size() < n_table) table.push_back(allocate(g));
  }
  return true;
}

void KvCache::commit(SeqId seq, std::span<const int32_t> tokens) {
  Seq& s = at(seq);
  for (const std::vector<int32_t>& table : s.tables) {
    INFER_CHECK(s.len + static_cast<int64_t>(tokens.size()) <=
                    static_cast<int64_t>(table.size()) * kBlockTok,
                "{} + {} tokens in {} blocks", s.len, tokens.size(), table.size());
  }
  s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
  s.len += static_cast<int64_t>(tokens.size());
  if (options_.prefix_cache) enter(s);
  drop_unseen(s);
}

/// Enters the blocks that became full. When the index has no room, the sequence's further blocks
/// stay private.
void KvCache::enter(Seq& s) {
  const std::span<const int32_t> tokens = s.tokens;
  while (s.depth < s.len / kBlockTok) {
    const auto first = static_cast<size_t>(s.depth * kBlockTok);
    const NodeId node = index_.insert(s.tail, s.adapter, tokens.subspan(first, kBlockTok));
    if (node == kNoNode) return;
    for (int g = 0; g < n_group(); ++g) {
      const int32_t block = s.tables[static_cast<size_t>(g)][static_cast<size_t>(s.depth)];
      if (block < 0 || index_.block(node, g) >= 0 || pool(g).node(block) != kNoNode) continue;
      pool(g).set_node(block, node);
      index_.set_block(node, g, block);
    }
    index_.add_ref(node);
    index_.drop_ref(s.tail);
    s.tail = node;
    ++s.depth;
  }
}

void KvCache::drop_unseen(Seq& s) {
  for (int g = 0; g < n_group(); ++g) {
    const auto group = static_cast<size_t>(g);
    const int64_t n = first_seen(groups_[group].window, s.len) / kBlockTok;
    for (int64_t& i = s.n_dropped[group]; i < n; ++i) {
      pool(g).drop_ref(s.tables[group][static_cast<size_t>(i)]);
      s.tables[group][static_cast<size_t>(i)] = -1;
    }
  }
}

/// Gives back the blocks behind n_tok tokens, the last one first: what is cached of a prefix loses
/// its end before its beginning.
void KvCache::cut_tables(Seq& s, int64_t n_tok) {
  const auto n = static_cast<size_t>(ceil_div(n_tok, kBlockTok));
  for (int g = 0; g < n_group(); ++g) {
    std::vector<int32_t>& table = s.tables[static_cast<size_t>(g)];
    for (; table.size() > n; table.pop_back()) {
      if (table.back() >= 0) pool(g).drop_ref(table.back());
    }
    int64_t& n_dropped = s.n_dropped[static_cast<size_t>(g)];
    n_dropped = std::min(n_dropped, static_cast<int64_t>(n));
  }
}

void KvCache::step_back(Seq& s, int64_t depth) {
  if (s.depth <= depth) return;
  NodeId node = s.tail;
  for (; s.depth > depth; --s.depth) node = index_.parent(node);
  index_.add_ref(node);
  index_.drop_ref(s.tail);
  s.tail = node;
}

int64_t KvCache::truncate(SeqId seq, int64_t n) {
  Seq& s = at(seq);
  INFER_CHECK(n >= 0 && n <= s.len, "truncate to {} of {} tokens", n, s.len);
  for (int g = 0; g < n_group(); ++g) {
    const auto group = static_cast<size_t>(g);
    if (first_seen(groups_[group].window, n) < s.n_dropped[group] * kBlockTok) n = 0;
  }
  cut_tables(s, n);
  step_back(s, n / kBlockTok);
  s.tokens.resize(static_cast<size_t>(n));
  s.len = n;
  return n;
}

bool KvCache::restore(SeqId seq, std::span<const int32_t> tokens) {
  truncate(seq, 0);
  Seq& s = at(seq);
  const auto n = static_cast<int64_t>(tokens.size());
  INFER_CHECK(n > 0 && n <= options_.n_ctx, "{} tokens, n_ctx = {}", n, options_.n_ctx);
  const int64_t n_table = ceil_div(n, kBlockTok);
  for (int g = 0; g < n_group(); ++g) {
    if (pool(g).n_free() < n_table - first_seen(window(g), n) / kBlockTok) return false;
  }
  for (int g = 0; g < n_group(); ++g) {
    std::vector<int32_t>& table = s.tables[static_cast<size_t>(g)];
    int64_t& n_dropped = s.n_dropped[static_cast<size_t>(g)];
    n_dropped = first_seen(window(g), n) / kBlockTok;
    table.assign(static_cast<size_t>(n_dropped), -1);
    while (static_cast<int64_t>(table.size()) < n_table) table.push_back(allocate(g));
  }
  s.tokens.assign(tokens.begin(), tokens.end());
  s.len = n;
  if (options_.prefix_cache) enter(s);
  return true;
}

int64_t KvCache::match_prefix(SeqId seq, std::span<const int32_t> tokens, int64_t limit) {
  Seq& s = at(seq);
  INFER_CHECK(s.len == 0, "sequence {} has {} tokens", seq, s.len);
  cut_tables(s, 0);
  limit = std::min({limit, static_cast<int64_t>(tokens.size()), options_.n_ctx});
  path_.clear();
  if (!options_.prefix_cache) return 0;
  const auto has_all_full = [&](NodeId node) {
    for (int g = 0; g < n_group(); ++g) {
      if (window(g) == 0 && index_.block(node, g) < 0) return false;
    }
    return true;
  };
  NodeId node = kNoNode;
  for (int64_t i = 0; (i + 1) * kBlockTok <= limit; ++i) {
    const auto first = static_cast<size_t>(i * kBlockTok);
    node = index_.find(node, s.adapter, tokens.subspan(first, kBlockTok));
    if (node == kNoNode || !has_all_full(node)) break;
    path_.push_back(node);
  }
  // The longest prefix for which every window group still has what the next row sees.
  const auto window_has = [&](int g, int64_t depth) {
    for (int64_t i = first_seen(window(g), depth * kBlockTok) / kBlockTok; i < depth; ++i) {
      if (index_.block(path_[static_cast<size_t>(i)], g) < 0) return false;
    }
    return true;
  };
  auto depth = static_cast<int64_t>(path_.size());
  for (int g = 0; depth > 0 && g < n_group();) {
    if (window(g) == 0 || window_has(g, depth)) {
      ++g;
    } else {
      --depth;
      g = 0;
    }
  }
  if (depth == 0) return 0;
  for (int g = 0; g < n_group(); ++g) {
    const auto group = static_cast<size_t>(g);
    s.n_dropped[group] = first_seen(window(g), depth * kBlockTok) / kBlockTok;
    for (int64_t i = 0; i < depth; ++i) {
      const bool seen = i >= s.n_dropped[group];
      const int32_t block = seen ? index_.block(path_[static_cast<size_t>(i)], g) : -1;
      if (seen) pool(g).add_ref(block);
      s.tables[group].push_back(block);
    }
  }
  s.len = depth * kBlockTok;
  s.tokens.assign(tokens.begin(), tokens.begin() + s.len);
  s.tail = path_[static_cast<size_t>(depth - 1)];
  s.depth = depth;
  index_.add_ref(s.tail);
  return s.len;
}

}  // namespace infer::runtime
