#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/engine_oracle.h"
#include "tests/support/fake_executor.h"

namespace infer {
namespace {

using std::chrono::steady_clock;
using test::ExpectedSample;
using test::FakeEngine;
using test::FakeModelOptions;

constexpr int kEngines = 100, kRequests = 100;  // 10,000 requests

/// What happened over all seeds: a run in which nothing was preempted or shared would prove little.
struct Totals {
  int64_t n_engine = 0, n_preempted = 0, n_copy = 0, n_cached_tok = 0;
  std::map<StopReason, int> reasons;
};

/// What the events of one sample said.
struct Heard {
  std::string text;
  std::vector<TokenId> tokens;
  int n_done = 0;
  StopReason reason = StopReason::kNone;
};

struct Sent {
  Request request;
  bool cancelled = false;
  std::vector<Heard> heard;
  std::vector<std::pair<int32_t, std::vector<float>>> logits;
};

/// Random requests over a random engine, against the same requests computed alone.
class EngineFuzz : public testing::TestWithParam<int> {
 protected:
  static void TearDownTestSuite() {
    if (totals_.n_engine < kEngines) return;  // a part of the seeds only
    EXPECT_GT(totals_.n_preempted, 500);
    EXPECT_GT(totals_.n_copy, 1000);
    EXPECT_GT(totals_.n_cached_tok, 2000);
    for (StopReason r : {StopReason::kEos, StopReason::kStop, StopReason::kLength,
                         StopReason::kCancelled, StopReason::kDeadline})
      EXPECT_GT(totals_.reasons[r], 200) << name_of(r);
  }

  int64_t pick(int64_t lo, int64_t hi) {
    return std::uniform_int_distribution<int64_t>(lo, hi)(rng_);
  }
  bool one_in(int64_t n) { return pick(1, n) == 1; }

  void make_engine() {
    EngineOptions options;
    options.n_ctx = pick(20, 160);
    options.n_batch = one_in(3) ? pick(1, 6) : pick(1, 80);
    options.max_seqs = static_cast<int>(pick(1, 7));
    options.prefix_cache = !one_in(3);
    options.manual = true;
    const int64_t per_seq = (options.n_ctx + runtime::kBlockTok - 1) / runtime::kBlockTok;
    const auto blocks = [&] { return per_seq + (one_in(3) ? 10 : pick(0, 3)); };
    const int64_t kind = pick(0, 4);
    if (kind != 1) model_.groups.push_back({.window = 0, .n_block = blocks()});
    if (kind != 0) model_.groups.push_back({.window = pick(2, 90), .n_block = blocks()});
    if (kind == 4) model_.groups.push_back({.window = 0, .n_block = blocks()});
    model_.tile_rows = static_cast<size_t>(pick(1, 5));
    fake_ = test::make_fake_engine(model_, options);
  }

  std::vector<TokenId> make_prompt() {
    std::vector<TokenId> prompt;
    const int64_t family = pick(0, 2), n_ctx = fake_.engine->n_ctx();
    for (int64_t n = one_in(3) ? pick(1, 8) : pick(1, n_ctx - 1); n > 0; --n) {
      const auto i = static_cast<int64_t>(prompt.size());
      prompt.push_back(static_cast<TokenId>(one_in(50) ? pick(2, 39) : 2 + (i * 5 + family) % 38));
    }
    return prompt;
  }

  /// Whatever depends on the tokens before, which preemption must not change.
  void add_history_samplers(text::SamplingParams& p) {
    if (one_in(2)) p.mirostat = 2, p.mirostat_tau = 2.0f, p.mirostat_eta = 0.3f;
    if (one_in(2)) p.penalty_repeat = 1.3f, p.penalty_freq = 0.2f;
    if (one_in(4)) p.penalty_last_n = one_in(2) ? -1 : 5;
    if (one_in(2)) p.dry_multiplier = 1.5f, p.dry_breakers = {"ab", "f"};
    if (one_in(3)) p.dry_allowed_length = 1, p.dry_penalty_last_n = -1;
    if (one_in(3)) p.xtc_probability = 0.5f;
    if (one_in(4)) p.logit_bias = {{static_cast<TokenId>(pick(2, 39)), -INFINITY}, {7, 2.0f}};
    if (one_in(4)) p.typical_p = 0.9f;
    if (one_in(4)) p.dynatemp_range = 0.5f;
  }

