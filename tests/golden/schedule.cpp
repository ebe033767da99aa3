#include "tests/golden/schedule.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace infer::test {
namespace {

constexpr int kMaxSamples = 3;
constexpr int64_t kMaxNewTokens = 16;

int64_t draw(std::mt19937_64& rng, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(rng);
}
bool chance(std::mt19937_64& rng, double p) { return std::bernoulli_distribution(p)(rng); }

bool same_bits(const std::vector<TopLogprobs>& a, const std::vector<TopLogprobs>& b, size_t n) {
  if (a.size() < n || b.size() < n) return false;
  for (size_t i = 0; i < n; ++i) {
    if (a[i].size() != b[i].size()) return false;
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(TokenLogprob)) != 0)
      return false;
  }
  return true;
}

template <class T>
bool is_prefix(const T& part, const T& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

}  // namespace

uint64_t hash_of(std::span<const float> row) {
  uint64_t h = 0x9e3779b97f4a7c15u;
  for (const float v : row) {
    uint32_t bits = 0;
    std::memcpy(&bits, &v, sizeof(bits));
    h = (h ^ bits) * 0x100000001b3u;
    h ^= h >> 29;
  }
  return h;
}

ScheduleStats& ScheduleStats::operator+=(const ScheduleStats& o) {
  n_request += o.n_request;
  n_forked += o.n_forked;
  n_cancelled += o.n_cancelled;
  n_preempted += o.n_preempted;
  n_cached_tok += o.n_cached_tok;
  n_row_compared += o.n_row_compared;
  return *this;
}

/// A request of a schedule while it runs.
struct ScheduleRunner::Ticket {
  const Probe* probe = nullptr;
  RequestId id = 0;
  int n_samples = 1;
  bool wants_logprobs = false;
  bool wants_rows = false;
  int32_t rows_from = 0;
  std::vector<std::pair<int32_t, uint64_t>> rows;  ///< position, hash
  int64_t submit_at = 0;                           ///< step
  int64_t cancel_at = -1;                          ///< step
};

ScheduleRunner::ScheduleRunner(ScheduleConfig config,
                               const std::vector<std::vector<TokenId>>& prompts, uint64_t seed)
    : config_(std::move(config)) {
  std::mt19937_64 rng(seed);
  EngineOptions options = config_.options;
  options.manual = true;
  options.prefix_cache = false;
  options.n_batch = 512;
  options.max_seqs = 1;
  const EngineBox engine =
      must(EngineBox::create(config_.model, options, {.isa = config_.isa, .n_threads = 1}));
  for (const std::vector<TokenId>& prompt : prompts) {
    Probe probe;
    probe.prompt = prompt;
    probe.max_tokens = draw(rng, 1, kMaxNewTokens);
    probe.sampling.temp = chance(rng, 0.3) ? 0.0f : 1.0f;
    probe.sampling.seed = rng();
    for (int i = 0; i < kMaxSamples; ++i) {
      Request request = make_request(prompt, probe.max_tokens, probe.sampling);
      request.sampling.seed += static_cast<uint64_t>(i);
      request.n_logprobs = config_.n_logprobs;
      if (i == 0) {
        request.on_logits = [&](const LogitsRow& row) {
          probe.row_hash.push_back(hash_of(row.logits));
        };
      }
      probe.samples.push_back(std::move(run_request(*engine, std::move(request)).samples.at(0)));
    }
    probes_.push_back(std::move(probe));
  }
}

