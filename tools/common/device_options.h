#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backends/registry.h"
#include "core/base/result.h"
#include "core/engine.h"
#include "tools/common/args.h"

namespace CLI {
class App;
}

/// Flags that say which GPUs compute how much of a model.
namespace infer::tools {

struct DeviceOptions {
  std::string gpu_layers = "auto";  ///< -ngl
  std::string devices;              ///< --device; empty: all
  std::string tensor_split;         ///< -ts
};

/// --list-devices among them, which prints and ends the program as --help does.
void add_device_options(CLI::App& app, DeviceOptions* options);
/// -ngl and the like, for normalise_args.
std::vector<Alias> device_aliases();

/// Errors: kInvalidArgument naming the flag.
Result<void> apply_device_options(const DeviceOptions& options, EngineOptions* engine,
                                  BackendOptions* backend);
/// What the user should be warned of where there is no GPU: of flags that ask for one, of one that
/// failed; empty: nothing.
std::string no_gpu_warning(const DeviceOptions& options, const GpuAbsence& absence);
/// What a build for GPUs says where nobody asked for one and there is none; empty: nothing.
std::string no_gpu_note(const DeviceOptions& options, const GpuAbsence& absence);
/// What the user should be warned of where inputs of matrices are looked at, which the CPU does;
/// empty: nothing.
std::string tap_warning(const DeviceOptions& options);

/// Devices that compute the engine's stages: "cpu", "cpu+cuda:0".
std::string device_names(const Engine& engine);
/// What the numbers of a run depend on besides the model: "avx2", "avx2[0,5)+sm_86[5,34)".
std::string isa_names(const Engine& engine);

}  // namespace infer::tools