  Request make_request() {
    Request r;
    r.prompt = make_prompt();
    r.max_tokens = one_in(4) ? -1 : one_in(9) ? 0 : pick(1, 30);
    r.sampling.temp = one_in(3) ? 0.0f : 0.9f;
    r.sampling.top_k = static_cast<int32_t>(pick(0, 10));
    r.sampling.seed = static_cast<uint64_t>(pick(0, 1000));
    if (one_in(2)) add_history_samplers(r.sampling);
    r.ignore_eos = one_in(4);
    r.n_samples = one_in(3) ? static_cast<int>(pick(2, 5)) : 1;
    if (one_in(3)) r.stop = {std::string(1, static_cast<char>('a' + pick(0, 25)))};
    if (one_in(4))
      r.stop.push_back(
          {static_cast<char>('a' + pick(0, 25)), static_cast<char>('a' + pick(0, 25))});
    if (one_in(4)) r.n_logprobs = static_cast<int>(pick(1, 40));
    if (one_in(6)) r.n_prompt_logprobs = static_cast<int>(pick(1, 4));
    const auto n_prompt = static_cast<int64_t>(r.prompt.size());
    if (one_in(4)) {
      for (int64_t n = pick(1, 6); n > 0; --n)
        r.targets.push_back({static_cast<int32_t>(pick(0, n_prompt - 1)),
                             static_cast<TokenId>(pick(0, model_.n_vocab - 1))});
      std::ranges::sort(r.targets, {}, &LogprobTarget::pos);
    }
    r.logits_from = static_cast<int32_t>(pick(0, n_prompt));
    if (one_in(8)) r.deadline = steady_clock::now() + std::chrono::microseconds(pick(0, 400));
    return r;
  }

  void send() {
    auto sent = std::make_unique<Sent>();
    sent->request = make_request();
    sent->heard.resize(static_cast<size_t>(sent->request.n_samples));
    Request r = sent->request;
    Sent* s = sent.get();
    r.on_event = [s](const Event& e) {
      Heard& h = s->heard[static_cast<size_t>(e.sample)];
      h.text += e.text;
      if (e.kind == Event::Kind::kToken) h.tokens.push_back(e.token);
      if (e.kind == Event::Kind::kDone) ++h.n_done, h.reason = e.stop_reason;
    };
    if (one_in(5)) {
      r.on_logits = [s](const LogitsRow& row) {
        s->logits.emplace_back(row.pos, std::vector<float>(row.logits.begin(), row.logits.end()));
      };
      sent->request.on_logits = r.on_logits;
    }
    const Result<RequestId> id = fake_.engine->submit(std::move(r));
    ASSERT_TRUE(id.ok()) << id.error().message;
    sent_[*id] = std::move(sent);
  }

  void check_sample(const Sent& s, int index, const Completion& got, const ExpectedSample& want) {
    ++totals_.reasons[got.stop_reason];
    const Heard& heard = s.heard[static_cast<size_t>(index)];
    EXPECT_EQ(heard.n_done, 1);
    EXPECT_EQ(heard.reason, got.stop_reason);
    EXPECT_EQ(heard.text, got.text);
    if (got.stop_reason == StopReason::kCancelled || got.stop_reason == StopReason::kDeadline) {
      EXPECT_TRUE(got.stop_reason != StopReason::kCancelled || s.cancelled);
      ASSERT_LE(got.ids.size(), want.drawn.size());
      EXPECT_TRUE(std::equal(got.ids.begin(), got.ids.end(), want.drawn.begin()));
      return;
    }
    ++n_complete_;
    EXPECT_EQ(got.ids, want.completion.ids);
    EXPECT_EQ(heard.tokens, want.drawn);
    EXPECT_EQ(got.text, want.completion.text);
    EXPECT_EQ(got.stop_reason, want.completion.stop_reason);
    ASSERT_EQ(got.logprobs.size(), want.completion.logprobs.size());
    for (size_t i = 0; i < got.logprobs.size(); ++i)
      check_top(got.logprobs[i], want.completion.logprobs[i]);
  }

