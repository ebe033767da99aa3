#include "core/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/engine_oracle.h"
#include "tests/support/fake_executor.h"

namespace infer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using test::FakeEngine;
using test::FakeModelOptions;
using testing::HasSubstr;

FakeModelOptions small_model() {
  FakeModelOptions model;
  model.groups = {{.window = 0, .n_block = 12}, {.window = 40, .n_block = 12}};
  return model;
}

EngineOptions small_options(bool manual = true) {
  EngineOptions o;
  o.n_ctx = 128;
  o.n_batch = 16;
  o.max_seqs = 3;
  o.manual = manual;
  return o;
}

Request make_request(int64_t n_prompt, int64_t max_tokens, TokenId first = 7) {
  Request r;
  for (int64_t i = 0; i < n_prompt; ++i)
    r.prompt.push_back(static_cast<TokenId>(2 + (first + i * 3) % 38));
  r.max_tokens = max_tokens;
  r.sampling.temp = 0.0f;
  r.ignore_eos = true;
  return r;
}

void expect_all_free(const Engine& engine) {
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
}

std::string refusal(Engine& engine, Request request) {
  const Result<RequestId> id = engine.submit(std::move(request));
  if (id.ok()) return "accepted";
  EXPECT_EQ(id.error().code, ErrorCode::kInvalidArgument);
  return id.error().message;
}

TEST(Engine, RefusesWhatCanNeverFitAndSaysWhy) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Engine& e = *fake.engine;
  EXPECT_THAT(refusal(e, make_request(0, 5)), HasSubstr("prompt is empty"));
  EXPECT_THAT(refusal(e, make_request(128, 1)),
              HasSubstr("prompt of 128 tokens needs a context of 129"));
  EXPECT_EQ(refusal(e, make_request(128, 0)), "accepted");
  EXPECT_EQ(refusal(e, make_request(127, 1)), "accepted");
  const auto with = [&](auto change) {
    Request r = make_request(4, 4);
    change(r);
    return refusal(e, std::move(r));
  };
  EXPECT_THAT(with([](Request& r) { r.prompt[2] = 40; }), HasSubstr("prompt[2] = 40"));
  EXPECT_THAT(with([](Request& r) { r.prompt[0] = -1; }), HasSubstr("prompt[0] = -1"));
  EXPECT_THAT(with([](Request& r) { r.max_tokens = -2; }), HasSubstr("max_tokens = -2"));
  EXPECT_THAT(with([](Request& r) { r.sampling.top_p = -1; }), HasSubstr("top_p"));
  EXPECT_THAT(with([](Request& r) { r.stop = {"a", ""}; }), HasSubstr("stop[1]"));
  EXPECT_THAT(with([](Request& r) { r.n_samples = 0; }), HasSubstr("n_samples = 0"));
  EXPECT_THAT(with([](Request& r) { r.n_logprobs = 41; }), HasSubstr("n_logprobs = 41"));
  EXPECT_THAT(with([](Request& r) { r.n_prompt_logprobs = -1; }),
              HasSubstr("n_prompt_logprobs = -1"));
  EXPECT_THAT(with([](Request& r) { r.targets = {{4, 1}}; }), HasSubstr("targets[0].pos = 4"));
  EXPECT_THAT(with([](Request& r) {
                r.targets = {{3, 1}, {2, 1}};
              }),
              HasSubstr("targets[1].pos = 2"));
  EXPECT_THAT(with([](Request& r) { r.targets = {{0, 40}}; }), HasSubstr("targets[0].token = 40"));
  EXPECT_THAT(with([](Request& r) { r.logits_from = 5; }), HasSubstr("logits_from = 5"));
  EXPECT_THAT(with([](Request& r) { r.branches = {{1}}; }), HasSubstr("need max_tokens = 0"));
  const auto branch = [&](std::vector<TokenId> ids) {
    return with([&](Request& r) { r.max_tokens = 0, r.branches = {{1}, ids}; });
  };
  EXPECT_THAT(branch({}), HasSubstr("branches[1] is empty"));
  EXPECT_THAT(branch({1, 40}), HasSubstr("branches[1] has 40"));
  EXPECT_THAT(branch(std::vector<TokenId>(126, 1)), HasSubstr("branches[1] need a context of 129"));
  EXPECT_EQ(branch(std::vector<TokenId>(125, 1)), "accepted");
}

