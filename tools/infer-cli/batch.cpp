#include "tools/infer-cli/batch.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "tools/common/out_file.h"
#include "tools/infer-cli/batch_line.h"
#include "tools/infer-cli/chat_format.h"
#include "tools/infer-cli/report.h"
#include "tools/infer-cli/text_input.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";
constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr size_t kMaxWarnings = 8;

using Clock = std::chrono::steady_clock;

/// A line between being read and being written.
struct Pending {
  nlohmann::ordered_json id;
  Result<RequestId> request;
  std::vector<TokenId> prompt;  ///< with --json only
};

struct Totals {
  int64_t n_line = 0, n_done = 0, n_failed = 0;
  int64_t prompt_tok = 0, cached_tok = 0, predicted_tok = 0;
};

class Batch {
 public:
  Batch(const CliOptions& options, Engine& engine, const BatchContext& context, OutFile& out)
      : options_(options), engine_(engine), context_(context), out_(out) {}

  /// Answers every line of `in`. Errors: kIo for input and output.
  Result<void> run(LineReader& in);
  /// From another thread: ends the requests that are under way and reads no further line.
  void stop();
  bool stopped() const;
  const Totals& totals() const { return totals_; }

 private:
  Result<bool> read_one(LineReader& in);
  void add(Pending pending);
  Result<void> write_first();
  void warn_unknown(const BatchLine& line, int64_t number);
  void show_progress() const;

  const CliOptions& options_;
  Engine& engine_;
  const BatchContext& context_;
  OutFile& out_;
  Totals totals_;
  std::set<std::string> warned_;

  mutable std::mutex mutex_;  ///< guards what follows
  std::deque<Pending> pending_;
  bool stop_ = false;
};

void Batch::stop() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  for (const Pending& p : pending_) {
    if (p.request.ok()) engine_.cancel(*p.request);
  }
}

bool Batch::stopped() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

void Batch::add(Pending pending) {
  const std::lock_guard lock(mutex_);
  if (stop_ && pending.request.ok()) engine_.cancel(*pending.request);
  pending_.push_back(std::move(pending));
}

void Batch::warn_unknown(const BatchLine& line, int64_t number) {
  for (const std::string& key : line.unknown_keys) {
    if (warned_.size() >= kMaxWarnings || !warned_.insert(key).second) continue;
    std::fprintf(stderr, "%s: warning: %s, line %lld: unknown key '%s' is ignored\n", kProgram,
                 options_.batch->c_str(), static_cast<long long>(number),
                 key.substr(0, 60).c_str());
  }
}

/// Reads and submits one line; false at the end of the input.
Result<bool> Batch::read_one(LineReader& in) {
  std::string line;
  INFER_ASSIGN(const LineReader::Kind kind, in.next(&line));
  if (kind == LineReader::Kind::kEnd) return false;
  const int64_t number = ++totals_.n_line;
  if (kind == LineReader::Kind::kTooLong) {
    add({.id = number,
         .request = make_error(ErrorCode::kInvalidArgument, "longer than {} bytes", kMaxLineBytes),
         .prompt = {}});
    return true;
  }
  if (line.find_first_not_of(" \t") == std::string::npos) return true;
  BatchLine parsed = parse_batch_line(line, number, context_);
  warn_unknown(parsed, number);
  Pending pending{.id = std::move(parsed.id), .request = RequestId{0}, .prompt = {}};
  if (parsed.request.ok()) {
    if (options_.json) pending.prompt = parsed.request->prompt;
    pending.request = engine_.submit(*std::move(parsed.request));
  } else {
    pending.request = parsed.request.error();
  }
  add(std::move(pending));
  return true;
}