  static void check_top(const TopLogprobs& got, const TopLogprobs& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].id, want[i].id);
      EXPECT_TRUE(std::abs(got[i].logprob - want[i].logprob) <= 1e-5f);
    }
  }

  void check_prompt_outputs(const Sent& s, const Response& got) {
    const Request& r = s.request;
    if (r.n_prompt_logprobs > 0) {
      ASSERT_EQ(got.prompt_logprobs.size(), r.prompt.size());
      for (size_t i = 0; i < r.prompt.size(); ++i) {
        const auto logprobs = test::expected_logprobs(model_, r.prompt, static_cast<int64_t>(i));
        check_top(got.prompt_logprobs[i], test::expected_top(logprobs, r.n_prompt_logprobs));
      }
    }
    ASSERT_EQ(got.target_logprobs.size(), r.targets.size());
    for (size_t i = 0; i < r.targets.size(); ++i) {
      const double want = test::expected_logprobs(
          model_, r.prompt, r.targets[i].pos)[static_cast<size_t>(r.targets[i].token)];
      EXPECT_TRUE(got.target_logprobs[i] == want ||
                  std::abs(got.target_logprobs[i] - want) <= 1e-5);
    }
    if (!r.on_logits) return;
    ASSERT_EQ(s.logits.size(), r.prompt.size() - static_cast<size_t>(r.logits_from));
    uint64_t prefix = 0;
    size_t row = 0;
    std::vector<float> want(static_cast<size_t>(model_.n_vocab));
    for (int32_t i = 0; i < static_cast<int32_t>(r.prompt.size()); ++i) {
      prefix = test::extend_prefix(prefix, r.prompt[static_cast<size_t>(i)], i);
      if (i < r.logits_from) continue;
      test::fake_logits(prefix, model_.eog, want);
      EXPECT_EQ(s.logits[row].first, i);
      EXPECT_EQ(s.logits[row++].second, want);
    }
  }

  void receive(RequestId id) {
    const Sent& s = *sent_.at(id);
    const Result<Response> got = fake_.engine->wait(id);
    ASSERT_TRUE(got.ok()) << got.error().message;
    ASSERT_EQ(got->samples.size(), s.heard.size());
    totals_.n_cached_tok += got->timings.cached_tok;
    bool complete = true;
    for (int i = 0; i < s.request.n_samples; ++i) {
      const Completion& c = got->samples[static_cast<size_t>(i)];
      check_sample(s, i, c, test::expected_sample(model_, s.request, i, fake_.engine->n_ctx()));
      complete &= c.stop_reason != StopReason::kCancelled && c.stop_reason != StopReason::kDeadline;
    }
    if (complete) check_prompt_outputs(s, *got);
    ASSERT_EQ(fake_.executor->violation(), "");
    ASSERT_FALSE(HasFailure()) << "request " << id;
  }

  static inline Totals totals_;
  std::mt19937 rng_;
  FakeModelOptions model_;
  std::map<RequestId, std::unique_ptr<Sent>>
      sent_;  ///< the callbacks write to it: outlives the engine
  FakeEngine fake_;
  int n_complete_ = 0;
};

TEST_P(EngineFuzz, EqualsRequestsComputedAlone) {
  rng_.seed(static_cast<uint32_t>(GetParam()));
  make_engine();
  Engine& engine = *fake_.engine;
  while (std::ssize(sent_) < kRequests) {
    for (int64_t n = pick(0, 6); n > 0 && std::ssize(sent_) < kRequests; --n) {
      send();
      ASSERT_FALSE(HasFatalFailure());
    }
    for (int64_t n = pick(1, 40); n > 0; --n) ASSERT_TRUE(engine.run_step().ok());
    if (one_in(4) && !sent_.empty()) {
      auto it = std::prev(sent_.end(), std::min<int64_t>(pick(1, 10), std::ssize(sent_)));
      it->second->cancelled = true;
      engine.cancel(it->first);
    }
  }
  for (const auto& [id, sent] : sent_) {
    receive(id);
    ASSERT_FALSE(HasFatalFailure()) << "seed " << GetParam();
  }
  EXPECT_GT(n_complete_, kRequests / 2);
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
  ++totals_.n_engine;
  totals_.n_preempted += stats.n_preempted;
  totals_.n_copy += fake_.executor->n_copies_seen();
}
INSTANTIATE_TEST_SUITE_P(Seeds, EngineFuzz, testing::Range(0, kEngines));

}  // namespace
}  // namespace infer