TEST(Engine, APoolSmallerThanTheContextShortensTheContext) {
  FakeModelOptions model = small_model();
  model.groups = {{.window = 0, .n_block = 2}};
  FakeEngine fake = test::make_fake_engine(model, small_options());
  EXPECT_EQ(fake.engine->n_ctx(), 64);
  EXPECT_THAT(refusal(*fake.engine, make_request(64, 1)), HasSubstr("65"));
  const Result<Response> got = fake.engine->generate(make_request(60, -1));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->samples[0].ids.size(), 4u);
  EXPECT_EQ(got->samples[0].stop_reason, StopReason::kLength);
}

TEST(Engine, AWindowPoolTooSmallForOneSequenceIsAnError) {
  internal::EngineParts parts;
  parts.vocabulary = std::make_unique<test::FakeVocabulary>(8, std::vector<TokenId>{});
  parts.groups = {{.window = 100, .n_block = 3}};
  EngineOptions options = small_options();
  const auto engine = internal::create_with(std::move(parts), options);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(engine.error().message, HasSubstr("has 3 blocks, one sequence needs 4"));
}

TEST(Engine, ZeroTokensEvaluateThePromptOnly) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Request r = make_request(70, 0);
  r.targets = {{0, 5}, {0, 6}, {69, 7}};
  const Result<Response> got = fake.engine->generate(r);
  ASSERT_TRUE(got.ok());
  EXPECT_TRUE(got->samples[0].ids.empty());
  EXPECT_EQ(got->samples[0].stop_reason, StopReason::kLength);
  ASSERT_EQ(got->target_logprobs.size(), 3u);
  EXPECT_EQ(fake.engine->stats().n_row, 70);
  expect_all_free(*fake.engine);
}

TEST(Engine, SecondPromptReusesThePrefixAndSaysSo) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  const Request r = make_request(100, 5);
  const Result<Response> first = fake.engine->generate(r);
  const Result<Response> second = fake.engine->generate(r);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->timings.cached_tok, 0);
  EXPECT_EQ(second->timings.cached_tok, 96);
  EXPECT_EQ(second->timings.prompt_tok, 100);
  EXPECT_EQ(second->timings.predicted_tok, 5);
  EXPECT_EQ(first->samples[0].ids, second->samples[0].ids);
  EXPECT_EQ(fake.executor->violation(), "");
}

TEST(Engine, SamplesShareThePromptAndDifferBySeed) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Request r = make_request(40, 10);
  r.n_samples = 3;
  r.sampling = {.temp = 1.0f, .seed = 100};
  const Result<Response> got = fake.engine->generate(r);
  ASSERT_TRUE(got.ok());
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(got->samples[static_cast<size_t>(i)].ids,
              test::expected_sample(small_model(), r, i, 128).completion.ids);
  EXPECT_NE(got->samples[0].ids, got->samples[1].ids);
  EXPECT_EQ(fake.engine->stats().n_row, 40 + 3 * 9);  // the prompt once
  EXPECT_EQ(fake.executor->n_copies_seen(), 2 * 2);   // two copies in each of two groups
  EXPECT_EQ(fake.executor->violation(), "");
  expect_all_free(*fake.engine);
}

/// log p of the tokens of `branch` behind `prompt`, as a request of their own has them.
std::vector<float> behind(Engine& engine, const std::vector<TokenId>& prompt,
                          const std::vector<TokenId>& branch) {
  Request r;
  r.prompt = prompt;
  r.max_tokens = 0;
  for (size_t i = 0; i < branch.size(); ++i) {
    r.targets.push_back({static_cast<int32_t>(prompt.size() + i - 1), branch[i]});
    if (i + 1 < branch.size()) r.prompt.push_back(branch[i]);
  }
  const Result<Response> got = engine.generate(std::move(r));
  EXPECT_TRUE(got.ok());
  return got.ok() ? got->target_logprobs : std::vector<float>();
}

