#include "core/runtime/scheduler.h"

#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infer::runtime {
namespace {

class SchedulerTest : public testing::Test {
 protected:
  void start(int64_t n_block, SchedulerOptions options, bool prefix_cache = false) {
    cache_.emplace(KvCacheOptions{.groups = {{.window = 0, .n_block = n_block}},
                                  .max_seqs = options.max_seqs,
                                  .n_ctx = options.n_ctx,
                                  .prefix_cache = prefix_cache});
    scheduler_.emplace(*cache_, options);
  }

  Sequence& add(uint64_t request, int64_t n_prompt, int32_t first_token = 0) {
    auto s = std::make_unique<Sequence>();
    s->request = request;
    s->tokens.resize(static_cast<size_t>(n_prompt));
    std::iota(s->tokens.begin(), s->tokens.end(), first_token);
    s->n_prompt = n_prompt;
    scheduler_->add(*s);
    all_.push_back(std::move(s));
    return *all_.back();
  }

  /// One step after which every sequence that has all its tokens computed draws one. Rows by
  /// request.
  std::vector<std::pair<uint64_t, int>> step() {
    std::vector<std::pair<uint64_t, int>> rows;
    if (!scheduler_->build(step_)) return rows;
    for (const ScheduledRows& p : scheduler_->scheduled()) {
      rows.emplace_back(p.sequence->request, p.n_row);
      EXPECT_LT(p.row, static_cast<int32_t>(step_.rows.size()));
      EXPECT_EQ(step_.rows[static_cast<size_t>(p.row)].slot, p.begin);
    }
    scheduler_->commit();
    for (const ScheduledRows& p : scheduler_->scheduled()) {
      if (p.begin + p.n_row == static_cast<int64_t>(p.sequence->tokens.size()))
        p.sequence->tokens.push_back(1);
    }
    return rows;
  }

  std::optional<KvCache> cache_;
  std::optional<Scheduler> scheduler_;
  std::vector<std::unique_ptr<Sequence>> all_;
  Step step_;
};

using Rows = std::vector<std::pair<uint64_t, int>>;

TEST_F(SchedulerTest, DecodersHaveOneRowAndPrefillsTheRest) {
  start(100, {.n_batch = 8, .max_seqs = 4, .n_ctx = 200});
  add(1, 3);
  EXPECT_EQ(step(), (Rows{{1, 3}}));
  add(2, 20);
  add(3, 5);
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 7}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 7}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 6}, {3, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 1}, {3, 4}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 1}, {3, 1}}));
  EXPECT_EQ(step_.rows.size(), 3u);
  EXPECT_EQ(step_.n_seq, 3);
}

TEST_F(SchedulerTest, DecodersComeBeforeAnOlderPrefill) {
  start(100, {.n_batch = 4, .max_seqs = 4, .n_ctx = 200});
  Sequence& old = add(1, 3);
  add(2, 1);
  EXPECT_EQ(step(), (Rows{{1, 3}, {2, 1}}));
  old.tokens.resize(40);  // as if it had to be computed anew
  EXPECT_EQ(step(), (Rows{{1, 3}, {2, 1}}));
}

TEST_F(SchedulerTest, WaitsForAPlace) {
  start(100, {.n_batch = 8, .max_seqs = 2, .n_ctx = 200});
  Sequence& first = add(1, 1);
  add(2, 1);
  add(3, 1);
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 1}}));
  EXPECT_EQ(scheduler_->n_waiting(), 1u);
  scheduler_->finish(first);
  EXPECT_EQ(step(), (Rows{{2, 1}, {3, 1}}));
}

TEST_F(SchedulerTest, OutOfBlocksTheYoungestGoesAndComesBackFirst) {
  start(4, {.n_batch = 64, .max_seqs = 3, .n_ctx = 128});
  Sequence& a = add(1, 31);
  Sequence& b = add(2, 31);
  EXPECT_EQ(step(), (Rows{{1, 31}, {2, 31}}));
  add(3, 1);  // no room: each of the two keeps one block to grow into
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 1}}));  // four blocks are in use
  for (int i = 0; i < 31; ++i) EXPECT_EQ(step(), (Rows{{1, 1}, {2, 1}}));
  EXPECT_EQ(scheduler_->n_preempted(), 0);
  EXPECT_EQ(step(), (Rows{{1, 1}}));
  EXPECT_EQ(scheduler_->n_preempted(), 1);
  EXPECT_EQ(b.state, Sequence::State::kWaiting);
  EXPECT_EQ(b.tokens.size(), 65u);
  EXPECT_EQ(cache_->n_free(0), 1);
  scheduler_->finish(a);
  EXPECT_EQ(step(), (Rows{{2, 64}}));  // before request 3, computed from all its tokens
  EXPECT_EQ(step(), (Rows{{2, 1}}));
  scheduler_->finish(b);
  EXPECT_EQ(step(), (Rows{{3, 1}}));
}

