#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/mat_view.h"
#include "core/base/result.h"
#include "core/engine_session.h"
#include "core/runtime/step.h"
#include "core/text/sampler_params.h"
#include "core/text/tokenizer.h"

/// The public API and the only door to a model: the CLI, the server, perplexity and infer-bench are
/// clients of it.
///
///   INFER_ASSIGN(auto engine, Engine::create(std::move(model), options, backends));
///   Request request{.prompt = ids, .max_tokens = 64};
///   INFER_ASSIGN(Completion done, engine->generate(std::move(request)));
namespace infer {

namespace model {
class Adapter;
class Model;
}  // namespace model
namespace runtime {
class ActivationTap;
class Backend;
class OpProfile;
}  // namespace runtime

using TokenId = text::TokenId;
/// {place in EngineOptions::adapters, scale}
using AdapterUse = runtime::AdapterUse;

/// Half-layers [.., half_end) of what the stages before left go to backends[backend].
struct StageSpec {
  int backend = 0;
  int half_end = 0;
};

inline constexpr int kGpuLayersAuto = -1;
inline constexpr int kGpuLayersAll = std::numeric_limits<int>::max();

struct EngineOptions {
  int64_t n_ctx = 4096;   ///< tokens one sequence may have, prompt included; 0: the model's limit
  int64_t n_batch = 512;  ///< tokens a step may have
  int max_seqs = 8;       ///< sequences computed at the same time
  int64_t kv_mem_bytes = 0;  ///< limit of the cache pools; 0: max_seqs * n_ctx tokens
  int64_t kv_tok = 0;        ///< tokens of all sequences that the pools hold; 0: max_seqs * n_ctx
  /// f32, f16, bf16 (not on a CPU), q8_0 or q4_0 (these need head_dim % 32 == 0).
  DType type_k = DType::kF16;
  DType type_v = DType::kF16;
  bool precise = false;  ///< f32 activations; for results as the reference's, f32 K and V as well
  bool unfused = false;  ///< reference composition instead of fused ops
  bool prefix_cache = true;
  /// Adapters that requests may use; up to model::kMaxAdapters.
  std::vector<std::shared_ptr<const model::Adapter>> adapters;
  std::vector<AdapterUse> default_adapters;  ///< of requests that do not say
  /// Layers computed by GPUs, counted from the end: kGpuLayersAuto (as many as fit),
  /// kGpuLayersAll, or a number; one more than the model has: the output too. All but kGpuLayersAll
  /// and kGpuLayersAuto leave the input to the CPU. Without a GPU among the backends it says
  /// nothing.
  int n_gpu_layers = kGpuLayersAuto;
  /// Shares of these layers that the GPUs get, in their order; empty: one GPU is filled after the
  /// other.
  std::vector<float> tensor_split;
  std::vector<StageSpec> stages;  ///< not empty: where everything goes, instead of n_gpu_layers
  /// No thread of its own: the caller drives the engine with run_step() (tests).
  bool manual = false;
  std::function<void(int64_t done_bytes, int64_t all_bytes)> progress;
  /// What the user should know and the run can do without, as one line. Like `inform` it may be
  /// called, from the engine's thread, as long as the engine lives.
  std::function<void(const std::string&)> warn;
  /// Where GPUs take part: before loading, what goes where and how much memory it takes, a line a
  /// device; what a GPU cannot compute; what makes it slower.
  std::function<void(const std::string&)> inform;
  /// Sees the inputs of weight matrices (eval::collect_imatrix); outlives the engine.
  runtime::ActivationTap* tap = nullptr;
  /// Gets the time of each op that a CPU computes; outlives the engine.
  runtime::OpProfile* profile = nullptr;
};

enum class StopReason : uint8_t { kNone, kEos, kStop, kLength, kCancelled, kDeadline, kError };
std::string_view name_of(StopReason reason);  ///< "eos", "stop", "length", "cancelled", ...

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0.0f;  ///< natural log
};
using TopLogprobs = std::vector<TokenLogprob>;  ///< best first; ties by lower id

/// log p(token | prompt[0..pos]) is asked for: the row at prompt position `pos` predicts position
/// pos + 1.
struct LogprobTarget {
  int32_t pos = 0;
  TokenId token = 0;
};

/// Logits of a prompt row; valid during the callback only.
struct LogitsRow {
  int32_t pos = 0;  ///< of the row: they predict the token at pos + 1
  std::span<const float> logits;
  TokenId argmax = 0;    ///< the lowest id among equals
  float max = 0.0f;      ///< logits[argmax]
  double sum_exp = 0.0;  ///< of exp(logit - max): log p = logit - max - log(sum_exp)
};
/// Receives prompt rows [logits_from, prompt.size()) in order, each once, while a step is computed:
/// on the engine's thread or one of the backend's. Must not throw.
using LogitsCallback = std::function<void(const LogitsRow& row)>;

using RequestId = uint64_t;

/// Which tokens' K and V a request leaves in Response::session.
enum class KeepSession : uint8_t { kNone, kPrompt, kAll };

/// One piece of news about a request; spans and views are valid during the callback only.
struct Event {
  RequestId request = 0;
  int sample = 0;  ///< which of n_samples
  enum class Kind : uint8_t { kToken, kDone } kind = Kind::kToken;
  TokenId token = -1;  ///< kToken: as drawn; never an end-of-generation id that ends the text
  /// Complete characters only, without what may be the beginning of a stop string. May be empty,
  /// and with kDone it is what was held back. All texts of a sample together are Completion::text.
  std::string_view text;
  std::span<const TokenLogprob> logprobs;
  StopReason stop_reason = StopReason::kNone;  ///< kDone
  const Error* error = nullptr;                ///< kDone with kError
};
using EventCallback = std::function<void(const Event&)>;

