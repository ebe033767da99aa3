#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// Many random requests through the whole engine on a tiny model: everything is answered and every
/// block comes back.
namespace infer::test {
namespace {

int64_t draw(std::mt19937_64& rng, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(rng);
}

struct Tally {
  int64_t n_request = 0, n_refused = 0, n_cancelled = 0, n_sample = 0, n_tok = 0, n_preempted = 0;
};

Request random_request(std::mt19937_64& rng, int32_t n_vocab) {
  Request request;
  // Few distinct beginnings, so that prefixes are shared.
  const auto beginning = static_cast<TokenId>(draw(rng, 3, 6));
  request.prompt.assign(static_cast<size_t>(draw(rng, 1, 100)), beginning);
  for (int64_t i = draw(rng, 0, 4); i > 0; --i)
    request.prompt.push_back(static_cast<TokenId>(draw(rng, 0, n_vocab - 1)));
  request.max_tokens = draw(rng, 0, 9) == 0 ? -1 : draw(rng, 0, 12);
  request.n_samples = draw(rng, 0, 3) == 0 ? static_cast<int>(draw(rng, 2, 3)) : 1;
  request.sampling.seed = rng();
  request.sampling.temp = draw(rng, 0, 1) == 0 ? 0.0f : 1.5f;
  request.n_logprobs = draw(rng, 0, 7) == 0 ? 3 : 0;
  request.n_prompt_logprobs = draw(rng, 0, 7) == 0 ? 2 : 0;
  if (draw(rng, 0, 7) == 0) request.stop = {"a", "th"};
  if (draw(rng, 0, 15) == 0)
    request.deadline =
        std::chrono::steady_clock::now() + std::chrono::microseconds(draw(rng, 0, 3000));
  return request;
}

/// One engine's life; requests come in bursts while others run.
void live(const std::shared_ptr<const model::Model>& model, uint64_t seed, int n_request,
          Tally& tally) {
  std::mt19937_64 rng(seed);
  EngineOptions options;
  options.manual = true;
  options.n_ctx = 128;
  options.n_batch = draw(rng, 1, 64);
  options.max_seqs = static_cast<int>(std::min(draw(rng, 1, 8), options.n_batch));
  options.prefix_cache = draw(rng, 0, 2) != 0;
  // Room for one long sequence and a little.
  if (draw(rng, 0, 1) == 0) {
    options.kv_mem_bytes =
        least_kv_mem(model, options) + draw(rng, 0, 128) * kv_bytes_per_tok(*model, options);
  }
  const EngineBox engine = must(EngineBox::create(model, options, {.isa = "", .n_threads = 1}));

  std::vector<RequestId> open;
  const auto n_vocab = static_cast<int32_t>(model->hparams().n_vocab);
  bool busy = true;
  for (int n_sent = 0; n_sent < n_request || busy;) {
    for (int64_t burst = n_sent < n_request ? draw(rng, 0, 3) : 0; burst > 0 && n_sent < n_request;
         --burst, ++n_sent) {
      Result<RequestId> id = engine->submit(random_request(rng, n_vocab));
      ++tally.n_request;
      if (id.ok()) {
        open.push_back(*id);
      } else {
        EXPECT_EQ(id.error().code, ErrorCode::kInvalidArgument) << id.error().message;
        ++tally.n_refused;
      }
    }
    if (!open.empty() && draw(rng, 0, 5) == 0) {
      engine->cancel(
          open[static_cast<size_t>(draw(rng, 0, static_cast<int64_t>(open.size()) - 1))]);
    }
    busy = must(engine->run_step());
  }
  for (const RequestId id : open) {
    const Response response = must(engine->wait(id));
    for (const Completion& c : response.samples) {
      EXPECT_NE(c.stop_reason, StopReason::kNone);
      EXPECT_NE(c.stop_reason, StopReason::kError);
      tally.n_cancelled += c.stop_reason == StopReason::kCancelled;
      tally.n_tok += static_cast<int64_t>(c.ids.size());
      ++tally.n_sample;
    }
  }
  const EngineStats stats = engine->stats();
  tally.n_preempted += stats.n_preempted;
  EXPECT_EQ(stats.blocks_free, stats.blocks_total) << "seed " << seed;
  EXPECT_FALSE(stats.blocks_total.empty());
}

TEST(Requests, TenThousandLeaveNoBlockBehind) {
  GgufImage full = tiny_model("llama");
  full.erase("llama.attention.sliding_window");
  const std::shared_ptr<const model::Model> models[] = {
      must(model_of(tiny_model("llama"), "windows")), must(model_of(full, "full")),
      must(model_of(tiny_model("gemma3"), "gemma3"))};
  Tally tally;
  const int n_engine = scaled(40, 12);
  for (int i = 0; i < n_engine && !HasFailure(); ++i) {
    live(models[i % 3], static_cast<uint64_t>(i + 1), scaled(250, 100), tally);
  }
  fmt::print(
      "[ measured ] {} requests ({} refused), {} samples ({} cancelled), {} tokens, {} "
      "preemptions\n",
      tally.n_request, tally.n_refused, tally.n_sample, tally.n_cancelled, tally.n_tok,
      tally.n_preempted);
  EXPECT_TRUE(tally.n_preempted > 0 || kSanitized);
  EXPECT_GE(tally.n_request, scaled(10000, 1200));
  EXPECT_LT(tally.n_refused, tally.n_request / 10);
  EXPECT_GT(tally.n_cancelled, 0);
}

}  // namespace
}  // namespace infer::test
