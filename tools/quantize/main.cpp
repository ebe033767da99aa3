#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/output_file.h"
#include "gguf/describe.h"
#include "quantize/codec.h"
#include "quantize/gguf_source.h"
#include "quantize/quantize.h"
#include "tools/common/args.h"
#include "tools/common/interrupt.h"
#include "tools/quantize/imatrix_command.h"
#include "tools/quantize/options.h"
#include "tools/quantize/progress.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "quantize";

void warn(std::string_view message) { fmt::print(stderr, "{}: warning: {}\n", kProgram, message); }

/// One file by two names, also where there is none yet.
bool same_file(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  std::error_code ec;
  if (a == b || fs::equivalent(a, b, ec)) return true;
  const fs::path whole = fs::weakly_canonical(a, ec);
  return !whole.empty() && whole == fs::weakly_canonical(b, ec);
}

/// Every file that is read or written beside the report.
std::vector<std::string> files_of(const QuantizeArgs& args, const QuantizeJob& job,
                                  const gguf::Reader& model) {
  std::vector<std::string> files = quantize::output_paths(model, job.out, args.keep_split);
  files.push_back(job.out);
  for (int i = 0; i < model.n_shards(); ++i) files.push_back(model.shard_path(i));
  if (!args.imatrix.empty()) files.push_back(args.imatrix);
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(job.in, ec))  // of a folder
    files.push_back(entry.path().string());
  return files;
}

/// Before the work: the report replaces no file of the work, and can be written.
Result<void> check_report(const QuantizeArgs& args, const QuantizeJob& job,
                          const gguf::Reader& model) {
  const std::string& path = args.report;
  for (const std::string& other : files_of(args, job, model)) {
    if (same_file(path, other))
      return make_error(ErrorCode::kInvalidArgument, "--report {}: would replace '{}'", path,
                        gguf::printable(other, 4096));
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (access(folder.empty() ? "." : folder.c_str(), W_OK) == 0) return {};
  return make_error(ErrorCode::kIo, "{}: cannot write the report", path);
}

Result<void> write_report(const std::string& path, const std::string& json) {
  INFER_ASSIGN(OutputFile out, OutputFile::create(path));
  INFER_TRY(out.write(json));
  return out.finish();
}

double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void print_summary(const QuantizeJob& job, const quantize::Plan& plan,
                   const quantize::RunOptions& run, double seconds) {
  std::string files = gguf::printable(run.output.paths.front(), 4096);
  if (run.output.paths.size() > 1)
    files += fmt::format(" and {} more", run.output.paths.size() - 1);
  fmt::print("{}: {}, {:.2f} -> {:.2f} MiB, {:.2f} bits per weight, {:.2f} s\n", files,
             job.recipe.target->name, mib(plan.from_bytes), mib(plan.to_bytes),
             plan.bits_per_weight(), seconds);
}

/// What carry_out works with.
struct Work {
  const QuantizeJob& job;
  const quantize::Codec& codec;
  const quantize::Source& source;
  const quantize::Plan& plan;
  const quantize::Imatrix* importance;  ///< nullptr: none
  const std::atomic<bool>& cancel;
};

Result<void> carry_out(const QuantizeArgs& args, const Work& w) {
  quantize::RunOptions run;
  run.output.paths = quantize::output_paths(w.source.header(), w.job.out, args.keep_split);
  run.output.keys = {w.job.recipe.target, w.job.overrides, w.importance, args.imatrix};
  run.imatrix = w.importance;
  run.best = args.best;
  run.measure = !args.report.empty();
  run.n_threads = w.job.n_threads;
  run.cancel = &w.cancel;
  ProgressView view(w.plan, args.verbose);
  view.attach(&run);
  INFER_ASSIGN(const quantize::Report report, quantize::quantize(w.source, w.plan, w.codec, run));
  const double seconds = view.finish();
  if (w.plan.n_fallback > 0) warn(fallback_text(w.plan));
  if (report.n_without_importance > 0) {
    warn(fmt::format("{}: knows nothing of {} tensors (the first: '{}')", args.imatrix,
                     report.n_without_importance,
                     gguf::printable(report.first_without_importance)));
  }
  if (!args.report.empty()) {
    const quantize::ReportFacts facts{w.job.in,
                                      w.job.out,
                                      std::string(w.job.recipe.target->name),
                                      w.codec.encoders.isa,
                                      quantize::pick_threads(w.job.n_threads),
                                      seconds,
                                      args.best,
                                      args.imatrix};
    INFER_TRY(write_report(args.report, report_json(w.plan, report, facts)));
  }
  print_summary(w.job, w.plan, run, seconds);
  return {};
}

Result<void> run(const QuantizeArgs& args, const std::atomic<bool>& cancel) {
  INFER_ASSIGN(QuantizeJob job, read_job(args));
  std::optional<quantize::Imatrix> imatrix;
  if (!args.imatrix.empty()) {
    INFER_ASSIGN(imatrix, quantize::Imatrix::read(args.imatrix));
  }
  job.recipe.has_imatrix = imatrix && !imatrix->entries.empty();
  INFER_ASSIGN(const quantize::Codec codec, quantize::select_codec(args.isa));
  INFER_ASSIGN(const auto source,
               quantize::open_source(job.in, job.overrides, codec.kernels, warn));
  INFER_ASSIGN(const quantize::Plan plan, quantize::make_plan(source->header(), job.recipe));
  if (args.plan) fmt::print("{}", plan_text(plan));
  INFER_TRY(check_plan(plan, *job.recipe.target,
                       {args.strict, args.allow_requantize, job.recipe.has_imatrix}));
  if (args.plan) return {};
  if (imatrix) INFER_TRY(quantize::fit_imatrix(plan, &*imatrix));
  if (!args.report.empty()) INFER_TRY(check_report(args, job, source->header()));
  const quantize::Imatrix* importance = job.recipe.has_imatrix ? &*imatrix : nullptr;
  return carry_out(args, {job, codec, *source, plan, importance, cancel});
}

int main_with(int argc, char** argv) {
  QuantizeArgs args;
  CLI::App app("Writes a model in another type: smaller, and as near to the original as it gets.",
               kProgram);
  add_quantize_options(app, &args);
  const ImatrixCommand imatrix = add_imatrix_command(app);
  if (const int code = parse_args(app, normalise_args(argc, argv, imatrix_aliases())); code >= 0)
    return code;
  if (imatrix.app->parsed()) return imatrix.run();
  std::signal(SIGXFSZ, SIG_IGN);  // a limit of file sizes is an error of a write, not the end
  std::atomic<bool> cancel{false};
  const InterruptWatcher interrupts([&cancel] { cancel = true; });
  const Result<void> done = run(args, cancel);
  if (done.ok()) return kExitOk;
  if (done.error().code == ErrorCode::kCancelled) return kExitInterrupted;
  return report_error(kProgram, done.error());
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  return infer::tools::run_program(infer::tools::kProgram, infer::tools::main_with, argc, argv);
}
