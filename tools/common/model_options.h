#pragma once

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "backends/registry.h"
#include "core/engine.h"
#include "tools/common/args.h"

/// Flags that every program with a model has, and the way from them to an engine.
namespace infer::tools {

struct ModelOptions {
  std::string model;        ///< -m; empty: the one ./demo fetched
  int n_threads = 0;        ///< -t
  int n_threads_batch = 0;  ///< -tb
  std::string isa;          ///< --isa
  bool no_mmap = false;
  bool no_pin = false;
  bool no_prefix_cache = false;
  std::string type_k = "f16", type_v = "f16";
  int64_t kv_mem_mib = 0;
  EngineOptions engine;
};

void add_model_options(CLI::App& app, ModelOptions* options);
/// -tb and the like, for normalise_args.
std::vector<Alias> model_aliases();

/// Backends, then an engine on them; keeps both alive.
struct LoadedModel {
  std::vector<std::unique_ptr<runtime::Backend>> backends;
  std::unique_ptr<Engine> engine;
};
/// Shows a progress bar on a terminal's stderr. Warnings go to stderr as "<program>: warning: ...".
Result<LoadedModel> load_model(std::string_view program, const ModelOptions& options);

/// Where ./demo puts models: $INFER_MODELS, else ${XDG_CACHE_HOME:-~/.cache}/infer/models.
std::string models_dir();

}  // namespace infer::tools
