#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/output_file.h"
#include "core/eval/stats.h"
#include "core/model/model.h"
#include "tools/common/model_options.h"
#include "tools/infer-bench/command.h"
#include "tools/infer-bench/output.h"
#include "tools/infer-bench/profile.h"
#include "tools/infer-bench/run_tests.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-bench";
using Clock = std::chrono::steady_clock;

struct RunArgs {
  ModelOptions model;
  std::vector<int64_t> n_prompt = {512}, n_gen = {128}, depth = {0}, batch = {1};
  int n_rep = 5;
  uint64_t seed = 1;
  ProfileArgs profile;
  OutputFormat format;
};

struct TestResult {
  BenchTest test;
  Speed speed;
};

struct RunReport {
  std::string model, backend;
  std::string type, size, params;  ///< from the model's description
  int n_threads = 0;
  double load_ms = 0, first_token_ms = 0;
  std::vector<TestResult> results;
  std::optional<ProfiledRun> profiled;
};

/// A line of /proc/self/status in MiB; 0 where there is none.
double status_mib(const std::string& key) {
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with(key + ":"))
      return std::strtod(line.c_str() + key.size() + 1, nullptr) / 1024.0;
  }
  return 0.0;
}

int64_t peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

std::vector<BenchTest> tests_of(const RunArgs& args) {
  std::vector<BenchTest> tests;
  for (const int64_t depth : args.depth) {
    for (const int64_t n : args.n_prompt) {
      if (n > 0) tests.push_back({BenchTest::Kind::kPrompt, n, depth, 1});
    }
    for (const int64_t n : args.n_gen) {
      for (const int64_t batch : args.batch) {
        if (n > 0) tests.push_back({BenchTest::Kind::kGenerate, n, depth, batch});
      }
    }
  }
  return tests;
}

/// "name, arch, type, parameters, size" of Model::description(); a name may hold commas.
void split_description(std::string text, RunReport* report) {
  const auto take_last = [&] {
    const size_t at = text.rfind(", ");
    std::string last = at == std::string::npos ? text : text.substr(at + 2);
    text = at == std::string::npos ? "" : text.substr(0, at);
    return last;
  };
  report->size = take_last();
  report->params = take_last();
  if (const size_t word = report->params.find(" parameters"); word != std::string::npos)
    report->params.resize(word);
  report->type = take_last();
  report->type = take_last() + " " + report->type;
}

nlohmann::ordered_json test_json(const TestResult& r) {
  nlohmann::ordered_json j;
  j["test"] = r.test.name();
  j["n_prompt"] = r.test.kind == BenchTest::Kind::kPrompt ? r.test.n : 0;
  j["n_gen"] = r.test.kind == BenchTest::Kind::kGenerate ? r.test.n : 0;
  j["depth"] = r.test.depth;
  j["batch"] = r.test.batch;
  j["tok_s"] = rounded(r.speed.tok_s);
  j["cpu_tok_s"] = rounded(r.speed.cpu_tok_s);
  j["median"] = rounded(eval::median(r.speed.tok_s));
  return j;
}

/// The fields of llama.cpp's timer in ../shared/bench (engine, model, threads, depth, pp, tg,
/// rss_mb: of the first test of each kind), and all tests.
nlohmann::ordered_json to_json(const RunArgs& args, const RunReport& report) {
  nlohmann::ordered_json j;
  j["engine"] = "infer";
  j["model"] = report.model;
  j["type"] = report.type;
  j["backend"] = report.backend;
  j["threads"] = report.n_threads;
  j["depth"] = args.depth.front();
  for (const TestResult& r : report.results) {
    const bool prompt = r.test.kind == BenchTest::Kind::kPrompt;
    nlohmann::ordered_json entry;
    entry["n"] = r.test.n;
    if (!prompt) entry["batch"] = r.test.batch;
    entry["tok_s"] = rounded(r.speed.tok_s);
    entry["cpu_tok_s"] = rounded(r.speed.cpu_tok_s);
    if (!j.contains(prompt ? "pp" : "tg")) j[prompt ? "pp" : "tg"] = std::move(entry);
  }
  j["load_ms"] = rounded(report.load_ms);
  j["first_token_ms"] = rounded(report.first_token_ms);
  j["rss_mb"] = peak_rss_mib();
  j["rss_anon_mib"] = rounded(status_mib("RssAnon"));
  j["rss_file_mib"] = rounded(status_mib("RssFile"));
  j["rss_mib"] = rounded(status_mib("RssAnon") + status_mib("RssFile"));
  j["tests"] = nlohmann::json::array();
  for (size_t i = 0; i < report.results.size(); ++i) {
    j["tests"].push_back(test_json(report.results[i]));
    if (report.profiled) j["tests"].back()["profile"] = profile_json(report.profiled->reports[i]);
  }
  return j;
}

