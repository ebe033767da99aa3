#include "tools/infer-bench/run_tests.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <random>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/runtime/op_profile.h"

namespace infer::tools {
namespace {

using Clock = std::chrono::steady_clock;

/// Wall and CPU time of the process.
struct Instant {
  Clock::time_point wall;
  double cpu_s = 0.0;

  static Instant now() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return {Clock::now(), static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec)};
  }
};

struct Sample {
  double n_tok = 0.0, wall_s = 0.0, cpu_s = 0.0;
};
Sample sample_of(int64_t n_tok, const Instant& begin, const Instant& end) {
  return {static_cast<double>(n_tok), std::chrono::duration<double>(end.wall - begin.wall).count(),
          end.cpu_s - begin.cpu_s};
}

/// Tokens that all sequences may draw while the last of them still computes its prompt.
int64_t stagger(const BenchTest& t, int64_t n_batch) {
  return t.batch > 1 ? t.batch * (ceil_div(std::max<int64_t>(t.depth, 1), n_batch) + 1) : 0;
}

int64_t context_of(const BenchTest& t, int64_t n_batch) {
  if (t.kind == BenchTest::Kind::kPrompt) return t.depth + t.n + 1;
  return std::max<int64_t>(t.depth, 1) + t.n + 2 + stagger(t, n_batch);
}

class TestRun {
 public:
  TestRun(Engine& engine, const BenchTest& test, uint64_t seed, runtime::OpProfile* profile)
      : engine_(engine),
        test_(test),
        profile_(profile),
        rng_(seed),
        past_(random_ids(test.depth)) {}

  Result<Sample> run() { return test_.kind == BenchTest::Kind::kPrompt ? prompt() : generate(); }

 private:
  static constexpr int64_t kBlock = 32;  // the prefix cache shares whole blocks

  void record(bool on) {
    if (profile_ != nullptr) profile_->record(on);
  }

  Result<Sample> prompt() {
    if (test_.depth > 0) {  // the prefix cache keeps these tokens for the prompt that is timed
      INFER_ASSIGN(const Response filled, engine_.generate(request(past_, 0)));
    }
    std::vector<TokenId> ids = past_;
    const std::vector<TokenId> fresh = random_ids(test_.n);
    ids.insert(ids.end(), fresh.begin(), fresh.end());
    n_first_ = 0;
    Request r = request(std::move(ids), 1);
    record(true);
    const Instant begin = Instant::now();
    INFER_ASSIGN(const RequestId id, engine_.submit(std::move(r)));
    while (n_first_ == 0) INFER_TRY(step());
    record(false);
    INFER_ASSIGN(const Response done, engine_.wait(id));
    const int64_t n_computed = done.timings.prompt_tok - done.timings.cached_tok;
    if (n_computed >= test_.n + kBlock)
      return make_error(ErrorCode::kUnsupported,
                        "depth {}: only {} tokens of the past came out of the prefix cache",
                        test_.depth, done.timings.cached_tok);
    return sample_of(n_computed, begin, first_token_);
  }

  Result<Sample> generate() {
    n_first_ = 0;
    n_token_ = 0;
    std::vector<RequestId> ids;
    for (int64_t i = 0; i < test_.batch; ++i) {
      Request r = request(random_ids(std::max<int64_t>(test_.depth, 1)), -1);
      INFER_ASSIGN(const RequestId id, engine_.submit(std::move(r)));
      ids.push_back(id);
    }
    while (n_first_ < test_.batch) INFER_TRY(step());
    const int64_t n_before = n_token_;
    record(true);
    const Instant begin = Instant::now();
    for (int64_t i = 0; i < test_.n; ++i) INFER_TRY(step());
    const Instant end = Instant::now();
    record(false);
    const int64_t n_drawn = n_token_ - n_before;
    for (const RequestId id : ids) engine_.cancel(id);
    for (const RequestId id : ids) INFER_TRY(engine_.wait(id));
    if (n_drawn != test_.n * test_.batch)
      return make_error(ErrorCode::kOutOfMemory, "{}: {} tokens were drawn in {} steps",
                        test_.name(), n_drawn, test_.n);
    return sample_of(n_drawn, begin, end);
  }

  std::vector<TokenId> random_ids(int64_t n) {
    std::uniform_int_distribution<TokenId> any(0, engine_.tokenizer().n_vocab() - 1);
    std::vector<TokenId> ids(static_cast<size_t>(n));
    for (TokenId& id : ids) id = any(rng_);
    return ids;
  }

  Request request(std::vector<TokenId> ids, int64_t max_tokens) {
    Request r;
    r.prompt = std::move(ids);
    r.max_tokens = max_tokens;
    r.sampling.temp = 0.0f;
    r.ignore_eos = true;
    r.on_event = [this, first = true](const Event& event) mutable {
      if (event.kind != Event::Kind::kToken) return;
      ++n_token_;
      if (!first) return;
      first = false;
      ++n_first_;
      first_token_ = Instant::now();
    };
    return r;
  }

  Result<void> step() {
    INFER_ASSIGN(const bool worked, engine_.run_step());
    if (!worked) return make_error(ErrorCode::kOutOfMemory, "{}: no progress", test_.name());
    return {};
  }

  Engine& engine_;
  const BenchTest test_;
  runtime::OpProfile* const profile_;
  std::mt19937_64 rng_;
  const std::vector<TokenId> past_;
  int64_t n_first_ = 0, n_token_ = 0;
  Instant first_token_;
};

}  // namespace

std::string BenchTest::name() const {
  std::string s = fmt::format("{}{}", kind == Kind::kPrompt ? "pp" : "tg", n);
  if (batch > 1) s += fmt::format(" x {}", batch);
  if (depth > 0) s += fmt::format(" @ d{}", depth);
  return s;
}

void fit_options(const std::vector<BenchTest>& tests, EngineOptions* options) {
  options->manual = true;
  options->n_ctx = 1;
  options->max_seqs = 1;
  options->prefix_cache = false;
  for (const BenchTest& t : tests) {
    options->n_ctx = std::max(options->n_ctx, context_of(t, options->n_batch));
    options->max_seqs = std::max(options->max_seqs, static_cast<int>(t.batch));
    if (t.kind == BenchTest::Kind::kPrompt && t.depth > 0) options->prefix_cache = true;
  }
}

Result<Speed> run_test(Engine& engine, const BenchTest& test, int n_rep, uint64_t seed,
                       runtime::OpProfile* profile) {
  TestRun run(engine, test, seed, profile);
  Speed all;
  for (int i = 0; i <= n_rep; ++i) {
    INFER_ASSIGN(const Sample sample, run.run());
    if (i == 0) {  // warms up
      if (profile != nullptr) profile->clear();
      continue;
    }
    all.tok_s.push_back(sample.n_tok / sample.wall_s);
    all.cpu_tok_s.push_back(sample.n_tok / sample.cpu_s);
    all.wall_s += sample.wall_s;
    all.cpu_s += sample.cpu_s;
  }
  return all;
}

}  // namespace infer::tools
