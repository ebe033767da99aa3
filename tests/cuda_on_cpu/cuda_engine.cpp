#include "tests/cuda_on_cpu/cuda_engine.h"

#include "backends/cpu/cpu_backend.h"
#include "core/base/error.h"

namespace infer::cuda::test {

Result<CudaEngine> CudaEngine::create(std::shared_ptr<const model::Model> model,
                                      const EngineOptions& options,
                                      const CudaBackendOptions& cuda) {
  CudaEngine box;
  box.counters_ = std::make_unique<CudaCounters>();
  CudaBackendOptions counted = cuda;
  counted.counters = box.counters_.get();
  std::string why_none;
  INFER_ASSIGN(box.backends_, make_cuda_backends(counted, &why_none));
  if (box.backends_.empty()) return make_error(ErrorCode::kNotFound, "{}", why_none);
  INFER_ASSIGN(auto cpu, cpu::make_cpu_backend({.n_threads = 1, .isa = "", .pin = false}));
  box.backends_.push_back(std::move(cpu));
  std::vector<runtime::Backend*> all;
  for (const auto& backend : box.backends_) all.push_back(backend.get());
  INFER_ASSIGN(box.engine_, Engine::create(std::move(model), options, all));
  return box;
}

std::vector<TokenId> prompt_of(int n_tok, int seed) {
  std::vector<TokenId> ids;
  for (int i = 0; i < n_tok; ++i) ids.push_back(3 + (i * 37 + seed * 101 + i * i * 11) % 250);
  return ids;
}

}  // namespace infer::cuda::test