EngineOptions ScheduleRunner::draw_options(std::mt19937_64& rng) const {
  EngineOptions options = config_.options;
  options.manual = true;
  // Small chunks and large ones alike: half of the draws are below 33.
  options.n_batch = chance(rng, 0.5) ? draw(rng, 1, 33) : draw(rng, 1, 512);
  options.max_seqs = static_cast<int>(std::min(draw(rng, 1, 6), options.n_batch));
  options.prefix_cache = chance(rng, 0.6);
  if (chance(rng, 0.5)) {
    // Room for the longest request that may come and little more, so that company must give way.
    options.n_ctx = std::min(draw(rng, 2, 8) * 32, config_.options.n_ctx);
    options.max_seqs = static_cast<int>(std::min(draw(rng, 2, 6), options.n_batch));
    options.kv_mem_bytes = least_kv_mem(config_.model, options) +
                           draw(rng, 0, 64) * kv_bytes_per_tok(*config_.model, options);
  }
  return options;
}

Request ScheduleRunner::draw_request(std::mt19937_64& rng, int64_t n_ctx, Ticket& ticket) const {
  do {
    ticket.probe =
        &probes_[static_cast<size_t>(draw(rng, 0, static_cast<int64_t>(probes_.size()) - 1))];
  } while (static_cast<int64_t>(ticket.probe->prompt.size()) + ticket.probe->max_tokens > n_ctx);
  const Probe& probe = *ticket.probe;
  ticket.n_samples = chance(rng, 0.3) ? static_cast<int>(draw(rng, 2, kMaxSamples)) : 1;
  ticket.wants_logprobs = chance(rng, 0.6);
  ticket.wants_rows = chance(rng, 0.6);
  if (chance(rng, 0.1)) ticket.cancel_at = draw(rng, 1, 20);
  Request request = make_request(probe.prompt, probe.max_tokens, probe.sampling);
  request.n_samples = ticket.n_samples;
  if (ticket.wants_logprobs) request.n_logprobs = config_.n_logprobs;
  if (ticket.wants_rows) {
    ticket.rows_from =
        static_cast<int32_t>(draw(rng, 0, static_cast<int64_t>(probe.prompt.size()) - 1));
    request.logits_from = ticket.rows_from;
    request.on_logits = [&ticket](const LogitsRow& row) {
      ticket.rows.emplace_back(row.pos, hash_of(row.logits));
    };
  }
  return request;
}

void ScheduleRunner::compare(const Ticket& ticket, const Response& response,
                             ScheduleStats& stats) const {
  const Probe& probe = *ticket.probe;
  for (size_t i = 0; i < ticket.rows.size(); ++i) {
    const auto [pos, hash] = ticket.rows[i];
    ASSERT_EQ(pos, ticket.rows_from + static_cast<int32_t>(i)) << "row of logits out of order";
    ASSERT_EQ(hash, probe.row_hash.at(static_cast<size_t>(pos)))
        << "logits of prompt row " << pos << " of " << probe.prompt.size();
  }
  stats.n_row_compared += static_cast<int64_t>(ticket.rows.size());
  const bool cancelled =
      std::any_of(response.samples.begin(), response.samples.end(),
                  [](const Completion& c) { return c.stop_reason == StopReason::kCancelled; });
  if (!cancelled && ticket.wants_rows) {
    ASSERT_EQ(ticket.rows.size(), probe.prompt.size() - static_cast<size_t>(ticket.rows_from));
  }
  ASSERT_EQ(response.samples.size(), static_cast<size_t>(ticket.n_samples));
  for (size_t i = 0; i < response.samples.size(); ++i) {
    const Completion& got = response.samples[i];
    const Completion& want = probe.samples.at(i);
    if (got.stop_reason == StopReason::kCancelled) {
      ASSERT_GE(ticket.cancel_at, 0) << "cancelled by nobody";
      ASSERT_TRUE(is_prefix(got.ids, want.ids)) << "sample " << i;
    } else {
      ASSERT_EQ(got.ids, want.ids) << "sample " << i;
      ASSERT_EQ(got.text, want.text) << "sample " << i;
      ASSERT_EQ(got.stop_reason, want.stop_reason) << "sample " << i;
    }
    if (!ticket.wants_logprobs) continue;
    ASSERT_TRUE(same_bits(got.logprobs, want.logprobs, got.ids.size()))
        << "logprobs of sample " << i;
    stats.n_row_compared += static_cast<int64_t>(got.ids.size());
  }
}

