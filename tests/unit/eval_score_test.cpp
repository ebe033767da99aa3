#include <cmath>
#include <new>
#include <numeric>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/eval/choice_score.h"
#include "core/eval/perplexity.h"
#include "tests/support/engine_oracle.h"
#include "tests/support/fake_executor.h"

/// Scoring over the fake model, whose log-probabilities are known by definition.
namespace infer::eval {
namespace {

using test::FakeEngine;
using test::FakeModelOptions;
using testing::HasSubstr;

FakeModelOptions small_model() {
  FakeModelOptions model;
  model.groups = {{.window = 0, .n_block = 30}, {.window = 40, .n_block = 30}};
  return model;
}

FakeEngine make_engine(int64_t n_batch, int max_seqs) {
  EngineOptions o;
  o.n_ctx = 128;
  o.n_batch = n_batch;
  o.max_seqs = max_seqs;
  o.manual = true;
  return test::make_fake_engine(small_model(), o);
}

std::vector<TokenId> tokens(int64_t n, int seed) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<TokenId>(2 + (seed * 5 + i * 3) % 38));
  return ids;
}

/// `wanted`, or the next id that the fake model does not rule out behind `text`.
TokenId possible(const std::vector<TokenId>& text, int64_t wanted) {
  const auto log_p = test::expected_logprobs(small_model(), text, std::ssize(text) - 1);
  while (!std::isfinite(log_p[static_cast<size_t>(wanted % 40)])) ++wanted;
  return static_cast<TokenId>(wanted % 40);
}

/// Texts of the lengths that share `n_shared` tokens; what is behind those counts.
Alternatives make_texts(int64_t n_shared, const std::vector<int64_t>& lengths, int seed) {
  Alternatives a;
  for (size_t i = 0; i < lengths.size(); ++i) {
    std::vector<TokenId> text = tokens(n_shared, seed);
    for (int64_t k = 0; k < lengths[i]; ++k)
      text.push_back(possible(text, k == 0 ? 2 + 9 * static_cast<int64_t>(i) : k + seed));
    a.begin.push_back(n_shared);
    a.end.push_back(std::ssize(text));
    a.texts.push_back(std::move(text));
  }
  return a;
}

double expected_score(const Alternatives& a, size_t i) {
  double sum = 0.0;
  for (int64_t t = a.begin[i]; t < a.end[i]; ++t)
    sum += test::expected_logprobs(small_model(), a.texts[i],
                                   t - 1)[static_cast<size_t>(a.texts[i][static_cast<size_t>(t)])];
  return sum / static_cast<double>(a.end[i] - a.begin[i]);
}

std::vector<Alternatives> some_tasks() {
  std::vector<Alternatives> tasks;
  for (int i = 0; i < 12; ++i)
    tasks.push_back(make_texts(1 + 7 * i, {1 + i % 3, 4, 2 + i % 5, 1}, i));
  tasks[3].begin[1] += 2;  // as where a word is skipped
  tasks[3].end[2] -= 1;
  return tasks;
}

TEST(EvalScore, IsTheMeanOfWhatCountsWhateverTheBatch) {
  const std::vector<Alternatives> tasks = some_tasks();
  for (const auto& [n_batch, max_seqs, max_tok] :
       {std::tuple{1, 1, 1}, {16, 6, 64}, {64, 30, 300}, {128, 30, 100000}}) {
    FakeEngine fake = make_engine(n_batch, max_seqs);
    int64_t next = 0;
    const auto done = [&](int64_t task, const Scored& s) -> Result<void> {
      EXPECT_EQ(task, next++);
      const Alternatives& a = tasks[static_cast<size_t>(task)];
      EXPECT_EQ(s.scores.size(), a.texts.size());
      for (size_t i = 0; i < s.scores.size(); ++i) {
        const double want = expected_score(a, i);
        EXPECT_TRUE(std::fabs(s.scores[i] - want) <= 1e-5) << task << " " << i;
      }
      return {};
    };
    const auto result = score_tasks(
        *fake.engine, std::ssize(tasks), {.max_seqs = max_seqs, .max_tok = max_tok, .stop = {}},
        [&](int64_t i) { return Result<Alternatives>(tasks[static_cast<size_t>(i)]); }, done);
    ASSERT_TRUE(result.ok()) << result.error().message;
    EXPECT_EQ(next, std::ssize(tasks));
    EXPECT_EQ(fake.executor->violation(), "");
  }
}

