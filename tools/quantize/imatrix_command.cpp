#include "tools/quantize/imatrix_command.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/eval/imatrix_collect.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tools/common/interrupt.h"
#include "tools/common/model_options.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "quantize";
constexpr int64_t kChunkTok = 512;
using Clock = std::chrono::steady_clock;

struct ImatrixArgs {
  ModelOptions model;
  std::string text, out = "imatrix.gguf";
  std::vector<std::string> in_files;
  int64_t chunk_tok = 0;  ///< 0: not said
  int64_t max_chunks = -1;
  int64_t output_frequency = 10;
  bool process_output = false;
  bool parse_special = false;
  bool fast = false;
  bool no_ppl = false;
};

Result<std::string> read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return make_error(ErrorCode::kNotFound, "{}: cannot be read", path);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return make_error(ErrorCode::kIo, "{}: cannot be read", path);
  return text;
}

/// Hours of work shall not end at a folder that cannot be written, nor over the model.
Result<void> check_out(const ImatrixArgs& args) {
  std::vector<std::string> inputs{args.model.model, args.text};
  if (const auto model = gguf::Reader::open(args.model.model); model.ok()) {
    for (int i = 0; i < (*model)->n_shards(); ++i) inputs.push_back((*model)->shard_path(i));
  }
  for (const std::string& in : inputs) {
    std::error_code ignored;
    if (!in.empty() && std::filesystem::equivalent(in, args.out, ignored))
      return make_error(ErrorCode::kInvalidArgument, "-o {}: is the input '{}'", args.out, in);
  }
  INFER_ASSIGN(const auto unused, gguf::Writer::create(args.out));
  return {};
}

/// The files to combine with; they say how long chunks are unless -c does.
Result<quantize::Imatrix> read_in_files(const ImatrixArgs& args) {
  quantize::Imatrix all;
  all.path = args.out;
  all.chunk_tok = args.chunk_tok;
  if (all.chunk_tok == 0 && !args.text.empty()) all.chunk_tok = kChunkTok;
  std::vector<quantize::Imatrix> files;
  for (const std::string& path : args.in_files) {
    INFER_ASSIGN(quantize::Imatrix file, quantize::Imatrix::read(path));
    if (all.chunk_tok == 0) all.chunk_tok = file.chunk_tok;
    files.push_back(std::move(file));
  }
  if (all.chunk_tok == 0) all.chunk_tok = kChunkTok;
  for (const quantize::Imatrix& file : files) INFER_TRY(all.combine(file));
  return all;
}

/// The line on a terminal that says how far it is; gone before anything else is printed.
class ProgressLine {
 public:
  ~ProgressLine() { clear(); }
  void show(int64_t done, int64_t all, int64_t chunk_tok) {
    const double s = std::chrono::duration<double>(Clock::now() - begin_).count();
    const auto left =
        static_cast<int64_t>(s / static_cast<double>(done) * static_cast<double>(all - done));
    const std::string text =
        fmt::format("chunk {} of {}, {:.1f} tok/s, {}:{:02} left", done, all,
                    static_cast<double>(done * chunk_tok) / s, left / 60, left % 60);
    fmt::print(stderr, "\r{:<{}}", text, kWidth);
    std::fflush(stderr);
    shown_ = true;
  }
  void clear() {
    if (std::exchange(shown_, false)) fmt::print(stderr, "\r{:{}}\r", "", kWidth);
  }

 private:
  static constexpr int kWidth = 78;
  const Clock::time_point begin_ = Clock::now();
  bool shown_ = false;
};

/// Ctrl-C and SIGTERM end the program at once, but for times that want to end by themselves: `stop`
/// is asked first then, and only a second signal is not waited for.
class Interrupts {
 public:
  std::stop_token token() const { return stop_.get_token(); }
  void wait_for_stop() { waits_ = true; }

 private:
  std::atomic<bool> waits_{false};
  std::stop_source stop_;
  InterruptWatcher watcher_{[this](int) {
    if (!waits_.load() || !stop_.request_stop()) _exit(kExitInterrupted);
  }};
};