TEST(Engine, BranchesAreWhatRequestsOfTheirOwnAre) {
  FakeModelOptions tight = small_model();
  tight.groups = {{.window = 0, .n_block = 5}, {.window = 40, .n_block = 5}};
  FakeEngine alone = test::make_fake_engine(small_model(), small_options());
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request r = make_request(31 + i, 0, static_cast<TokenId>(5 + i));
    for (int b = 0; b < 4; ++b) {
      r.branches.emplace_back();
      for (int k = 0; k <= (i + b) % 3 * 20; ++k)
        r.branches.back().push_back((7 * i + 3 * b + 5 * k) % 40);
    }
    requests.push_back(std::move(r));
  }
  for (const auto& [n_batch, max_seqs] : {std::pair{1, 1}, {16, 3}, {64, 8}, {128, 32}}) {
    for (const FakeModelOptions& model : {small_model(), tight}) {
      EngineOptions options = small_options();
      options.n_batch = n_batch;
      options.max_seqs = max_seqs;
      FakeEngine fake = test::make_fake_engine(model, options);
      std::vector<RequestId> ids;
      for (const Request& r : requests) ids.push_back(*fake.engine->submit(r));
      for (size_t i = 0; i < ids.size(); ++i) {
        const Result<Response> got = fake.engine->wait(ids[i]);
        ASSERT_TRUE(got.ok()) << got.error().message;
        const Request& r = requests[i];
        ASSERT_EQ(got->branch_logprobs.size(), r.branches.size());
        EXPECT_EQ(got->samples.size(), 1u);
        for (size_t b = 0; b < r.branches.size(); ++b) {
          EXPECT_EQ(got->branch_logprobs[b], behind(*alone.engine, r.prompt, r.branches[b]))
              << "request " << i << " branch " << b << " max_seqs " << max_seqs;
        }
      }
      EXPECT_EQ(fake.executor->violation(), "");
      expect_all_free(*fake.engine);
    }
  }
}

TEST(Engine, BranchesShareTheirPrompt) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Request r = make_request(40, 0);
  r.branches = {{1, 2, 3}, {4}, {1, 2}};
  ASSERT_TRUE(fake.engine->generate(r).ok());
  EXPECT_EQ(fake.engine->stats().n_row, 40 + 2 + 0 + 1);  // the last of each is only predicted
}

/// Mirostat's state, penalties and DRY follow the tokens of a sequence: neither its company nor
/// preemption changes what it draws.
TEST(Engine, SamplersWithHistoryDoNotDependOnBatchOrPreemption) {
  FakeModelOptions tight = small_model();
  tight.groups = {{.window = 0, .n_block = 5}, {.window = 40, .n_block = 5}};
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request r = make_request(20 + i, 90 - i, static_cast<TokenId>(7 + i % 2));
    r.n_samples = 1 + i % 2;
    r.sampling = {.temp = 1.2f, .top_k = 0, .seed = static_cast<uint64_t>(i)};
    r.sampling.penalty_repeat = 1.2f;
    r.sampling.penalty_freq = 0.3f;
    r.sampling.dry_multiplier = 1.0f;
    r.sampling.dry_breakers = {"ab", "f"};
    if (i % 3 != 2) r.sampling.mirostat = 2, r.sampling.mirostat_tau = 2.0f;
    requests.push_back(std::move(r));
  }
  for (const auto& [n_batch, max_seqs] : {std::pair{1, 1}, {16, 3}, {64, 8}}) {
    EngineOptions options = small_options();
    options.n_batch = n_batch;
    options.max_seqs = max_seqs;
    FakeEngine fake = test::make_fake_engine(tight, options);
    std::vector<RequestId> ids;
    for (const Request& r : requests) ids.push_back(*fake.engine->submit(r));
    for (size_t i = 0; i < ids.size(); ++i) {
      const Result<Response> got = fake.engine->wait(ids[i]);
      ASSERT_TRUE(got.ok()) << got.error().message;
      for (int s = 0; s < requests[i].n_samples; ++s)
        EXPECT_EQ(got->samples[static_cast<size_t>(s)].ids,
                  test::expected_sample(tight, requests[i], s, 128).completion.ids)
            << "request " << i << " sample " << s << " max_seqs " << max_seqs;
    }
    EXPECT_EQ(fake.executor->violation(), "");
    if (max_seqs > 1) {
      EXPECT_GT(fake.engine->stats().n_preempted, 0);
    }
  }
}

