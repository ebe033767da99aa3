#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "core/engine.h"
#include "core/model/model.h"
#include "core/runtime/backend.h"
#include "tests/support/gguf_image.h"
#include "tests/support/sanitizers.h"

/// Models and engines for tests of whole runs.
namespace infer::test {

/// The value of a result; an error becomes an exception, which GoogleTest reports as a failure with
/// its message.
template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
inline void must(Result<void> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
}
/// A checkpoint of shared_dir()/golden/hf, converted once a process and read through a mapped
/// temporary file.
std::shared_ptr<const model::Model> hf_model(const std::string& name, DType type = DType::kF32);
/// shared_dir()/data/models/stories260K, converted once a process.
std::shared_ptr<const model::Model> stories_model();
std::shared_ptr<const model::Model> model_of(const std::filesystem::path& gguf);
/// A model parsed in memory; it keeps the bytes. Errors as from Reader::parse and Model::load.
Result<std::shared_ptr<const model::Model>> model_of(const GgufImage& image,
                                                     const std::string& name);
/// The same, written to a temporary file and mapped.
std::shared_ptr<const model::Model> mapped_model_of(const GgufImage& image,
                                                    const std::string& name);

/// ISA levels that are built and that this CPU has, best last.
std::vector<std::string> isa_levels();

struct CpuSpec {
  std::string isa;  ///< empty: the best
  int n_threads = 1;
};

/// An engine with the backends it needs; everything dies in the right order.
class EngineBox {
 public:
  /// Manual mode unless the options say otherwise is the caller's choice. Errors: as
  /// Engine::create.
  static Result<EngineBox> create(std::shared_ptr<const model::Model> model,
                                  const EngineOptions& options, const CpuSpec& cpu = {});
  Engine& operator*() const { return *engine_; }
  Engine* operator->() const { return engine_.get(); }

 private:
  std::unique_ptr<runtime::Backend> backend_;
  std::unique_ptr<Engine> engine_;
};

/// The least kv_mem_bytes with which an engine of these options holds one sequence of n_ctx tokens
/// (up to a twentieth more where there are windows).
int64_t least_kv_mem(const std::shared_ptr<const model::Model>& model,
                     const EngineOptions& options);
/// Bytes of K and V that one token takes in the layers of full attention.
int64_t kv_bytes_per_tok(const model::Model& model, const EngineOptions& options);

/// Greedy: temperature 0.
text::SamplingParams greedy();
Request make_request(std::vector<TokenId> prompt, int64_t max_tokens,
                     const text::SamplingParams& sampling);
/// Drives a manual engine until nothing is left to do.
void run_to_end(Engine& engine);
/// submit + run_to_end + wait.
Response run_request(Engine& engine, Request request);

/// Logits of prompt rows [from, prompt.size()), row after row, and what was generated after them.
struct Evaluation {
  std::vector<float> logits;
  Response response;
};
Evaluation evaluate(Engine& engine, std::span<const TokenId> prompt, int64_t max_tokens,
                    int32_t from = 0);

/// Options that make results comparable with a float32 reference.
EngineOptions precise_options();

}  // namespace infer::test