struct Request {
  std::vector<TokenId> prompt;  ///< not empty, ids < n_vocab
  int64_t max_tokens =
      -1;  ///< -1: until the context is full; 0: the prompt is only evaluated (kLength)
  text::SamplingParams sampling;
  std::vector<std::string> stop;  ///< strings that end the text and are not part of it
  bool ignore_eos = false;
  /// The adapters whose sum this request is computed with, each at most once; empty: the model as
  /// it is. Requests with different ones share steps, and none changes the bits of another.
  std::optional<std::vector<AdapterUse>> adapters;  ///< nullopt: EngineOptions::default_adapters
  int n_samples =
      1;  ///< continuations of one prompt; sample i uses seed + i and shares the prompt's blocks
  int n_logprobs = 0;                  ///< top-N of each generated token
  int n_prompt_logprobs = 0;           ///< top-N at each prompt position
  std::vector<LogprobTarget> targets;  ///< sorted by pos
  LogitsCallback on_logits;
  int32_t logits_from = 0;
  /// Texts that could follow the prompt, none empty. Each is evaluated behind it, sees nothing of
  /// the others, and shares the prompt's K and V (Response::branch_logprobs). Needs: max_tokens ==
  /// 0, n_samples == 1.
  std::vector<std::vector<TokenId>> branches;
  /// Its K and V stand for computing the tokens that the prompt begins with; the results are the
  /// same bits. Read by, or kept by, an engine of the same model, types and adapters.
  std::shared_ptr<const Session> session;
  KeepSession keep = KeepSession::kNone;  ///< of the first sample
  std::optional<std::chrono::steady_clock::time_point> deadline;
  EventCallback on_event;  ///< called on the engine's thread; must not throw or block for long
};

struct Timings {
  int64_t prompt_tok = 0, cached_tok = 0, predicted_tok = 0;
  double queue_us = 0, prompt_us = 0, predicted_us = 0;  ///< the first token comes with the prompt
};

struct Completion {
  /// Without the end-of-generation id, and without tokens whose text begins at or behind the stop
  /// string's beginning.
  std::vector<TokenId> ids;
  std::string text;
  std::vector<TopLogprobs>
      logprobs;  ///< of each of ids, from the model's own distribution (before any sampling filter)
  StopReason stop_reason = StopReason::kNone;
};

struct Response {
  std::vector<Completion> samples;  ///< n_samples of them
  std::vector<TopLogprobs>
      prompt_logprobs;                 ///< [prompt.size()] or empty; entry i predicts token i + 1
  std::vector<float> target_logprobs;  ///< in the order of Request::targets
  /// [branches][their tokens]: log p of each token after the prompt and those of its branch before
  /// it.
  std::vector<std::vector<float>> branch_logprobs;
  /// What Request::keep asked for: all tokens whose K and V were computed, so not the last one that
  /// was drawn. Null if the request ended before.
  std::shared_ptr<const Session> session;
  Timings timings;
};

/// A run of half-layers and the device that computes it.
struct StageInfo {
  std::string device;  ///< "cpu", "cuda:0"
  std::string isa;     ///< level of its kernels: results depend on it
  int half_begin = 0, half_end = 0;
};

struct EngineStats {
  int64_t n_step = 0, n_row = 0, n_preempted = 0;
  std::vector<int64_t> blocks_total,
      blocks_free;  ///< per cache group; cached prefix blocks count as free
};

/// Threads: every method may be called from any thread (except run_step: one thread at a time).
class Engine {
 public:
  /// `backends` must outlive the engine.
  static Result<std::unique_ptr<Engine>> create(std::shared_ptr<const model::Model> model,
                                                const EngineOptions& options,
                                                std::span<runtime::Backend* const> backends);
  virtual ~Engine() = default;

  /// Queues a request. Errors: kInvalidArgument for one that can never fit (named numbers).
  virtual Result<RequestId> submit(Request request) = 0;
  /// Asks a request to end; its kDone event follows with kCancelled. Unknown or finished ids are
  /// ignored. Signal-unsafe.
  virtual void cancel(RequestId id) = 0;
  /// Waits for a request and takes its response; the error of a failed one. Once per id (then
  /// kNotFound). In manual mode it runs the steps itself. Never from a callback.
  virtual Result<Response> wait(RequestId id) = 0;
  Result<Response> generate(Request request);

  /// Manual mode: computes one step; false when there is nothing to do.
  virtual Result<bool> run_step() = 0;

  /// A session from a file, or to one; see core/engine_session.h. Errors name the file.
  virtual Result<std::shared_ptr<const Session>> read_session(const std::string& path) const = 0;
  virtual Result<void> write_session(const std::string& path, const Session& session) const = 0;

  virtual const model::Model& model() const = 0;
  virtual const text::Tokenizer& tokenizer() const = 0;
  virtual EngineStats stats() const = 0;
  virtual const std::vector<StageInfo>& stages() const = 0;
  /// Tokens one sequence may have: n_ctx of the options, or less where the cache pool cannot hold
  /// so many.
  virtual int64_t n_ctx() const = 0;
  virtual int32_t n_vocab() const = 0;  ///< columns of the logits
  /// Op, shapes, types, bytes, where it runs: one line an op.
  virtual std::string dump_plan() const = 0;
  /// One line: model, type, backend, threads, memory.
  virtual std::string summary() const = 0;
};

}  // namespace infer
