#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/cuda/cuda_backend.h"
#include "core/engine.h"
#include "core/model/model.h"
#include "core/runtime/backend.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// Engines over the CUDA backend, which here runs on the emulator.
namespace infer::cuda::test {

/// A tiny model whose heads are of a size that kernels take.
inline constexpr infer::test::TinyShape kTiny{
    .n_embd = 64, .n_head = 2, .n_kv_head = 1, .head_dim = 64, .n_ff = 96, .sigma = 0.1f};

/// What the tests of runs compare with f32 K and V would be: no kernel of the GPU has those.
inline EngineOptions cuda_options() {
  EngineOptions options = infer::test::precise_options();
  options.type_k = DType::kF16;
  options.type_v = DType::kF16;
  options.precise = false;
  options.n_gpu_layers = kGpuLayersAll;
  return options;
}

/// An engine over the CUDA devices and, as the last backend, the CPU; everything dies in the right
/// order.
class CudaEngine {
 public:
  /// Errors: as make_cuda_backends and Engine::create; kNotFound with the reason where there is no
  /// device.
  static Result<CudaEngine> create(std::shared_ptr<const model::Model> model,
                                   const EngineOptions& options,
                                   const CudaBackendOptions& cuda = {});
  Engine& operator*() const { return *engine_; }
  Engine* operator->() const { return engine_.get(); }
  const CudaCounters& counters() const { return *counters_; }

 private:
  std::unique_ptr<CudaCounters> counters_;
  std::vector<std::unique_ptr<runtime::Backend>> backends_;
  std::unique_ptr<Engine> engine_;
};

/// Ids below 250 that look like nothing in particular.
std::vector<TokenId> prompt_of(int n_tok, int seed);

}  // namespace infer::cuda::test
