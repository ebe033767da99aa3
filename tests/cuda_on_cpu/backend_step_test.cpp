#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "backends/cuda/graph_cache.h"
#include "core/runtime/executor.h"
#include "tests/cuda_on_cpu/cuda_engine.h"
#include "tests/cuda_on_cpu/emulator.h"
#include "tests/support/tiny_model.h"

/// Steps by hand: two in flight, turns of wanted rows, best logits instead of rows; and the cache
/// of captured steps alone.
namespace infer::cuda::test {
namespace {

using infer::test::must;

/// Keeps what it is given.
class Keeper final : public runtime::LogitSink {
 public:
  struct Row {
    int32_t row;
    runtime::LogitStats stats;
    std::vector<float> logits, top;
    std::vector<int32_t> ids;
    bool operator==(const Row& o) const {
      return row == o.row && stats.max == o.stats.max && stats.argmax == o.stats.argmax &&
             stats.sum_exp == o.stats.sum_exp && logits == o.logits && top == o.top && ids == o.ids;
    }
  };
  void on_logits(const runtime::LogitTile& tile) override {
    for (size_t i = 0; i < tile.rows.size(); ++i) {
      const auto r = static_cast<int64_t>(i);
      Row row{tile.rows[i], tile.stats[i], {}, {}, {}};
      if (tile.has_rows()) row.logits.assign(tile.logits.row(r).begin(), tile.logits.row(r).end());
      row.top.assign(tile.top_logits.row(r).begin(), tile.top_logits.row(r).end());
      row.ids.assign(tile.top_ids.row(r).begin(), tile.top_ids.row(r).end());
      rows.push_back(row);
    }
    ++n_tile;
  }
  std::vector<Row> rows;
  int n_tile = 0;
};

class Steps : public ::testing::Test {
 protected:
  void SetUp() override {
    emulated::reset({.n_device = 2});
    std::string why;
    backends_ = must(make_cuda_backends({}, &why));
    model_ = infer::test::mapped_model_of(infer::test::tiny_model("llama", kTiny), "tiny-steps");
    graph_ = must(model_->build_graph({}));
  }
  void TearDown() override { EXPECT_EQ(emulated::take_reports(), std::vector<std::string>{}); }

  std::unique_ptr<runtime::Executor> executor(const std::vector<int>& half_ends) {
    std::vector<runtime::StagePlacement> stages;
    for (size_t i = 0; i < half_ends.size(); ++i)
      stages.push_back(
          {backends_[i % backends_.size()].get(), i == 0 ? 0 : half_ends[i - 1], half_ends[i]});
    runtime::CompileOptions options;
    options.n_ctx = 64;
    options.groups = {{.n_block = 4}};
    return must(
        runtime::Executor::create(graph_, stages, {.n_tok = 12, .n_logit_rows = 4}, options));
  }
  int n_half() const { return static_cast<int>(graph_.halves.size()); }

  /// Rows [begin, end) of a sequence that lies in physical blocks 2 * id and 2 * id + 1.
  static runtime::Step step(int id, int begin, int end, runtime::Want want, int n_top = 0) {
    runtime::Step s;
    for (int at = begin; at < end; ++at)
      s.rows.push_back({.token = 5 + (at * 31 + id * 7) % 200,
                        .pos = at,
                        .slot = at,
                        .want = want,
                        .n_top = static_cast<uint8_t>(n_top)});
    s.n_seq = 1;
    s.tables = {{{2 * id, 2 * id + 1}, 2}};
    return s;
  }

