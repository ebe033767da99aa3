#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/registry.h"
#include "core/engine.h"
#include "gguf/reader.h"
#include "tools/common/args.h"
#include "tools/common/device_options.h"

namespace CLI {
class App;
}

/// Flags that every program with a model has, and the way from them to an engine.
namespace infer::tools {

struct ModelOptions {
  std::string model;        ///< -m; empty: the one ./demo fetched
  int n_threads = 0;        ///< -t
  int n_threads_batch = 0;  ///< -tb
  std::string isa;          ///< --isa
  DeviceOptions device;
  bool no_mmap = false;
  bool no_pin = false;
  bool no_prefix_cache = false;
  bool mlock = false;
  bool no_hugepages = false;
  std::string numa;            ///< --numa
  std::string type_k, type_v;  ///< empty: f16, with --precise f32
  int64_t kv_mem_mib = 0;
  std::vector<std::string> lora;                           ///< --lora, scale 1
  std::vector<std::pair<std::string, float>> lora_scaled;  ///< --lora-scaled
  std::vector<std::string> override_kv;                    ///< KEY=TYPE:VALUE
  std::optional<double> rope_freq_base, rope_freq_scale, rope_scale;
  std::optional<std::string> rope_scaling;
  std::optional<int64_t> yarn_orig_ctx;
  std::optional<double> yarn_ext_factor, yarn_attn_factor, yarn_beta_slow, yarn_beta_fast;
  EngineOptions engine;
};

void add_model_options(CLI::App& app, ModelOptions* options);
/// -tb and the like, for normalise_args.
std::vector<Alias> model_aliases();

/// What --override-kv and the rope flags set in the file. Errors: kInvalidArgument naming the flag.
Result<std::vector<gguf::KeyOverride>> key_overrides(const ModelOptions& options);

/// Backends, then an engine on them; keeps both alive.
struct LoadedModel {
  std::vector<std::unique_ptr<runtime::Backend>> backends;
  std::unique_ptr<Engine> engine;
};
/// Shows a progress bar on a terminal's stderr. Warnings go to stderr as "<program>: warning: ...",
/// and where GPUs take part what goes where, a line a device.
Result<LoadedModel> load_model(std::string_view program, const ModelOptions& options);

/// Where ./demo puts models: $INFER_MODELS, else ${XDG_CACHE_HOME:-~/.cache}/infer/models.
std::string models_dir();

}  // namespace infer::tools
