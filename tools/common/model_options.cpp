#include "tools/common/model_options.h"

#include <pwd.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "core/model/adapter.h"
#include "core/model/model.h"
#include "gguf/reader.h"
#include "tools/common/key_options.h"

namespace infer::tools {
namespace {

constexpr const char* kDemoModel = "smollm2-135m-instruct-q4_1.gguf";
constexpr int kBarWidth = 40;

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string home_dir() {
  if (std::string home = env("HOME"); !home.empty()) return home;
  const passwd* pw = getpwuid(getuid());
  return pw != nullptr ? pw->pw_dir : "/";
}

void draw_progress(int64_t done, int64_t all) {
  const int filled = all > 0 ? static_cast<int>(kBarWidth * done / all) : kBarWidth;
  std::fprintf(stderr, "\rloading [%-*.*s] %3d %%", kBarWidth, filled,
               "########################################",
               all > 0 ? static_cast<int>(100 * done / all) : 100);
  if (done >= all) std::fprintf(stderr, "\r%*s\r", kBarWidth + 20, "");
  std::fflush(stderr);
}

Result<std::string> model_path(const ModelOptions& options) {
  if (!options.model.empty()) return options.model;
  const std::string path = models_dir() + "/" + kDemoModel;
  if (std::filesystem::exists(path)) return path;
  return make_error(ErrorCode::kInvalidArgument,
                    "no model: give one with -m, or run ./demo, which fetches '{}'", path);
}

Result<DType> kv_dtype(const char* flag, const std::string& name, bool precise) {
  if (name.empty()) return precise ? DType::kF32 : DType::kF16;
  const auto type = dtype_from_name(name);
  for (const DType known : {DType::kF16, DType::kBF16, DType::kF32, DType::kQ8_0, DType::kQ4_0}) {
    if (type == known) return known;
  }
  return make_error(ErrorCode::kInvalidArgument, "{} = {}: known are f16, bf16, f32, q8_0, q4_0",
                    flag, name);
}

Result<std::shared_ptr<const model::Model>> open_model(const std::string& path,
                                                       const ModelOptions& options,
                                                       std::vector<gguf::KeyOverride> overrides) {
  std::string given;  // the flags, for what reads the model later and knows of keys only
  for (const gguf::KeyOverride& o : overrides) {
    if (!o.only_if_missing)
      given += fmt::format("{}{} {}", given.empty() ? "" : ", ", o.flag, o.key);
  }
  INFER_ASSIGN(auto file, gguf::Reader::open(path, {.use_mmap = !options.no_mmap,
                                                    .huge_pages = !options.no_hugepages,
                                                    .overrides = std::move(overrides)}));
  auto model = model::Model::load(std::move(file));
  if (!model.ok() && !given.empty()) {
    return make_error(model.error().code, "{} (with {})", model.error().message, given);
  }
  if (model.ok() && (*model)->hparams().ropes.empty() && given.find("--rope") != given.npos) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} has no rotary embedding", given, path);
  }
  return model;
}

/// --lora and --lora-scaled: what every request uses unless it says otherwise.
Result<void> load_adapters(const ModelOptions& options, EngineOptions* engine) {
  std::vector<std::pair<std::string, float>> all;
  for (const std::string& path : options.lora) all.emplace_back(path, 1.0f);
  all.insert(all.end(), options.lora_scaled.begin(), options.lora_scaled.end());
  for (const auto& [path, scale] : all) {
    if (!std::isfinite(scale))
      return make_error(ErrorCode::kInvalidArgument, "--lora-scaled {} {}: no scale", path, scale);
    INFER_ASSIGN(auto file, gguf::Reader::open(path));
    INFER_ASSIGN(auto adapter, model::Adapter::load(std::move(file)));
    engine->default_adapters.push_back({static_cast<int32_t>(engine->adapters.size()), scale});
    engine->adapters.push_back(std::move(adapter));
  }
  return {};
}

/// A bar on a terminal; a line that comes while it is there takes its place.
void report_to_stderr(std::string_view program, EngineOptions* engine) {
  const auto bar = std::make_shared<bool>(false);
  const auto clear_bar = [bar] {
    if (std::exchange(*bar, false)) std::fprintf(stderr, "\r%*s\r", kBarWidth + 20, "");
  };
  if (isatty(STDERR_FILENO) != 0) {
    engine->progress = [bar](int64_t done, int64_t all) {
      *bar = done < all;
      draw_progress(done, all);
    };
  }
  engine->inform = [clear_bar](const std::string& line) {
    clear_bar();
    std::fprintf(stderr, "%s\n", line.c_str());
  };
  engine->warn = [program, clear_bar](const std::string& line) {
    clear_bar();
    std::fprintf(stderr, "%.*s: warning: %s\n", static_cast<int>(program.size()), program.data(),
                 line.c_str());
  };
}

Result<std::vector<std::unique_ptr<runtime::Backend>>> open_backends(const ModelOptions& options,
                                                                     EngineOptions* engine) {
  BackendOptions backend{.n_threads = options.n_threads,
                         .n_threads_batch = options.n_threads_batch,
                         .isa = options.isa,
                         .pin = !options.no_pin,
                         .huge_pages = !options.no_hugepages,
                         .lock_memory = options.mlock,
                         .numa = options.numa};
  INFER_TRY(apply_device_options(options.device, engine, &backend));
  if (engine->tap != nullptr) {
    backend.gpus = false;
    if (const std::string line = tap_warning(options.device); !line.empty()) engine->warn(line);
  }
  GpuAbsence absence;
  INFER_ASSIGN(auto backends, make_backends(backend, &absence));
  if (const std::string line = no_gpu_warning(options.device, absence); !line.empty())
    engine->warn(line);
  if (const std::string line = no_gpu_note(options.device, absence); !line.empty())
    engine->inform(line);
  for (const std::string& line : absence.left_out) {
    if (absence.why.empty()) engine->warn(line + ": left out");
  }
  return backends;
}

}  // namespace

