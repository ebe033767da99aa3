#include "tests/support/model_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <system_error>

#include "backends/cpu/cpu_backend.h"
#include "core/base/checked.h"
#include "core/base/cpu_features.h"
#include "core/base/quant_types.h"
#include "core/runtime/step.h"
#include "kernels/cpu/dispatch.h"
#include "tests/support/source_image.h"
#include "tests/support/stories260k.h"
#include "tests/support/test_env.h"

namespace infer::test {
namespace {

/// A folder of this process that goes with it.
class TempFolder {
 public:
  TempFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("infer-test-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

using ModelPtr = std::shared_ptr<const model::Model>;

/// Models made in this process, by file name.
template <class Make>
ModelPtr cached(const std::string& name, Make&& make) {
  static std::mutex mutex;
  static std::map<std::string, ModelPtr> models;
  const std::lock_guard lock(mutex);
  ModelPtr& model = models[name];
  if (model == nullptr) model = mapped_model_of(make(), name);
  return model;
}

}  // namespace

std::shared_ptr<const model::Model> mapped_model_of(const GgufImage& image,
                                                    const std::string& name) {
  static const TempFolder folder;
  const std::filesystem::path path = folder.path() / (name + ".gguf");
  must(image.write(path));
  return model_of(path);
}

std::shared_ptr<const model::Model> hf_model(const std::string& name, DType type) {
  return cached(name + "." + std::string(name_of(type)),
                [&] { return must(convert_hf(shared_dir() / "golden/hf" / name, type)); });
}

std::shared_ptr<const model::Model> stories_model() {
  return cached("stories260K",
                [] { return must(convert_stories260k(shared_dir() / "data/models/stories260K")); });
}

std::shared_ptr<const model::Model> model_of(const std::filesystem::path& gguf) {
  return must(model::Model::load(must(gguf::Reader::open(gguf.string()))));
}

Result<std::shared_ptr<const model::Model>> model_of(const GgufImage& image,
                                                     const std::string& name) {
  struct Held {
    std::vector<std::byte> bytes;
    std::shared_ptr<const gguf::Reader> reader;
    ModelPtr model;
  };
  auto held = std::make_shared<Held>();
  held->bytes = image.serialize();
  INFER_ASSIGN(held->reader, gguf::Reader::parse(held->bytes, name));
  INFER_ASSIGN(held->model, model::Model::load(held->reader));
  return ModelPtr(held, held->model.get());
}

std::vector<std::string> isa_levels() {
  std::vector<std::string> levels;
  for (const std::string_view isa : kern::built_isa_levels()) {
    if (kern::select_kernels(detect_cpu_features(), isa).ok()) levels.emplace_back(isa);
  }
  return levels;
}

Result<EngineBox> EngineBox::create(std::shared_ptr<const model::Model> model,
                                    const EngineOptions& options, const CpuSpec& cpu) {
  EngineBox box;
  INFER_ASSIGN(
      box.backend_,
      cpu::make_cpu_backend(
          {.n_threads = cpu.n_threads, .n_threads_batch = 0, .isa = cpu.isa, .pin = false}));
  runtime::Backend* const backends[] = {box.backend_.get()};
  INFER_ASSIGN(box.engine_, Engine::create(std::move(model), options, backends));
  return box;
}

int64_t kv_bytes_per_tok(const model::Model& model, const EngineOptions& options) {
  int64_t n_bytes = 0;
  const graph::Graph graph = must(model.build_graph({}));
  for (const graph::CacheLayer& layer : graph.cache_layers) {
    if (graph.cache_groups[static_cast<size_t>(layer.group)].kind != graph::CacheKind::kFull)
      continue;
    n_bytes += layer.n_kv_head * (*row_bytes(options.type_k, layer.head_dim) +
                                  *row_bytes(options.type_v, layer.head_dim_v));
  }
  return n_bytes;
}

int64_t least_kv_mem(const std::shared_ptr<const model::Model>& model,
                     const EngineOptions& options) {
  const auto backend = must(cpu::make_cpu_backend(
      {.n_threads = 1, .n_threads_batch = 0, .isa = "generic", .pin = false}));
  runtime::Backend* const backends[] = {backend.get()};
  const auto fits = [&](int64_t kv_mem) {
    EngineOptions tight = options;
    tight.kv_mem_bytes = kv_mem;
    const auto engine = Engine::create(model, tight, backends);
    if (engine.ok())
      return (*engine)->n_ctx() >= std::min(options.n_ctx, model->hparams().n_ctx_train);
    if (engine.error().code != ErrorCode::kOutOfMemory)
      throw std::runtime_error(engine.error().message);
    return false;
  };
  int64_t high = std::max<int64_t>(
      1024, align_up(options.n_ctx, runtime::kBlockTok) * kv_bytes_per_tok(*model, options));
  int64_t low = high - 1;
  while (!fits(high)) {
    low = high;
    high *= 2;
  }
  while (high - low > high / 20 + 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle) ? high : low) = middle;
  }
  return high;
}

text::SamplingParams greedy() {
  text::SamplingParams params;
  params.temp = 0.0f;
  return params;
}

Request make_request(std::vector<TokenId> prompt, int64_t max_tokens,
                     const text::SamplingParams& sampling) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling = sampling;
  return request;
}

void run_to_end(Engine& engine) {
  while (must(engine.run_step())) {
  }
}

Response run_request(Engine& engine, Request request) {
  const RequestId id = must(engine.submit(std::move(request)));
  run_to_end(engine);
  return must(engine.wait(id));
}

Evaluation evaluate(Engine& engine, std::span<const TokenId> prompt, int64_t max_tokens,
                    int32_t from) {
  Evaluation out;
  Request request;
  request.prompt.assign(prompt.begin(), prompt.end());
  request.max_tokens = max_tokens;
  request.sampling = greedy();
  request.logits_from = from;
  int32_t next = from;
  request.on_logits = [&](const LogitsRow& row) {
    if (row.pos != next++) throw std::runtime_error("logits rows out of order");
    out.logits.insert(out.logits.end(), row.logits.begin(), row.logits.end());
  };
  out.response = run_request(engine, std::move(request));
  if (next != static_cast<int32_t>(prompt.size())) throw std::runtime_error("logits rows missing");
  return out;
}

EngineOptions precise_options() {
  EngineOptions options;
  options.n_ctx = 256;
  options.max_seqs = 1;
  options.type_k = DType::kF32;
  options.type_v = DType::kF32;
  options.precise = true;
  options.prefix_cache = false;
  options.manual = true;
  return options;
}

}  // namespace infer::test