std::string to_md(const RunReport& report) {
  Table table({{"model"},
               {"size", true},
               {"params", true},
               {"backend"},
               {"threads", true},
               {"test", true},
               {"t/s", true}});
  for (const TestResult& r : report.results) {
    table.add({report.type, report.size, report.params, report.backend,
               std::to_string(report.n_threads), r.test.name(), mean_and_spread(r.speed.tok_s)});
  }
  std::string out = table.text();
  if (!report.profiled) return out;
  for (const auto& profile : report.profiled->reports) out += "\n" + profile_md(profile);
  return out;
}

/// Prompts, and sequences together, are steps of many rows, which have threads of their own.
int threads_of(const BenchTest& test, const RunArgs& args, const RunReport& report) {
  const bool many = test.kind == BenchTest::Kind::kPrompt || test.batch > 1;
  return many && args.model.n_threads_batch > 0 ? args.model.n_threads_batch : report.n_threads;
}

/// From nothing to the first token of a one-token prompt, as a person waits for it.
Result<LoadedModel> load_and_answer(const ModelOptions& options, RunReport* report) {
  const auto ms = [begin = Clock::now()] {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  };
  INFER_ASSIGN(LoadedModel loaded, load_model(kProgram, options));
  report->load_ms = ms();
  Request first;
  first.prompt = {0};
  first.max_tokens = 1;
  first.sampling.temp = 0.0f;
  INFER_ASSIGN(const Response answer, loaded.engine->generate(std::move(first)));
  report->first_token_ms = ms();
  return loaded;
}

Result<void> run_tests(Engine& engine, const std::vector<BenchTest>& tests, const RunArgs& args,
                       runtime::OpProfile* profile, RunReport* report) {
  std::vector<RecordedTest> recorded;
  if (!args.profile.on) profile = nullptr;
  for (const BenchTest& test : tests) {
    INFER_ASSIGN(Speed speed, run_test(engine, test, args.n_rep, args.seed, profile));
    if (profile != nullptr) {
      RecordedTest& r = recorded.emplace_back();
      r.test.name = test.name();
      r.test.prompt = test.kind == BenchTest::Kind::kPrompt;
      r.test.wall_s = speed.wall_s;
      r.test.cpu_s = speed.cpu_s;
      r.test.n_threads = threads_of(test, args, *report);
      r.test.isa = engine.stages().front().isa;
      r.profile = *profile;
    }
    report->results.push_back({test, std::move(speed)});
  }
  if (profile != nullptr) {
    INFER_ASSIGN(report->profiled, judge(args.profile, !args.model.no_pin, recorded));
  }
  return {};
}

