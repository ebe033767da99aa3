#include "tools/quantize/options.h"

#include <charconv>
#include <filesystem>
#include <system_error>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "gguf/describe.h"
#include "gguf/overrides.h"

namespace infer::tools {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

std::string default_output(const std::string& in, std::string_view type) {
  std::error_code ec;
  const fs::path folder = fs::is_directory(in, ec) ? fs::path(in) : fs::path(in).parent_path();
  return (folder / fmt::format("ggml-model-{}.gguf", type)).string();
}

Result<int> read_threads(const std::string& text) {
  int n = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, n);
  if (error == std::errc() && stop == end && n >= 0 && n <= kMaxThreads) return n;
  return make_error(ErrorCode::kInvalidArgument, "THREADS '{}' is no number from 0 to {}",
                    gguf::printable(text), kMaxThreads);
}

/// IN, then OUT TYPE THREADS, TYPE THREADS, OUT TYPE or TYPE.
Result<void> read_places(const QuantizeArgs& args, QuantizeJob* job) {
  job->in = args.in;
  job->n_threads = args.n_threads;
  size_t at = 0;
  job->recipe.target = quantize::find_target(args.rest[0]);
  if (job->recipe.target == nullptr) {
    job->out = args.rest[at++];
    if (at == args.rest.size()) {
      return make_error(ErrorCode::kInvalidArgument, "'{}' is no type, or the type is missing: {}",
                        gguf::printable(job->out), quantize::target_names());
    }
    job->recipe.target = quantize::find_target(args.rest[at]);
    if (job->recipe.target == nullptr) {
      return make_error(ErrorCode::kInvalidArgument, "'{}' is no type that can be written: {}",
                        gguf::printable(args.rest[at]), quantize::target_names());
    }
  } else {
    job->out = default_output(args.in, job->recipe.target->name);
  }
  if (job->out.empty()) return make_error(ErrorCode::kInvalidArgument, "OUT is empty");
  if (++at == args.rest.size()) return {};
  INFER_ASSIGN(job->n_threads, read_threads(args.rest[at]));
  if (++at == args.rest.size()) return {};
  return make_error(ErrorCode::kInvalidArgument, "'{}' is one argument too many",
                    gguf::printable(args.rest[at]));
}

}  // namespace

void add_quantize_options(CLI::App& app, QuantizeArgs* a) {
  app.add_option("IN", a->in, "a GGUF file, or the first of a split model");
  app.add_option("ARGS", a->rest,
                 "[OUT] TYPE [THREADS]: the file to write (ggml-model-TYPE.gguf beside IN), the "
                 "type, and what -t says. Types: " +
                     quantize::target_names())
      ->expected(1, 3);
  app.add_option("-t,--threads", a->n_threads, "threads; 0: one a CPU")
      ->check(CLI::Range(0, kMaxThreads));
  app.add_flag("--plan,--dry-run", a->plan,
               "say what each tensor becomes and why, and write nothing");
  app.add_flag("--strict", a->strict,
               "fail where a row is too short for its type, instead of taking another");
  app.add_option("--report", a->report, "write sizes and errors of every tensor to a JSON file");
  app.add_flag("--best", a->best,
               "search the scales of Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 too: smaller errors, bytes "
               "other than llama.cpp's");
  app.add_option("--imatrix", a->imatrix, "importance matrix, a GGUF or .dat file");
  app.add_flag("--allow-requantize", a->allow_requantize,
               "start from tensors that are quantised already, at a loss");
  app.add_flag("--leave-output-tensor", a->leave_output, "keep output.weight as it is");
  app.add_flag("--pure", a->pure, "the same type for all tensors, no mix");
  app.add_option("--output-tensor-type", a->output_type, "type of output.weight");
  app.add_option("--token-embedding-type", a->embedding_type, "type of the token embeddings");
  app.add_option("--tensor-type", a->tensor_types,
                 "REGEX=TYPE: type of the tensors in whose name REGEX is found (repeats; the first "
                 "that fits counts)")
      ->expected(1)
      ->take_all();
  app.add_flag("--keep-split", a->keep_split, "write as many files as IN has");
  app.add_option("--override-kv", a->override_kv,
                 "KEY=TYPE:VALUE: a key of the output (repeats; TYPE int, float, bool or str)")
      ->expected(1)
      ->take_all();
  app.add_flag("-v,--verbose", a->verbose, "one line for each tensor, on stderr");
  app.add_option("--isa", a->isa, "instruction set: generic, avx2, avx512 (default: the best)");
}

Result<QuantizeJob> read_job(const QuantizeArgs& args) {
  QuantizeJob job;
  if (args.in.empty() || args.rest.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "IN [OUT] TYPE [THREADS] is expected (see --help)");
  }
  INFER_TRY(read_places(args, &job));
  std::error_code ec;
  if (job.out == args.imatrix || fs::equivalent(job.out, args.imatrix, ec))
    return make_error(ErrorCode::kInvalidArgument, "{}: is the importance matrix",
                      gguf::printable(job.out, 4096));
  quantize::RecipeOptions& r = job.recipe;
  r.pure = args.pure;
  r.leave_output = args.leave_output;
  r.keep_split = args.keep_split;
  if (!args.output_type.empty()) {
    INFER_ASSIGN(r.output_type,
                 quantize::parse_written_type(args.output_type, "--output-tensor-type"));
  }
  if (!args.embedding_type.empty()) {
    INFER_ASSIGN(r.embedding_type,
                 quantize::parse_written_type(args.embedding_type, "--token-embedding-type"));
  }
  for (const std::string& text : args.tensor_types) {
    INFER_ASSIGN(quantize::TensorTypeRule rule,
                 quantize::parse_tensor_type_rule(text, "--tensor-type"));
    r.tensor_types.push_back(std::move(rule));
  }
  for (const std::string& text : args.override_kv) {
    INFER_ASSIGN(gguf::KeyOverride one, gguf::parse_override(text, "--override-kv"));
    job.overrides.push_back(std::move(one));
  }
  return job;
}

}  // namespace infer::tools