ScheduleStats ScheduleRunner::run(uint64_t seed) const {
  SCOPED_TRACE(fmt::format("{} {} schedule seed {}", config_.label, config_.isa, seed));
  std::mt19937_64 rng(seed);
  const int n_threads = static_cast<int>(draw(rng, 1, 3));
  const EngineOptions options = draw_options(rng);
  SCOPED_TRACE(fmt::format("threads {}, n_batch {}, max_seqs {}, prefix_cache {}, kv_mem {}",
                           n_threads, options.n_batch, options.max_seqs, options.prefix_cache,
                           options.kv_mem_bytes));
  const EngineBox engine =
      must(EngineBox::create(config_.model, options, {.isa = config_.isa, .n_threads = n_threads}));

  std::deque<Ticket> tickets;  // addresses stay
  std::vector<Request> requests;
  const int64_t n_request = draw(rng, 2, 7);
  for (int64_t i = 0; i < n_request; ++i) {
    Ticket& ticket = tickets.emplace_back();
    requests.push_back(draw_request(rng, options.n_ctx, ticket));
    ticket.submit_at = chance(rng, 0.5) ? 0 : draw(rng, 0, 30);
  }
  bool busy = true;
  size_t n_submitted = 0;
  for (int64_t step = 0; busy || n_submitted < tickets.size(); ++step) {
    for (size_t i = 0; i < tickets.size(); ++i) {
      Ticket& ticket = tickets[i];
      // With nothing left to run, time jumps to the next request.
      if (ticket.id == 0 && (ticket.submit_at <= step || !busy)) {
        ticket.id = must(engine->submit(std::move(requests[i]))) + 1;  // 0 means "not yet"
        if (ticket.cancel_at >= 0) ticket.cancel_at += step;
        ++n_submitted;
      }
      if (ticket.id != 0 && ticket.cancel_at == step) engine->cancel(ticket.id - 1);
    }
    busy = must(engine->run_step());
  }

  ScheduleStats stats;
  for (const Ticket& ticket : tickets) {
    const Response response = must(engine->wait(ticket.id - 1));
    compare(ticket, response, stats);
    ++stats.n_request;
    stats.n_forked += ticket.n_samples > 1;
    stats.n_cancelled += response.samples.at(0).stop_reason == StopReason::kCancelled;
    stats.n_cached_tok += response.timings.cached_tok;
  }
  stats.n_preempted = engine->stats().n_preempted;
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total) << "blocks left over";
  return stats;
}

std::vector<std::vector<TokenId>> family_prompts(int32_t n_vocab, uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto random_tokens = [&](int64_t n) {
    std::vector<TokenId> ids(static_cast<size_t>(n));
    for (TokenId& id : ids) id = static_cast<TokenId>(draw(rng, 3, n_vocab - 1));
    return ids;
  };
  const std::vector<TokenId> roots[] = {random_tokens(700), random_tokens(700)};
  std::vector<std::vector<TokenId>> prompts;
  for (const int64_t shared : {0, 1, 7, 31, 32, 33, 63, 64, 65, 96, 130, 200}) {
    for (const auto& root : roots) {
      std::vector<TokenId> prompt(root.begin(), root.begin() + shared);
      const std::vector<TokenId> own = random_tokens(draw(rng, shared == 0 ? 1 : 0, 24));
      prompt.insert(prompt.end(), own.begin(), own.end());
      prompts.push_back(std::move(prompt));
    }
  }
  // Longer than a span of the running softmax (512 slots), so that spans are merged.
  prompts.emplace_back(roots[0].begin(), roots[0].begin() + 515);
  prompts.emplace_back(roots[0].begin(), roots[0].begin() + 544);
  return prompts;
}

}  // namespace infer::test