TEST(EvalScore, TooLongAndUnsharedTextsAreSkippedAndNamed) {
  std::vector<Alternatives> tasks = some_tasks();
  tasks[1] = make_texts(100, {30, 2}, 1);
  tasks[5].texts[0].front() = 3;
  tasks[5].texts[1].front() = 4;
  FakeEngine fake = make_engine(64, 30);
  std::string skipped;
  const auto done = [&](int64_t task, const Scored& s) -> Result<void> {
    EXPECT_EQ(s.scores.empty(), task == 1 || task == 5) << task;
    skipped += s.skipped + "\n";
    return {};
  };
  const auto result = score_tasks(
      *fake.engine, std::ssize(tasks), {.max_seqs = 30, .max_tok = 300, .stop = {}},
      [&](int64_t i) { return Result<Alternatives>(tasks[static_cast<size_t>(i)]); }, done);
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(skipped, HasSubstr("130 tokens are more than the context of 128\n"));
  EXPECT_THAT(skipped, HasSubstr("its texts share no token"));
}

TEST(EvalScore, SkippedTasksAreNotPiledUp) {
  FakeEngine fake = make_engine(64, 6);
  int64_t n_made = 0, n_done = 0, most = 0;
  const auto make = [&](int64_t) -> Result<Alternatives> {
    most = std::max(most, ++n_made - n_done);
    return make_texts(100, {30, 2}, 1);
  };
  const auto done = [&](int64_t, const Scored& s) -> Result<void> {
    EXPECT_NE(s.skipped, "");
    ++n_done;
    return {};
  };
  ASSERT_TRUE(
      score_tasks(*fake.engine, 50, {.max_seqs = 6, .max_tok = 300, .stop = {}}, make, done).ok());
  EXPECT_EQ(n_done, 50);
  EXPECT_TRUE(most <= 8) << most;
}

TEST(EvalScore, ErrorsAndStopsEndItWithNothingLeftOpen) {
  const std::vector<Alternatives> tasks = some_tasks();
  const auto make = [&](int64_t i) { return Result<Alternatives>(tasks[static_cast<size_t>(i)]); };
  FakeEngine fake = make_engine(64, 30);
  ScoreOptions o{.max_seqs = 30, .max_tok = 300, .stop = {}};
  const auto failing = [](int64_t task, const Scored&) -> Result<void> {
    if (task == 2) return Error{ErrorCode::kIo, "full"};
    return {};
  };
  EXPECT_EQ(score_tasks(*fake.engine, 12, o, make, failing).error().message, "full");
  std::stop_source stop;
  o.stop = stop.get_token();
  const auto stopping = [&](int64_t task, const Scored&) -> Result<void> {
    if (task == 3) stop.request_stop();
    return {};
  };
  EXPECT_EQ(score_tasks(*fake.engine, 12, o, make, stopping).error().code, ErrorCode::kCancelled);
  const EngineStats stats = fake.engine->stats();
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
}

TEST(EvalPerplexity, IsTheMeanOfSecondHalves) {
  TokenChunks c;
  c.n_ctx = c.stride = 16;
  c.n_chunk = 6;
  c.n_context = 8;
  c.bos = 5;
  for (int64_t i = 0; i < 96; ++i) {
    std::vector<TokenId> window(c.tokens.end() - i % 16, c.tokens.end());
    if (!window.empty()) window.front() = c.bos;
    c.tokens.push_back(window.empty() ? 7 : possible(window, 3 * i));
  }
  MeanError want;
  for (int64_t chunk = 0; chunk < c.n_chunk; ++chunk) {
    std::vector<TokenId> window = c.input(chunk);
    EXPECT_EQ(window.size(), 15u);
    EXPECT_EQ(window.front(), 5);
    for (int64_t row = 8; row < 15; ++row)
      want.add(-test::expected_logprobs(small_model(), window,
                                        row)[static_cast<size_t>(c.target(chunk, row))]);
  }
  for (const int64_t n_batch : {1, 16, 64}) {
    FakeEngine fake = make_engine(n_batch, 5);
    const auto ppl =
        measure_perplexity(*fake.engine, c, {.n_batch = n_batch, .stop = {}, .on_chunk = {}});
    ASSERT_TRUE(ppl.ok()) << ppl.error().message;
    EXPECT_EQ(ppl->nll.n(), 42);
    EXPECT_TRUE(std::fabs(ppl->nll.mean() - want.mean()) <= 1e-5);
  }
}

/// What callbacks write to dies with the caller: nothing may be in work then.
TEST(EvalPerplexity, AnExceptionLeavesNothingOpen) {
  TokenChunks c;
  c.n_ctx = c.stride = 16;
  c.n_chunk = 6;
  c.n_context = 8;
  c.tokens = tokens(96, 1);
  FakeEngine fake = make_engine(64, 5);
  const auto make = [](int64_t) { return Request{}; };
  const auto done = [](int64_t, const Response&) -> Result<void> { throw std::bad_alloc(); };
  EXPECT_THROW((void)run_chunks(*fake.engine, c, 64, {}, make, done), std::bad_alloc);
  const EngineStats stats = fake.engine->stats();
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
  const auto worked = fake.engine->run_step();
  EXPECT_TRUE(worked.ok() && !*worked);
}

}  // namespace
}  // namespace infer::eval
