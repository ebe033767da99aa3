#include "core/runtime/kv_cache.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/checked.h"

namespace infer::runtime {
namespace {

std::vector<int32_t> count_up(int64_t n, int32_t from = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

/// A cache with one full group of n_block, and one of a window if asked for.
KvCache make_cache(int64_t n_block, int64_t window = 0, int max_seqs = 4, int64_t n_ctx = 1024) {
  KvCacheOptions options{
      .groups = {{.window = 0, .n_block = n_block}}, .max_seqs = max_seqs, .n_ctx = n_ctx};
  if (window > 0) options.groups.push_back({.window = window, .n_block = n_block});
  return KvCache(options);
}

void feed(KvCache& cache, SeqId seq, const std::vector<int32_t>& tokens) {
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(cache.reserve(seq, static_cast<int64_t>(tokens.size()), copies));
  ASSERT_TRUE(copies.empty());
  cache.commit(seq, tokens);
}

TEST(KvCache, ReserveIsAllOrNothing) {
  KvCache cache = make_cache(3);
  const SeqId seq = cache.create();
  std::vector<BlockCopy> copies;
  EXPECT_FALSE(cache.reserve(seq, 3 * kBlockTok + 1, copies));
  EXPECT_EQ(cache.n_free(0), 3);
  EXPECT_TRUE(cache.table(seq, 0).empty());
  EXPECT_EQ(cache.max_reservable(seq, 1000), 3 * kBlockTok);
  EXPECT_TRUE(cache.reserve(seq, 3 * kBlockTok, copies));
  EXPECT_EQ(cache.n_free(0), 0);
  cache.release(seq);
  EXPECT_EQ(cache.n_free(0), 3);
}

TEST(KvCache, SequencesRunOutOfPlaces) {
  KvCache cache = make_cache(8, 0, /*max_seqs=*/2);
  const SeqId a = cache.create();
  const SeqId b = cache.create();
  EXPECT_NE(a, b);
  EXPECT_EQ(cache.create(), kNoSeq);
  EXPECT_EQ(cache.fork(a), kNoSeq);
  cache.release(a);
  EXPECT_NE(cache.create(), kNoSeq);
}

TEST(KvCache, ForkSharesAndTheFirstWriterCopies) {
  KvCache cache = make_cache(8);
  const SeqId a = cache.create();
  feed(cache, a, count_up(40));
  const SeqId b = cache.fork(a);
  EXPECT_EQ(cache.len(b), 40);
  EXPECT_EQ(cache.n_free(0), 6);
  const int32_t full = cache.table(a, 0)[0], partial = cache.table(a, 0)[1];
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(cache.reserve(a, 1, copies));
  ASSERT_EQ(copies.size(), 1u);
  EXPECT_EQ(copies[0].src, partial);
  EXPECT_EQ(copies[0].dst, cache.table(a, 0)[1]);
  EXPECT_NE(copies[0].dst, partial);
  copies.clear();
  ASSERT_TRUE(cache.reserve(b, 1, copies));  // now alone with the old block
  EXPECT_TRUE(copies.empty());
  EXPECT_EQ(cache.table(b, 0)[1], partial);
  EXPECT_EQ(cache.table(a, 0)[0], full);
  EXPECT_EQ(cache.table(b, 0)[0], full);
  cache.release(a);
  cache.release(b);
  EXPECT_EQ(cache.n_free(0), 8);
}

TEST(KvCache, CopyOnWriteNeedsABlock) {
  KvCache cache = make_cache(2);
  const SeqId a = cache.create();
  feed(cache, a, count_up(40));
  const SeqId b = cache.fork(a);
  std::vector<BlockCopy> copies;
  EXPECT_EQ(cache.max_reservable(a, 1), 0);
  EXPECT_FALSE(cache.reserve(a, 1, copies));
  EXPECT_TRUE(copies.empty());
  cache.release(b);
  EXPECT_TRUE(cache.reserve(a, 1, copies));
  EXPECT_TRUE(copies.empty());
}

TEST(KvCache, WindowDropsBlocksThatNoLaterRowSees) {
  KvCache cache = make_cache(16, /*window=*/34);
  const SeqId seq = cache.create();
  feed(cache, seq, count_up(64));
  EXPECT_THAT(cache.table(seq, 1), testing::Each(testing::Ge(0)));  // slot 64 sees 31..64
  feed(cache, seq, {7});
  EXPECT_EQ(cache.table(seq, 1)[0], -1);  // slot 65 sees 32..65
  EXPECT_GE(cache.table(seq, 1)[1], 0);
  EXPECT_EQ(cache.n_held(seq, 1), 2);
  EXPECT_EQ(cache.n_free(1), 14);
  EXPECT_EQ(cache.n_free(0), 13);
}

TEST(KvCache, TruncateKeepsWhatItCan) {
  KvCache cache = make_cache(16, /*window=*/34);
  const SeqId seq = cache.create();
  feed(cache, seq, count_up(100));
  EXPECT_EQ(cache.truncate(seq, 98), 98);  // sees 65..
  EXPECT_EQ(cache.len(seq), 98);
  EXPECT_EQ(cache.truncate(seq, 97), 97);  // sees 64..
  EXPECT_EQ(cache.truncate(seq, 96), 0);   // slot 63 slid out
  EXPECT_EQ(cache.n_free(0), 16);
  EXPECT_EQ(cache.n_free(1), 16);
}

TEST(KvCache, PrefixIsFoundAndOneTokenIsLeft) {
  KvCache cache = make_cache(16);
  SeqId seq = cache.create();
  const std::vector<int32_t> tokens = count_up(96);
  feed(cache, seq, tokens);
  cache.release(seq);
  EXPECT_EQ(cache.n_free(0), 16);
  seq = cache.create();
  EXPECT_EQ(cache.match_prefix(seq, tokens, 95), 64);
  EXPECT_EQ(cache.n_free(0), 14);
  EXPECT_EQ(cache.len(seq), 64);
  std::vector<int32_t> other = tokens;
  other[40] = 1;
  SeqId second = cache.create();
  EXPECT_EQ(cache.match_prefix(second, other, 95), 32);  // shares a block in use
  EXPECT_EQ(cache.table(second, 0)[0], cache.table(seq, 0)[0]);
  SeqId adapted = cache.create(/*adapter=*/1);
  EXPECT_EQ(cache.match_prefix(adapted, tokens, 95), 0);
  cache.release(seq);
  cache.release(second);
  seq = cache.create();
  EXPECT_EQ(cache.match_prefix(seq, tokens, 96), 96);
}

TEST(KvCache, RestoreTakesWhatARowBehindSees) {
  KvCache cache = make_cache(5, /*window=*/33);
  const std::vector<int32_t> tokens = count_up(130);
  SeqId seq = cache.create();
  feed(cache, seq, count_up(40, 500));
  ASSERT_TRUE(cache.restore(seq, tokens));
  EXPECT_EQ(cache.len(seq), 130);
  EXPECT_EQ(cache.n_held(seq, 0), 5);
  EXPECT_EQ(cache.n_held(seq, 1), 2);  // slot 130 sees 98..130
  EXPECT_EQ(cache.table(seq, 1)[2], -1);
  EXPECT_EQ(cache.n_free(1), 3);
  const SeqId other = cache.create();
  EXPECT_FALSE(cache.restore(other, count_up(40, 900)));  // no block is left in group 0
  EXPECT_EQ(cache.len(other), 0);
  EXPECT_EQ(cache.n_held(other, 1), 0);
  cache.release(other);
  feed(cache, seq, {1, 2});
  EXPECT_EQ(cache.len(seq), 132);
  cache.release(seq);
  EXPECT_EQ(cache.n_free(0), 5);
  EXPECT_EQ(cache.n_free(1), 5);
  seq = cache.create();  // full blocks serve as a prefix, where the window still has what is seen
  EXPECT_EQ(cache.match_prefix(seq, tokens, 130), 128);
}

TEST(KvCache, SwitchedOffPrefixCacheFindsNothing) {
  KvCache cache(KvCacheOptions{
      .groups = {{.n_block = 8}}, .max_seqs = 1, .n_ctx = 128, .prefix_cache = false});
  SeqId seq = cache.create();
  feed(cache, seq, count_up(64));
  cache.release(seq);
  seq = cache.create();
  EXPECT_EQ(cache.match_prefix(seq, count_up(64), 63), 0);
}

TEST(KvCache, CachedBlocksAreTakenOldestFirstAndFromTheEnd) {
  KvCache cache = make_cache(4);
  const std::vector<int32_t> a = count_up(64), b = count_up(64, 1000);
  for (const auto& tokens : {a, b}) {
    const SeqId seq = cache.create();
    feed(cache, seq, tokens);
    cache.release(seq);
  }
  SeqId seq = cache.create();
  feed(cache, seq, count_up(10, 2000));  // takes the end of a
  const SeqId other = cache.create();
  EXPECT_EQ(cache.match_prefix(other, a, 64), 32);
  cache.release(other);
  feed(cache, seq,
       count_up(60, 3000));  // two more: the end of b, touched less recently, then its beginning
  const SeqId third = cache.create();
  EXPECT_EQ(cache.match_prefix(third, b, 64), 0);
  EXPECT_EQ(cache.match_prefix(third, a, 64), 32);
}

TEST(KvCache, WindowGroupLimitsTheMatch) {
  KvCache cache(
      KvCacheOptions{.groups = {{.window = 0, .n_block = 16}, {.window = 40, .n_block = 3}},
                     .max_seqs = 2,
                     .n_ctx = 512});
  SeqId seq = cache.create();
  const std::vector<int32_t> tokens = count_up(160);
  for (size_t i = 0; i < tokens.size(); i += 16)
    feed(cache, seq,
         {tokens.begin() + static_cast<ptrdiff_t>(i),
          tokens.begin() + static_cast<ptrdiff_t>(i + 16)});
  cache.release(seq);
  seq = cache.create();
  EXPECT_EQ(cache.match_prefix(seq, tokens, 100), 0);  // the window's blocks 0..1 were taken again
  EXPECT_EQ(cache.match_prefix(seq, tokens, 160), 160);
  EXPECT_EQ(cache.table(seq, 1)[2], -1);
  EXPECT_GE(cache.table(seq, 1)[3], 0);
}

TEST(KvCache, WritingIntoACutBlockForgetsItsEntry) {
  KvCache cache = make_cache(8);
  SeqId seq = cache.create();
  const std::vector<int32_t> tokens = count_up(64);
  feed(cache, seq, tokens);
  EXPECT_EQ(cache.truncate(seq, 40), 40);
  feed(cache, seq, count_up(24, 500));
  const SeqId other = cache.create();
  EXPECT_EQ(cache.match_prefix(other, tokens, 64), 32);
  std::vector<int32_t> changed = count_up(40);
  for (int32_t t : count_up(24, 500)) changed.push_back(t);
  cache.release(other);
  const SeqId third = cache.create();
  EXPECT_EQ(cache.match_prefix(third, changed, 64), 64);
}

/// Everything that a random sequence of calls must keep true, against physical blocks that remember
/// who wrote them and a model that has nothing but lists of tokens.
class KvCacheFuzz : public testing::TestWithParam<uint32_t> {
 protected:
  struct Shadow {
    std::vector<int32_t> tokens;
    std::vector<int64_t> dropped;  ///< per group: slots below are gone for good
  };
  /// A slot of a block holds the whole prefix that ends with it, as a number.
  using Pool = std::vector<uint64_t>;

  static uint64_t extend(uint64_t h, int32_t token) {
    return (h ^ static_cast<uint64_t>(token + 1)) * 0x9e3779b97f4a7c15u + 12345;
  }

  void start(uint32_t seed) {
    rng_.seed(seed);
    options_ = {};
    options_.max_seqs = static_cast<int>(pick(1, 6));
    options_.n_ctx = pick(40, 400);
    options_.prefix_cache = pick(0, 3) != 0;
    const int64_t kind = pick(0, 3);
    const int64_t per_seq = ceil_div(options_.n_ctx, kBlockTok);
    if (kind != 1) options_.groups.push_back({.n_block = pick(per_seq, 3 * per_seq)});
    if (kind != 0)
      options_.groups.push_back({.window = pick(1, 120), .n_block = pick(per_seq, 3 * per_seq)});
    if (kind == 3) options_.groups.push_back({.n_block = pick(per_seq, 2 * per_seq)});
    cache_.emplace(options_);
    live_.clear();
    pools_.clear();
    for (const KvGroupConfig& g : options_.groups)
      pools_.emplace_back(static_cast<size_t>(g.n_block * kBlockTok), 0);
  }

  int64_t pick(int64_t lo, int64_t hi) {
    return std::uniform_int_distribution<int64_t>(lo, hi)(rng_);
  }

  /// Prompts come from a few families, so that prefixes meet.
  int32_t next_token(const std::vector<int32_t>& so_far) {
    if (pick(0, 40) == 0) return static_cast<int32_t>(pick(0, 3));
    return static_cast<int32_t>(so_far.size() % 7);
  }

  int64_t first_seen(size_t g, int64_t slot) const {
    const int64_t w = options_.groups[g].window;
    return w == 0 ? 0 : std::max<int64_t>(0, slot - w + 1);
  }

  std::vector<uint64_t> prefixes(const std::vector<int32_t>& tokens) const {
    std::vector<uint64_t> out;
    uint64_t h = 0;
    for (int32_t t : tokens) out.push_back(h = extend(h, t));
    return out;
  }

  void check() {
    for (size_t g = 0; g < pools_.size(); ++g) {
      std::set<int32_t> held;
      for (const auto& [seq, shadow] : live_) {
        const std::span<const int32_t> table = cache_->table(seq, static_cast<int>(g));
        const std::vector<uint64_t> want = prefixes(shadow.tokens);
        const auto len = static_cast<int64_t>(want.size());
        ASSERT_EQ(cache_->len(seq), len);
        const int64_t begin = first_seen(g, len);
        for (size_t b = 0; b < table.size(); ++b) {
          const bool gone = (static_cast<int64_t>(b) + 1) * kBlockTok <= begin;
          ASSERT_EQ(table[b] == -1, gone) << "group " << g << " block " << b << " len " << len;
          if (!gone) held.insert(table[b]);
        }
        for (int64_t s = begin; s < len; ++s) {
          const int32_t block = table[static_cast<size_t>(s / kBlockTok)];
          ASSERT_EQ(pools_[g][static_cast<size_t>(block * kBlockTok + s % kBlockTok)],
                    want[static_cast<size_t>(s)])
              << "group " << g << " slot " << s;
        }
      }
      ASSERT_EQ(cache_->n_free(static_cast<int>(g)),
                options_.groups[g].n_block - static_cast<int64_t>(held.size()));
    }
  }

  bool enough_blocks(SeqId seq, int64_t n) {
    const int64_t len = cache_->len(seq);
    for (size_t g = 0; g < pools_.size(); ++g) {
      const std::span<const int32_t> table = cache_->table(seq, static_cast<int>(g));
      int64_t need = std::max<int64_t>(0, ceil_div(len + n, kBlockTok) - std::ssize(table));
      if (len % kBlockTok != 0) {
        int n_user = 0;
        for (const auto& [other, shadow] : live_) {
          const std::span<const int32_t> t = cache_->table(other, static_cast<int>(g));
          n_user += std::ranges::count(t, table[static_cast<size_t>(len / kBlockTok)]) > 0;
        }
        need += n_user > 1;
      }
      if (need > cache_->n_free(static_cast<int>(g))) return false;
    }
    return true;
  }

  void write(SeqId seq) {
    Shadow& shadow = live_.at(seq);
    const int64_t n = std::min(pick(1, pick(0, 1) ? 3 : 90),
                               options_.n_ctx - static_cast<int64_t>(shadow.tokens.size()));
    if (n <= 0) return;
    const bool enough = enough_blocks(seq, n);
    ASSERT_EQ(cache_->max_reservable(seq, n) == n, enough);
    std::vector<BlockCopy> copies;
    ASSERT_EQ(cache_->reserve(seq, n, copies), enough);
    for (const BlockCopy& c : copies) {
      Pool& pool = pools_[static_cast<size_t>(c.group)];
      std::copy_n(pool.begin() + c.src * kBlockTok, kBlockTok, pool.begin() + c.dst * kBlockTok);
    }
    if (!enough || pick(0, 9) == 0) return;  // a step that failed: reserved slots stay unused
    std::vector<int32_t> added;
    for (int64_t i = 0; i < n; ++i) {
      added.push_back(next_token(shadow.tokens));
      shadow.tokens.push_back(added.back());
    }
    const std::vector<uint64_t> want = prefixes(shadow.tokens);
    const auto len = static_cast<int64_t>(want.size());
    for (size_t g = 0; g < pools_.size(); ++g) {
      for (int64_t s = len - n; s < len; ++s) {
        const int32_t block =
            cache_->table(seq, static_cast<int>(g))[static_cast<size_t>(s / kBlockTok)];
        ASSERT_GE(block, 0);
        pools_[g][static_cast<size_t>(block * kBlockTok + s % kBlockTok)] =
            want[static_cast<size_t>(s)];
      }
    }
    cache_->commit(seq, added);
    for (size_t g = 0; g < pools_.size(); ++g) {
      const int64_t gone = first_seen(g, len) / kBlockTok * kBlockTok;
      shadow.dropped[g] = std::max(shadow.dropped[g], gone);
    }
  }

  void begin_sequence() {
    const SeqId seq = cache_->create();
    ASSERT_EQ(seq == kNoSeq, live_.size() == static_cast<size_t>(options_.max_seqs));
    if (seq == kNoSeq) return;
    Shadow shadow{.tokens = {}, .dropped = std::vector<int64_t>(pools_.size(), 0)};
    std::vector<int32_t> prompt;
    for (int64_t n = pick(0, options_.n_ctx); n > 0; --n) prompt.push_back(next_token(prompt));
    const int64_t limit = pick(0, 3) == 0 ? pick(0, 100) : static_cast<int64_t>(prompt.size()) - 1;
    const int64_t n = cache_->match_prefix(seq, prompt, limit);
    ASSERT_LE(n, std::max<int64_t>(0, limit));
    ASSERT_EQ(n % kBlockTok, 0);
    if (n > 0) ++n_match_;
    ASSERT_TRUE(n == 0 || options_.prefix_cache);
    shadow.tokens.assign(prompt.begin(), prompt.begin() + n);
    for (size_t g = 0; g < pools_.size(); ++g)
      shadow.dropped[g] = first_seen(g, n) / kBlockTok * kBlockTok;
    live_[seq] = shadow;
  }

  void truncate(SeqId seq) {
    Shadow& shadow = live_.at(seq);
    const int64_t n = pick(0, static_cast<int64_t>(shadow.tokens.size()));
    int64_t want = n;
    for (size_t g = 0; g < pools_.size(); ++g) {
      if (first_seen(g, n) < shadow.dropped[g]) want = 0;
    }
    ASSERT_EQ(cache_->truncate(seq, n), want);
    shadow.tokens.resize(static_cast<size_t>(want));
    if (want == 0) std::ranges::fill(shadow.dropped, 0);
  }

  void act() {
    if (live_.empty() || pick(0, 9) == 0) return begin_sequence();
    auto it = live_.begin();
    std::advance(it, pick(0, static_cast<int64_t>(live_.size()) - 1));
    const SeqId seq = it->first;
    const int64_t what = pick(0, 99);
    if (what < 70) return write(seq);
    if (what < 80) {
      const SeqId twin = cache_->fork(seq);
      ASSERT_EQ(twin == kNoSeq, live_.size() == static_cast<size_t>(options_.max_seqs));
      if (twin != kNoSeq) live_[twin] = live_.at(seq);
    } else if (what < 90) {
      truncate(seq);
    } else {
      cache_->release(seq);
      live_.erase(seq);
    }
  }

  std::mt19937 rng_;
  KvCacheOptions options_;
  std::optional<KvCache> cache_;
  std::map<SeqId, Shadow> live_;
  std::vector<Pool> pools_;
  int n_match_ = 0;
};

TEST_P(KvCacheFuzz, AgreesWithListsOfTokens) {
  for (uint32_t round = 0; round < 8; ++round) {
    start(GetParam() * 1000 + round);
    for (int i = 0; i < 250; ++i) {
      act();
      if (!HasFatalFailure()) check();
      ASSERT_FALSE(HasFatalFailure()) << "seed " << GetParam() * 1000 + round << " call " << i;
    }
    for (const auto& [seq, shadow] : live_) cache_->release(seq);
    for (size_t g = 0; g < pools_.size(); ++g)
      EXPECT_EQ(cache_->n_free(static_cast<int>(g)), options_.groups[g].n_block);
  }
  EXPECT_GT(n_match_, 0);
}
INSTANTIATE_TEST_SUITE_P(Seeds, KvCacheFuzz, testing::Range(1u, 9u));

/// As long as nothing is evicted, every full block that was ever there is found again.
TEST(KvCache, FindsTheLongestPrefixThatWasEverComputed) {
  std::mt19937 rng(7);
  KvCache cache = make_cache(4096, /*window=*/50, /*max_seqs=*/1, /*n_ctx=*/320);
  std::set<std::vector<int32_t>> known;
  int n_long = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> tokens(1 + rng() % 319);
    for (size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = rng() % 90 == 0 ? 1 : static_cast<int32_t>(i % 5);
    const SeqId seq = cache.create();
    int64_t want = 0;
    const auto limit = static_cast<int64_t>(tokens.size()) - 1;
    while (want + kBlockTok <= limit &&
           known.contains({tokens.begin(), tokens.begin() + want + kBlockTok}))
      want += kBlockTok;
    ASSERT_EQ(cache.match_prefix(seq, tokens, limit), want) << "round " << round;
    n_long += want >= 3 * kBlockTok;
    feed(cache, seq, {tokens.begin() + want, tokens.end()});
    for (int64_t n = kBlockTok; n <= limit + 1; n += kBlockTok)
      known.insert({tokens.begin(), tokens.begin() + n});
    cache.release(seq);
  }
  EXPECT_GT(n_long, 20);
}

}  // namespace
}  // namespace infer::runtime