  std::vector<std::unique_ptr<runtime::Backend>> backends_;
  std::shared_ptr<const model::Model> model_;
  graph::Graph graph_;
  graph::StagePlan plan_;
};

TEST_F(Steps, TwoInFlightAreWhatEachIsAlone) {
  const auto a = step(0, 0, 10, runtime::Want::kLogits);  // three turns
  const auto b = step(1, 0, 7, runtime::Want::kLogits);
  const auto c = step(1, 7, 8, runtime::Want::kTop, 5);
  const auto alone = executor({n_half()});
  Keeper want[3];
  must(alone->run(a, &want[0]));
  must(alone->run(b, &want[1]));
  must(alone->run(c, &want[2]));
  EXPECT_EQ(want[0].n_tile, 3);
  ASSERT_EQ(want[0].rows.size(), 10u);
  ASSERT_EQ(want[2].rows.size(), 1u);
  for (const std::vector<int>& ends :
       {std::vector<int>{n_half()}, {3, n_half()}, {1, 2, n_half()}}) {
    for (int repeat = 0; repeat < 3; ++repeat) {
      const auto both = executor(ends);
      Keeper got[3];
      const auto first = must(both->submit(a, &got[0]));
      const auto second = must(both->submit(b, &got[1]));
      must(both->wait(first));
      const auto third = must(both->submit(c, &got[2]));
      must(both->wait(second));
      must(both->wait(third));
      for (int i = 0; i < 3; ++i) EXPECT_EQ(got[i].rows, want[i].rows) << i;
      emulated::set_seed(static_cast<uint64_t>(repeat) + 10);
    }
  }
}

TEST_F(Steps, TheBestOfARowAreThoseOfTheWholeRow) {
  const auto exe = executor({n_half()});
  const auto whole = step(0, 0, 3, runtime::Want::kLogits);
  const auto best = step(0, 0, 3, runtime::Want::kTop, 5);
  const auto stats = step(0, 0, 3, runtime::Want::kTop, 0);
  Keeper rows, top, none;
  must(exe->run(whole, &rows));
  must(exe->run(best, &top));
  must(exe->run(stats, &none));
  for (size_t r = 0; r < 3; ++r) {
    ASSERT_GE(top.rows[r].ids.size(), 5u);
    EXPECT_TRUE(top.rows[r].logits.empty());
    EXPECT_EQ(top.rows[r].ids[0], rows.rows[r].stats.argmax);
    for (size_t i = 0; i < top.rows[r].ids.size(); ++i)
      EXPECT_EQ(top.rows[r].top[i], rows.rows[r].logits[static_cast<size_t>(top.rows[r].ids[i])]);
    EXPECT_TRUE(std::is_sorted(top.rows[r].top.rbegin(), top.rows[r].top.rend()));
    EXPECT_EQ(none.rows[r].stats.sum_exp, rows.rows[r].stats.sum_exp);
    EXPECT_TRUE(none.rows[r].ids.empty());
  }
}

/// Memory of the host that runs out while a step is launched, the first time and in its capture.
TEST_F(Steps, AnExceptionLeavesAllUsable) {
  const auto prompt = step(0, 0, 3, runtime::Want::kNone);
  const auto token = step(0, 3, 4, runtime::Want::kTop, 5);
  const auto alone = executor({n_half()});
  Keeper none, want;
  must(alone->run(prompt, &none));
  must(alone->run(token, &want));
  for (const int n_launched : {0, 5, 16, 20, 31}) {
    const auto exe = executor({n_half()});
    must(exe->run(prompt, &none));
    Keeper lost, got;
    emulated::throw_at_launch(n_launched);
    EXPECT_THROW(static_cast<void>(exe->submit(token, &lost)), std::bad_alloc) << n_launched;
    EXPECT_TRUE(lost.rows.empty());
    for (int repeat = 0; repeat < 3; ++repeat) {  // launched, captured, replayed
      got.rows.clear();
      must(exe->run(token, &got));
      EXPECT_EQ(got.rows, want.rows) << n_launched;
    }
  }
}

/// A step without rows copies blocks; what it leaves behind for steps of one row is nothing.
TEST_F(Steps, WithoutRows) {
  const auto prompt = step(0, 0, 3, runtime::Want::kNone);
  const auto token = step(0, 3, 4, runtime::Want::kLogits);
  runtime::Step copies;
  copies.copies = {{.group = 0, .src = 0, .dst = 2}};
  copies.tables = {{{}, 2}};
  for (const std::vector<int>& ends : {std::vector<int>{n_half()}, {3, n_half()}}) {
    const auto exe = executor(ends);
    Keeper none, want, got;
    must(exe->run(prompt, &none));
    must(exe->run(copies, &none));
    EXPECT_TRUE(none.rows.empty());
    must(exe->run(token, &want));
    auto copied = token;
    copied.tables = {{{2, 3}, 2}};
    must(exe->run(copied, &got));
    EXPECT_EQ(got.rows, want.rows);
    const auto alone = executor({n_half()});
    Keeper first;
    must(alone->run(prompt, &none));
    must(alone->run(token, &first));
    EXPECT_EQ(first.rows, want.rows);
  }
}

/// Nobody waits for a step after an error of a stage before; the next one goes on.
TEST_F(Steps, AStepThatNobodyWaitedFor) {
  plan_ = must(graph::plan_stage(graph_, 0, n_half(), {.n_tok = 4, .n_logit_rows = 4}));
  runtime::CompileOptions options;
  options.n_ctx = 64;
  options.groups = {{.n_block = 2}};
  const auto exe = must(backends_[0]->compile(graph_, plan_, options));
  const auto a = step(0, 0, 3, runtime::Want::kLogits);
  Keeper first, last;
  runtime::StepIo io;
  io.sink = &first;
  must(exe->wait(must(exe->submit(a, io))));
  must(exe->submit(a, io));
  must(exe->submit(a, io));
  io.sink = &last;
  must(exe->wait(must(exe->submit(a, io))));
  EXPECT_EQ(first.rows, last.rows);
}

TEST(CapturedSteps, WhatCannotBeCapturedRunsAndIsSaidOnce) {
  emulated::reset({});
  const Stream stream = must(Stream::create());
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 4), cudaSuccess);
  std::vector<std::string> said;
  CudaCounters counters;
  GraphCache cache;
  cache.enable([&](const std::string& line) { said.push_back(line); }, &counters);
  int n_run = 0;
  const auto clear = [&]() -> Result<void> {
    ++n_run;
    return check(cudaMemsetAsync(memory, 0, 4, stream.get()), "clearing");
  };
  must(cache.run({1, 0}, stream, clear));
  EXPECT_EQ(n_run, 2) << "once for itself, once to be captured";
  must(cache.run({1, 0}, stream, clear));
  EXPECT_EQ(n_run, 2);
  EXPECT_EQ(counters.n_replayed, 1);
  EXPECT_EQ(counters.n_eager, 1);
  const auto throws = [&]() -> Result<void> {
    if (n_run++ % 2 == 1) throw std::bad_alloc();
    return {};
  };
  EXPECT_THROW(static_cast<void>(cache.run({3, 0}, stream, throws)), std::bad_alloc);
  must(stream.wait());
  EXPECT_EQ(n_run, 4);
  EXPECT_TRUE(cache.is_enabled());
  n_run = 2;
  const auto waits = [&]() -> Result<void> {
    ++n_run;
    return stream.wait();
  };
  must(cache.run({2, 0}, stream, waits));
  must(cache.run({2, 0}, stream, waits));
  EXPECT_EQ(n_run, 5);
  EXPECT_FALSE(cache.is_enabled());
  ASSERT_EQ(said.size(), 1u);
  EXPECT_THAT(said[0], testing::HasSubstr("steps are launched op by op"));
  must(stream.wait());
  cudaFree(memory);
}

}  // namespace
}  // namespace infer::cuda::test