/// Experts that no token met get no importance; the reader should know.
void warn_of_unmet(const quantize::Imatrix& imatrix) {
  int64_t n_unmet = 0, n_mat = 0;
  std::string first;
  for (const auto& [tensor, e] : imatrix.entries) {
    const int64_t n = std::count(e.n_tok.begin(), e.n_tok.end(), 0);
    if (n > 0 && first.empty()) first = tensor;
    n_unmet += n;
    n_mat += std::ssize(e.n_tok);
  }
  if (n_unmet > 0)
    fmt::print(stderr,
               "{}: warning: {} of {} matrices were met by no token (the first in '{}'): a longer "
               "text may help\n",
               kProgram, n_unmet, n_mat, first);
}

class Collection {
 public:
  Collection(const ImatrixArgs& args, quantize::Imatrix base)
      : args_(args), base_(std::move(base)), tap_(eval::watched_tensors(args.process_output)) {}

  Result<void> run(Interrupts& interrupts) {
    INFER_ASSIGN(const std::string text, read_text(args_.text));
    ModelOptions options = args_.model;
    options.no_prefix_cache = true;
    options.engine.n_ctx = base_.chunk_tok;
    options.engine.max_seqs = 1;
    options.engine.precise = !args_.fast;
    options.engine.tap = &tap_;
    INFER_ASSIGN(const LoadedModel loaded, load_model(kProgram, options));
    fmt::print(stderr, "{}\n", loaded.engine->summary());
    const eval::CollectOptions collect{
        .chunk_tok = base_.chunk_tok,
        .max_chunks = args_.max_chunks,
        .output = args_.process_output,
        .parse_special = args_.parse_special,
        .stop = interrupts.token(),
        .on_chunk = [this](int64_t done, int64_t all) { return after_chunk(done, all); }};
    interrupts.wait_for_stop();  // between two chunks, never inside of a file
    progress_.emplace();
    auto n = eval::collect_imatrix(*loaded.engine, text, collect);
    progress_.reset();
    if (!n.ok() && n.error().code == ErrorCode::kInvalidArgument)
      return make_error(n.error().code, "-f {}: {}", args_.text, n.error().message);
    if (!n.ok()) return std::move(n).error();
    return save(*n, /*is_last=*/true);
  }

 private:
  Result<void> after_chunk(int64_t done, int64_t all) {
    if (isatty(STDERR_FILENO) != 0) progress_->show(done, all, base_.chunk_tok);
    const int64_t every = args_.output_frequency;
    if (every == 0 || done % every != 0 || done == all) return {};
    return save(done, /*is_last=*/false);
  }

  Result<void> save(int64_t n_chunk, bool is_last) const {
    quantize::Imatrix all = base_;
    INFER_TRY(add_sums(tap_, &all));
    all.n_chunk += n_chunk;
    all.datasets.push_back(args_.text);
    INFER_TRY(all.write(args_.out));
    if (!is_last) return {};
    warn_of_unmet(all);
    fmt::print(stderr, "{}: {} tensors, {} chunks of {} tokens\n", args_.out, all.entries.size(),
               all.n_chunk, all.chunk_tok);
    return {};
  }

  const ImatrixArgs& args_;
  const quantize::Imatrix base_;
  runtime::ActivationTap tap_;
  std::optional<ProgressLine> progress_;  // while chunks are read
};

Result<void> run_command(const ImatrixArgs& args) {
  if (args.text.empty() && args.in_files.empty())
    return make_error(ErrorCode::kInvalidArgument,
                      "imatrix: nothing to do: give a text with -f, or files to combine with "
                      "--in-file");
  std::signal(SIGXFSZ, SIG_IGN);  // a limit of file sizes is an error of a write, not the end
  Interrupts interrupts;
  INFER_TRY(check_out(args));
  INFER_ASSIGN(quantize::Imatrix base, read_in_files(args));
  if (!args.text.empty()) return Collection(args, std::move(base)).run(interrupts);
  interrupts.wait_for_stop();
  INFER_TRY(base.write(args.out));
  fmt::print(stderr, "{}: {} tensors of {} files\n", args.out, base.entries.size(),
             args.in_files.size());
  return {};
}