Result<void> run_model(RunArgs& args) {
  const std::vector<BenchTest> tests = tests_of(args);
  if (tests.empty())
    return make_error(ErrorCode::kInvalidArgument, "nothing to do: -p and -n are 0");
  fit_options(tests, &args.model.engine);
  if (args.model.engine.max_seqs > args.model.engine.n_batch)
    return make_error(ErrorCode::kInvalidArgument, "-b {}: more sequences than --ubatch-size {}",
                      args.model.engine.max_seqs, args.model.engine.n_batch);
  args.model.no_prefix_cache = !args.model.engine.prefix_cache;
  INFER_ASSIGN(std::optional<OutputFile> chart, open_chart(args.profile, args.model.model));
  runtime::OpProfile profile;
  if (args.profile.on) INFER_TRY(prepare_profile(&args.model, &profile));
  RunReport report;
  INFER_ASSIGN(const LoadedModel loaded, load_and_answer(args.model, &report));
  Engine& engine = *loaded.engine;
  if (engine.n_ctx() < args.model.engine.n_ctx)
    return make_error(ErrorCode::kInvalidArgument,
                      "the tests need a context of {} tokens, a sequence can have {}",
                      args.model.engine.n_ctx, engine.n_ctx());
  std::fprintf(stderr, "%s\n", engine.summary().c_str());
  report.model = engine.model().file().path();
  report.n_threads = args.model.n_threads > 0 ? args.model.n_threads : suggested_threads();
  report.backend = device_names(engine);
  split_description(engine.model().description(), &report);
  INFER_TRY(run_tests(engine, tests, args, &profile, &report));
  if (chart) {
    const std::string file_name = std::filesystem::path(report.model).filename().string();
    INFER_TRY(write_chart(file_name + ", " + report.type, *report.profiled, &*chart));
  }
  return args.format.json ? print(to_json(args, report)) : print(to_md(report));
}

void add_model_flags(CLI::App& sub, ModelOptions* o) {
  sub.add_option("-m,--model", o->model, "model file (GGUF); default: the one ./demo fetched");
  sub.add_option("-t,--threads", o->n_threads, "threads; 0: one a physical core")
      ->check(CLI::Range(0, 1024));
  sub.add_option("--threads-batch", o->n_threads_batch, "threads for prompts; 0: as -t (also -tb)")
      ->check(CLI::Range(0, 1024));
  sub.add_option("--ubatch-size", o->engine.n_batch, "tokens computed at once (also -ub)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  sub.add_option("--isa", o->isa,
                 "CPU level: generic, avx2, avx512; default: the best that this CPU has");
  add_device_options(sub, &o->device);
  sub.add_option("--cache-type-k", o->type_k,
                 "type of the K cache; default: f16, with --precise f32 (also -ctk)");
  sub.add_option("--cache-type-v", o->type_v,
                 "type of the V cache; default: f16, with --precise f32 (also -ctv)");
  sub.add_flag("--precise", o->engine.precise,
               "f32 activations, and f32 K/V unless they have a type");
  sub.add_flag("--unfused", o->engine.unfused, "reference composition instead of fused ops");
  sub.add_flag("--no-mmap", o->no_mmap, "read the file instead of mapping it");
  sub.add_flag("--no-pin", o->no_pin, "do not bind threads to cores");
}

}  // namespace

Command add_run(CLI::App& app) {
  auto args = std::make_shared<RunArgs>();
  CLI::App* sub = app.add_subcommand("run", "a model: prompt processing and generation");
  add_model_flags(*sub, &args->model);
  const auto list = [&](const char* flags, std::vector<int64_t>* values, int64_t least,
                        const char* help) {
    sub->add_option(flags, *values, help)
        ->delimiter(',')
        ->check(CLI::Range(least, int64_t{1} << 22))
        ->capture_default_str();
  };
  list("-p,--n-prompt", &args->n_prompt, 0, "tokens of the prompt, several by comma; 0: none");
  list("-n,--n-gen", &args->n_gen, 0, "tokens to generate, several by comma; 0: none");
  list("-d,--n-depth", &args->depth, 0, "tokens in the cache before, several by comma");
  list("-b,--batch", &args->batch, 1, "sequences that generate together, several by comma");
  sub->add_option("-r,--repetitions", args->n_rep, "how often each test counts")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  sub->add_option("-s,--seed", args->seed, "seed of the random tokens")->capture_default_str();
  add_profile_flags(*sub, &args->profile);
  add_output_flags(*sub, &args->format);
  return {sub, [args] { return run_model(*args); }};
}

}  // namespace infer::tools