TEST_F(SchedulerTest, AnOlderPrefillTakesBlocksFromAYoungerDecoder) {
  start(4, {.n_batch = 32, .max_seqs = 2, .n_ctx = 128});
  Sequence& old = add(1, 32);
  step();
  Sequence& young = add(2, 1);
  step();
  ASSERT_EQ(young.state, Sequence::State::kRunning);
  old.tokens.resize(128);
  while (cache_->len(old.kv) < 127) ASSERT_FALSE(step().empty());
  EXPECT_EQ(young.state, Sequence::State::kWaiting);
  EXPECT_EQ(scheduler_->n_preempted(), 1);
}

TEST_F(SchedulerTest, WantsOnlyTheLogitsThatAreUsed) {
  start(8, {.n_batch = 4, .max_seqs = 1, .n_ctx = 64});
  Sequence& s = add(1, 6);
  s.want_rows = {1, 3};
  const auto wanted = [&] {
    std::vector<int32_t> slots;
    for (const Row& row : step_.rows) {
      if (row.want == Want::kLogits) slots.push_back(row.slot);
    }
    return slots;
  };
  step();
  EXPECT_THAT(wanted(), testing::ElementsAre(1, 3));
  step();
  EXPECT_THAT(wanted(), testing::ElementsAre(5));
  EXPECT_EQ(s.n_delivered, 6);
}

TEST_F(SchedulerTest, AsksForTheBestLogitsWhereTheyWillDo) {
  start(8, {.n_batch = 4, .max_seqs = 1, .n_ctx = 64});
  Sequence& s = add(1, 6);
  s.want_rows = {1};
  s.n_top = 7;
  step();
  EXPECT_EQ(step_.rows[0].want, Want::kNone);
  EXPECT_EQ(step_.rows[1].want, Want::kLogits);
  step();
  EXPECT_EQ(step_.rows[0].want, Want::kNone);
  EXPECT_EQ(step_.rows[0].n_top, 0);
  EXPECT_EQ(step_.rows[1].want, Want::kTop);
  EXPECT_EQ(step_.rows[1].n_top, 7);
  s.n_top = 0;
  step();
  EXPECT_EQ(step_.rows[0].want, Want::kTop);
  EXPECT_EQ(step_.rows[0].n_top, 0);
  s.n_prompt = 8;  // the last row is wanted for itself
  s.want_rows = {7};
  step();
  EXPECT_EQ(step_.rows[0].want, Want::kLogits);
}

TEST_F(SchedulerTest, PrefixIsNotComputedAgainUnlessItsLogitsAreWanted) {
  start(16, {.n_batch = 128, .max_seqs = 1, .n_ctx = 256}, /*prefix_cache=*/true);
  scheduler_->finish((step(), add(1, 100)));
  Sequence& a = add(2, 100);
  EXPECT_EQ(step(), (Rows{{2, 100}}));
  scheduler_->finish(a);
  Sequence& b = add(3, 100);
  EXPECT_EQ(step(), (Rows{{3, 4}}));
  EXPECT_EQ(b.n_matched, 96);
  scheduler_->finish(b);
  Sequence& c = add(4, 100);
  c.want_rows = {70};
  EXPECT_EQ(step(), (Rows{{4, 36}}));
  scheduler_->finish(c);
  Sequence& d = add(5, 96);
  EXPECT_EQ(step(), (Rows{{5, 32}}));  // one token at least is computed
  scheduler_->finish(d);
  Sequence& e = add(6, 100);
  e.want_from = 0;
  EXPECT_EQ(step(), (Rows{{6, 100}}));
  scheduler_->finish(e);
  EXPECT_EQ(cache_->n_free(0), 16);
}

TEST_F(SchedulerTest, AForkIsAsOldAsItsRequest) {
  start(16, {.n_batch = 64, .max_seqs = 3, .n_ctx = 256});
  Sequence& parent = add(1, 40);
  add(2, 4);
  step();
  Sequence child;
  child.request = child.sample = 1;
  child.tokens = parent.tokens;
  child.n_prompt = 40;
  scheduler_->fork(parent, child);
  EXPECT_EQ(step(), (Rows{{1, 1}, {1, 1}, {2, 1}}));
  scheduler_->finish(child);
}

TEST_F(SchedulerTest, ForksShareThePromptAndWaitWhenThereIsNoPlace) {
  start(16, {.n_batch = 64, .max_seqs = 2, .n_ctx = 256});
  Sequence& parent = add(1, 40);
  step();
  EXPECT_EQ(cache_->n_free(0), 14);
  Sequence child, waiting;
  for (Sequence* s : {&child, &waiting}) {
    s->request = 1;
    s->sample = s == &child ? 1 : 2;
    s->tokens = parent.tokens;
    s->n_prompt = 40;
    scheduler_->fork(parent, *s);
  }
  EXPECT_EQ(child.state, Sequence::State::kRunning);
  EXPECT_EQ(waiting.state, Sequence::State::kWaiting);
  EXPECT_EQ(step(), (Rows{{1, 1}, {1, 1}}));
  EXPECT_EQ(step_.copies.size(), 1u);
  EXPECT_EQ(cache_->n_free(0), 13);
  scheduler_->finish(parent);
  EXPECT_EQ(step(), (Rows{{1, 1}, {1, 41}}));
  scheduler_->finish(child);
  scheduler_->finish(waiting);
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(cache_->n_free(0), 16);
}

}  // namespace
}  // namespace infer::runtime