int exit_code_of(const Result<void>& done) {
  if (done.ok()) return kExitOk;
  if (done.error().code == ErrorCode::kCancelled) return kExitInterrupted;
  return report_error(kProgram, done.error());
}

}  // namespace

Result<void> add_sums(const runtime::ActivationTap& tap, quantize::Imatrix* imatrix) {
  for (const auto& [tensor, sums] : tap.sums()) {
    if (std::ranges::all_of(sums.n_row, [](int64_t n) { return n == 0; })) continue;
    quantize::ImatrixEntry entry;
    entry.n_k = sums.n_k;
    entry.n_tok = sums.n_row;
    entry.sum_sq.assign(sums.sum_sq.begin(), sums.sum_sq.end());
    const auto bad =
        std::ranges::find_if_not(entry.sum_sq, [](float x) { return std::isfinite(x); });
    if (bad != entry.sum_sq.end())
      return make_error(ErrorCode::kNumeric, "activations of tensor '{}': sum of squares {} is {}",
                        tensor, bad - entry.sum_sq.begin(), *bad);
    INFER_TRY(imatrix->add(tensor, entry));
  }
  return {};
}

std::vector<Alias> imatrix_aliases() {
  return {{"-tb", "--threads-batch"}, {"-ofreq", "--output-frequency"}, {"-ngl", "--gpu-layers"}};
}

ImatrixCommand add_imatrix_command(CLI::App& app) {
  auto args = std::make_shared<ImatrixArgs>();
  CLI::App* sub = app.add_subcommand(
      "imatrix", "collects an importance matrix (for --imatrix) while a model reads a text");
  const auto threads = CLI::Range(0, 1024);
  sub->add_option("-m,--model", args->model.model,
                  "model file (GGUF); default: the one ./demo fetched");
  sub->add_option("-f,--file", args->text, "text to read; without it --in-file are combined");
  sub->add_option("-o,--output,--output-file", args->out, "file to write")->capture_default_str();
  sub->add_option("-c,--ctx-size", args->chunk_tok, "tokens of a chunk; default: 512")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  sub->add_option("-b,--batch-size", args->model.engine.n_batch, "tokens computed at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  sub->add_option("--chunks", args->max_chunks, "chunks to read; -1: all of the text")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40))
      ->capture_default_str();
  sub->add_option("-t,--threads", args->model.n_threads, "threads; 0: one a physical core")
      ->check(threads);
  sub->add_option("--threads-batch", args->model.n_threads_batch,
                  "threads for steps of several tokens; 0: as -t (also -tb)")
      ->check(threads);
  sub->add_option("--output-frequency", args->output_frequency,
                  "write the file every N chunks; 0: only at the end (also -ofreq)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
  sub->add_flag("--process-output", args->process_output, "the output matrix too");
  sub->add_flag("--parse-special", args->parse_special,
                "text such as <|im_end|> is the control token");
  sub->add_option("--in-file", args->in_files,
                  "importance matrix to add (GGUF or .dat; may be given several times)")
      ->type_name("FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub->add_flag("--fast", args->fast,
                "8-bit activations and f16 K/V, as models usually run; default: f32");
  sub->add_flag("--no-ppl", args->no_ppl, "as llama-imatrix has it; no perplexity is computed");
  sub->add_option("--gpu-layers,--n-gpu-layers", args->model.device.gpu_layers,
                  "as llama-imatrix has it; the CPU computes (also -ngl)")
      ->type_name("N|auto|all");
  sub->add_option("--isa", args->model.isa,
                  "CPU level: generic, avx2, avx512; default: the best that this CPU has");
  sub->add_flag("--no-mmap", args->model.no_mmap, "read the model instead of mapping it");
  sub->add_flag("--no-pin", args->model.no_pin, "do not bind threads to cores");
  return {sub, [args] { return exit_code_of(run_command(*args)); }};
}

}  // namespace infer::tools