/// What a backend hands over does not change a token nor a log-probability, and decoding asks for
/// whole rows only where somebody looks at them.
TEST(Engine, AsksForTheBestLogitsOnlyWhereTheyWillDo) {
  struct Want {
    void (*change)(Request&);
    bool whole;
  };
  for (const Want& want :
       {Want{[](Request& r) { r.sampling.temp = 0.0f; }, false},
        Want{[](Request& r) { r.ignore_eos = false; }, false},
        Want{[](Request& r) { r.sampling.top_k = 5; }, false},
        Want{[](Request& r) { r.n_logprobs = 3, r.sampling.temp = 0.0f; }, false},
        Want{[](Request& r) { r.n_logprobs = 40, r.sampling.xtc_probability = 0.5f; }, false},
        Want{[](Request& r) { r.n_samples = 3; }, false},
        Want{[](Request& r) { r.sampling.top_k = 0; }, true},
        Want{[](Request& r) { r.sampling.penalty_repeat = 1.2f; }, true},
        Want{[](Request& r) {
               r.sampling.logit_bias = {{9, 0.5f}};
             },
             true}}) {
    Request r = make_request(20, 40);
    r.sampling.temp = 0.9f;
    r.sampling.top_k = 10;
    want.change(r);
    std::vector<Response> got;
    for (const bool whole_rows : {true, false}) {
      FakeModelOptions model = small_model();
      model.whole_rows = whole_rows;
      FakeEngine fake = test::make_fake_engine(model, small_options());
      got.push_back(*fake.engine->generate(r));
      EXPECT_EQ(fake.executor->violation(), "");
      EXPECT_EQ(fake.executor->n_whole_rows() > 0, want.whole);
      EXPECT_EQ(fake.executor->n_top_rows() > 0, !want.whole);
    }
    ASSERT_EQ(got[0].samples.size(), got[1].samples.size());
    for (size_t i = 0; i < got[0].samples.size(); ++i) {
      EXPECT_EQ(got[0].samples[i].ids, got[1].samples[i].ids);
      const auto& a = got[0].samples[i].logprobs;
      const auto& b = got[1].samples[i].logprobs;
      ASSERT_EQ(a.size(), b.size());
      for (size_t t = 0; t < a.size(); ++t) {
        ASSERT_EQ(a[t].size(), b[t].size());
        for (size_t k = 0; k < a[t].size(); ++k) {
          EXPECT_EQ(a[t][k].id, b[t][k].id);
          EXPECT_EQ(a[t][k].logprob, b[t][k].logprob);
        }
      }
    }
  }
}

TEST(Engine, TheLastPromptRowIsWholeWhereItIsLookedAt) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Request r = make_request(20, 5);
  r.targets = {{19, 4}};
  ASSERT_TRUE(fake.engine->generate(r).ok());
  EXPECT_EQ(fake.executor->n_whole_rows(), 1);
  EXPECT_EQ(fake.executor->n_top_rows(), 4);
}

TEST(Engine, ABiasOutsideTheVocabularyIsRefused) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Request r = make_request(4, 4);
  r.sampling.logit_bias = {{40, 1.0f}};
  EXPECT_THAT(refusal(*fake.engine, r), HasSubstr("token 40 is not in a vocabulary of 40"));
}

TEST(Engine, CancelEndsWithWhatIsThere) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Engine& e = *fake.engine;
  const Request r = make_request(10, 50);
  const RequestId running = *e.submit(r), waiting = *e.submit(r);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(e.run_step().ok());
  e.cancel(running);
  e.cancel(waiting);
  e.cancel(12345);
  const Result<Response> got = e.wait(running);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->samples[0].stop_reason, StopReason::kCancelled);
  EXPECT_EQ(got->samples[0].ids.size(), 5u);
  ASSERT_TRUE(e.wait(waiting).ok());
  EXPECT_EQ(e.wait(waiting).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(e.wait(777).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(*e.run_step());
  expect_all_free(e);
}

TEST(Engine, APastDeadlineEndsBeforeAnyWork) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options());
  Request r = make_request(10, 50);
  r.deadline = steady_clock::now() - milliseconds(1);
  const Result<Response> got = fake.engine->generate(r);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->samples[0].stop_reason, StopReason::kDeadline);
  EXPECT_EQ(fake.engine->stats().n_row, 0);
}

TEST(Engine, AFailedStepFailsItsRequestsOnly) {
  FakeModelOptions model = small_model();
  model.poison = 33;
  FakeEngine fake = test::make_fake_engine(model, small_options());
  Engine& e = *fake.engine;
  Request bad = make_request(20, 5);
  std::ranges::replace(bad.prompt, 33, 34);
  bad.prompt[18] = 33;  // not in the first chunk
  bool heard = false;
  bad.on_event = [&](const Event& event) {
    EXPECT_EQ(event.stop_reason, StopReason::kError);
    heard = event.error != nullptr && event.error->code == ErrorCode::kNumeric;
  };
  const RequestId failing = *e.submit(bad);
  ASSERT_TRUE(*e.run_step());
  EXPECT_LT(e.stats().blocks_free[0], e.stats().blocks_total[0]);
  const Result<Response> got = e.wait(failing);
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, ErrorCode::kNumeric);
  EXPECT_THAT(got.error().message, HasSubstr("blk.0.attn"));
  EXPECT_TRUE(heard);
  expect_all_free(e);
  Request good = make_request(20, 3, 8);
  std::erase(good.prompt, 33);
  EXPECT_TRUE(e.generate(good).ok());
  expect_all_free(e);
}