/// Waits for the oldest line and writes its result; nothing for one that was interrupted.
Result<void> Batch::write_first() {
  Pending& first = pending_.front();  // only this thread changes the list
  nlohmann::ordered_json j;
  j["id"] = first.id;
  Result<Response> response =
      first.request.ok() ? engine_.wait(*first.request) : Result<Response>(first.request.error());
  bool cancelled = false;
  if (response.ok()) {
    const Timings& t = response->timings;
    for (const Completion& c : response->samples)
      cancelled |= c.stop_reason == StopReason::kCancelled;
    add_samples_json(*response, {.ids = options_.json, .logprobs = options_.n_logprobs > 0}, &j);
    if (options_.json) j["prompt_ids"] = first.prompt;
    if (options_.n_prompt_logprobs > 0)
      j["prompt_logprobs"] = logprobs_json(response->prompt_logprobs);
    j["timings"] = timings_json(t);
    totals_.prompt_tok += t.prompt_tok;
    totals_.cached_tok += t.cached_tok;
    totals_.predicted_tok += t.predicted_tok;
    if (!cancelled) ++totals_.n_done;
  } else {
    j["error"] = response.error().message;
    ++totals_.n_failed;
  }
  {
    const std::lock_guard lock(mutex_);
    pending_.pop_front();
  }
  if (cancelled) return {};
  show_progress();
  return out_.write(j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void Batch::show_progress() const {
  if (isatty(STDERR_FILENO) == 0) return;
  const long long n = totals_.n_done + totals_.n_failed;
  std::fprintf(stderr, "\r%lld done", n);
}

Result<void> Batch::run(LineReader& in) {
  // Room for short answers to overtake a long one, yet bounded.
  const size_t n_ahead = 8 * static_cast<size_t>(options_.model.engine.max_seqs);
  bool more = true;
  while (more || !pending_.empty()) {
    if (stopped()) more = false;
    while (more && pending_.size() < n_ahead && !stopped()) {
      INFER_ASSIGN(more, read_one(in));
    }
    if (!pending_.empty()) INFER_TRY(write_first());
  }
  return {};
}

void print_summary(const Totals& t, double seconds, bool interrupted) {
  if (isatty(STDERR_FILENO) != 0) std::fputc('\r', stderr);
  std::fprintf(
      stderr,
      "batch: %lld done, %lld failed%s; prompt: %lld tokens (%lld cached); generated: %lld "
      "tokens; %.1f s, %.1f tok/s\n",
      static_cast<long long>(t.n_done), static_cast<long long>(t.n_failed),
      interrupted ? ", interrupted" : "", static_cast<long long>(t.prompt_tok),
      static_cast<long long>(t.cached_tok), static_cast<long long>(t.predicted_tok), seconds,
      per_second(t.predicted_tok, seconds * 1e6));
}

struct Input {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> owned{nullptr, std::fclose};
  std::FILE* file = stdin;
  std::string name = "standard input";
};

Result<Input> open_input(const std::string& path) {
  Input in;
  if (path == "-") return in;
  in.owned.reset(std::fopen(path.c_str(), "rb"));
  if (in.owned == nullptr) return make_error(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  in.file = in.owned.get();
  in.name = path;
  return in;
}

Result<int> answer_all(const CliOptions& o, Engine& engine, Interrupts& interrupts) {
  INFER_ASSIGN(const Input input, open_input(*o.batch));
  LineReader lines(input.file, input.name, kMaxLineBytes);
  const BatchContext context{.options = o,
                             .tokenizer = engine.tokenizer(),
                             .chat = load_chat_format(o, engine),
                             .base = make_request(o)};
  INFER_ASSIGN(const std::unique_ptr<OutFile> out, OutFile::create(o.out));
  Batch batch(o, engine, context, *out);
  const Clock::time_point start = Clock::now();
  {
    const InterruptScope scope(interrupts, [&, first = true](int) mutable {
      if (!first) _exit(kExitInterrupted);
      first = false;
      batch.stop();
    });
    const Result<void> answered = batch.run(lines);
    if (!answered.ok()) {
      batch.stop();
      return answered.error();
    }
  }
  INFER_TRY(out->finish());
  print_summary(batch.totals(), std::chrono::duration<double>(Clock::now() - start).count(),
                batch.stopped());
  if (batch.stopped()) return kExitInterrupted;
  return batch.totals().n_failed > 0 ? kExitFailure : kExitOk;
}

}  // namespace

int run_batch(const CliOptions& options, Engine& engine, Interrupts& interrupts) {
  const Result<int> code = answer_all(options, engine, interrupts);
  return code.ok() ? *code : report_error(kProgram, code.error());
}

}  // namespace infer::tools