std::string models_dir() {
  if (std::string dir = env("INFER_MODELS"); !dir.empty()) return dir;
  if (std::string cache = env("XDG_CACHE_HOME"); !cache.empty()) return cache + "/infer/models";
  return home_dir() + "/.cache/infer/models";
}

void add_model_options(CLI::App& app, ModelOptions* o) {
  const auto threads = CLI::Range(0, 1024);
  app.add_option("-m,--model", o->model, "model file (GGUF); default: the one ./demo fetched");
  app.add_option("-c,--ctx-size", o->engine.n_ctx,
                 "tokens of context, prompt included; 0: the model's limit")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_option("-b,--batch-size", o->engine.n_batch, "tokens computed at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  app.add_option("-t,--threads", o->n_threads,
                 "threads; 0: one a physical core within the cgroup's quota")
      ->check(threads);
  app.add_option("--threads-batch", o->n_threads_batch, "threads for prompts; 0: as -t (also -tb)")
      ->check(threads);
  app.add_option("--isa", o->isa,
                 "CPU level: generic, avx2, avx512; default: the best that this CPU has");
  add_device_options(app, &o->device);
  app.add_option("--cache-type-k", o->type_k,
                 "type of the K cache: f16, f32, q8_0, q4_0, on GPUs bf16; default: f16, with "
                 "--precise f32 "
                 "(also -ctk)");
  app.add_option("--cache-type-v", o->type_v,
                 "type of the V cache: f16, f32, q8_0, q4_0, on GPUs bf16; default: f16, with "
                 "--precise f32 "
                 "(also -ctv)");
  app.add_option("--kv-mem", o->kv_mem_mib, "limit of the K/V cache in MiB; 0: what -c needs")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30));
  app.add_option("--lora", o->lora, "LoRA adapter (GGUF) to add (may be given several times)")
      ->type_name("FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--lora-scaled", o->lora_scaled,
                 "LoRA adapter to add so many times: FILE SCALE (may be given several times)")
      ->type_name("FILE SCALE")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--precise", o->engine.precise,
               "f32 activations and, unless --cache-type-* says otherwise, f32 K/V, as the "
               "reference computes");
  app.add_flag("--unfused", o->engine.unfused, "reference composition instead of fused ops");
  app.add_flag("--no-prefix-cache", o->no_prefix_cache,
               "do not share the cache of equal prompt beginnings");
  add_key_options(app, o);
  app.add_flag("--no-mmap", o->no_mmap, "read the file instead of mapping it");
  app.add_flag("--no-pin", o->no_pin, "do not bind threads to cores");
  app.add_flag("--mlock", o->mlock, "keep weights and K/V in RAM");
  app.add_option("--numa", o->numa,
                 "several NUMA nodes: distribute threads and memory, isolate to the node of the "
                 "start, or numactl: use the CPUs it gives")
      ->check(CLI::IsMember({"distribute", "isolate", "numactl"}));
  app.add_flag("--no-hugepages", o->no_hugepages, "do not ask for huge pages");
}

std::vector<Alias> model_aliases() {
  std::vector<Alias> all = device_aliases();
  all.insert(all.end(),
             {{"-tb", "--threads-batch"}, {"-ctk", "--cache-type-k"}, {"-ctv", "--cache-type-v"}});
  return all;
}

Result<LoadedModel> load_model(std::string_view program, const ModelOptions& options) {
  INFER_ASSIGN(const std::string path, model_path(options));
  EngineOptions engine = options.engine;
  INFER_ASSIGN(engine.type_k, kv_dtype("--cache-type-k", options.type_k, engine.precise));
  INFER_ASSIGN(engine.type_v, kv_dtype("--cache-type-v", options.type_v, engine.precise));
  engine.prefix_cache = !options.no_prefix_cache;
  engine.kv_mem_bytes = options.kv_mem_mib << 20;
  report_to_stderr(program, &engine);
  if (const int most = suggested_threads();
      std::max(options.n_threads, options.n_threads_batch) > most) {
    engine.warn(fmt::format("more threads than the {} that this process can use at once", most));
  }
  if (!options.numa.empty() && numa_nodes() == 1)
    engine.warn("--numa " + options.numa + ": this machine has one node, nothing to do");

  LoadedModel loaded;
  INFER_ASSIGN(loaded.backends, open_backends(options, &engine));
  INFER_ASSIGN(std::vector<gguf::KeyOverride> overrides, key_overrides(options));
  INFER_ASSIGN(auto model, open_model(path, options, std::move(overrides)));
  INFER_TRY(load_adapters(options, &engine));
  std::vector<runtime::Backend*> devices;
  for (const auto& b : loaded.backends) devices.push_back(b.get());
  INFER_ASSIGN(loaded.engine, Engine::create(std::move(model), engine, devices));
  return loaded;
}

}  // namespace infer::tools