TEST(Engine, StopStringIsWithheldAndItsTokensAreLeftOut) {
  const FakeModelOptions model = small_model();
  const Request plain = make_request(12, 30);
  FakeEngine fake = test::make_fake_engine(model, small_options());
  const Result<Response> all = fake.engine->generate(plain);
  ASSERT_TRUE(all.ok());
  const std::string& text = all->samples[0].text;
  ASSERT_GT(text.size(), 20u);
  Request r = plain;
  r.stop = {text.substr(10, 3)};
  const size_t at = text.find(r.stop[0]);
  std::string streamed;
  r.on_event = [&](const Event& e) { streamed += e.text; };
  const Result<Response> got = fake.engine->generate(r);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->samples[0].stop_reason, StopReason::kStop);
  EXPECT_EQ(got->samples[0].text, text.substr(0, at));
  EXPECT_EQ(streamed, text.substr(0, at));
  EXPECT_LE(test::fake_text(model, got->samples[0].ids).size(), at + 1);  // may cut the last token
}

TEST(Engine, RunStepIsForManualModeOnly) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options(/*manual=*/false));
  EXPECT_FALSE(fake.engine->run_step().ok());
  EXPECT_TRUE(fake.engine->generate(make_request(5, 5)).ok());
}

TEST(Engine, NamesOfStopReasons) {
  EXPECT_EQ(name_of(StopReason::kEos), "eos");
  EXPECT_EQ(name_of(StopReason::kStop), "stop");
  EXPECT_EQ(name_of(StopReason::kLength), "length");
  EXPECT_EQ(name_of(StopReason::kCancelled), "cancelled");
}

TEST(Engine, DestructionEndsOpenRequests) {
  for (bool manual : {false, true}) {
    std::atomic<int> n_done = 0;
    {
      FakeEngine fake = test::make_fake_engine(small_model(), small_options(manual));
      Request r = make_request(10, -1);
      r.on_event = [&](const Event& e) { n_done += e.kind == Event::Kind::kDone; };
      for (int i = 0; i < 6; ++i) ASSERT_TRUE(fake.engine->submit(r).ok());
      if (manual) {
        ASSERT_TRUE(fake.engine->run_step().ok());
      }
    }
    EXPECT_EQ(n_done, 6);
  }
}

TEST(Engine, CallbacksMayCancelAndSubmit) {
  FakeEngine fake = test::make_fake_engine(small_model(), small_options(/*manual=*/false));
  Engine& e = *fake.engine;
  std::atomic<RequestId> second = 0;
  Request r = make_request(10, -1);
  r.on_event = [&](const Event& event) {
    if (event.kind != Event::Kind::kToken || second != 0) return;
    second = *e.submit(make_request(4, 4));
    e.cancel(event.request);
  };
  const Result<Response> got = e.generate(r);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->samples[0].stop_reason, StopReason::kCancelled);
  const Result<Response> other = e.wait(second);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->samples[0].ids.size(), 4u);
}

TEST(EngineThreads, ManyThreadsSubmitCancelAndWait) {
  const FakeModelOptions model = small_model();
  FakeEngine fake = test::make_fake_engine(model, small_options(/*manual=*/false));
  Engine& e = *fake.engine;
  std::mutex mutex;
  std::vector<RequestId> open;
  std::atomic<int> n_complete = 0, n_cancelled = 0;
  const auto client = [&](uint32_t seed) {
    std::mt19937 rng(seed);
    for (int i = 0; i < 40; ++i) {
      Request r = make_request(1 + rng() % 60, 1 + rng() % 30, static_cast<TokenId>(rng() % 3));
      r.n_samples = 1 + static_cast<int>(rng() % 2);
      const RequestId id = *e.submit(r);
      {
        const std::lock_guard lock(mutex);
        open.push_back(id);
        if (rng() % 3 == 0) e.cancel(open[rng() % open.size()]);
      }
      static_cast<void>(e.stats());
      const Result<Response> got = e.wait(id);
      ASSERT_TRUE(got.ok()) << got.error().message;
      for (int s = 0; s < r.n_samples; ++s) {
        const Completion& c = got->samples[static_cast<size_t>(s)];
        if (c.stop_reason == StopReason::kCancelled) {
          ++n_cancelled;
          continue;
        }
        ++n_complete;
        EXPECT_EQ(c.ids, test::expected_sample(model, r, s, 128).completion.ids);
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) threads.emplace_back(client, t);
  for (std::thread& t : threads) t.join();
  EXPECT_GT(n_complete, 60);
  EXPECT_EQ(fake.executor->violation(), "");
  expect_all_free(e);
}

}  // namespace
}  // namespace infer
