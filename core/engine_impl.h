#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/engine.h"
#include "core/engine_internal.h"
#include "core/engine_request.h"
#include "core/engine_sink.h"
#include "core/runtime/kv_cache.h"
#include "core/runtime/scheduler.h"
#include "core/runtime/step.h"

namespace infer::internal {

/// Requests come in through a queue under the mutex; everything else belongs to the thread that
/// runs step(): the engine's own, or in manual mode whoever holds step_mutex_.
class EngineImpl final : public Engine {
 public:
  EngineImpl(EngineParts parts, const EngineOptions& options, const RequestLimits& limits);
  ~EngineImpl() override;

  Result<RequestId> submit(Request request) override;
  void cancel(RequestId id) override;
  Result<Response> wait(RequestId id) override;
  Result<bool> run_step() override;

  Result<std::shared_ptr<const Session>> read_session(const std::string& path) const override;
  Result<void> write_session(const std::string& path, const Session& session) const override;

  const model::Model& model() const override;
  const text::Tokenizer& tokenizer() const override;
  EngineStats stats() const override;
  const std::vector<StageInfo>& stages() const override { return parts_.stages; }
  int64_t n_ctx() const override { return limits_.n_ctx; }
  int32_t n_vocab() const override { return limits_.n_vocab; }
  std::string dump_plan() const override { return parts_.executor->dump(); }
  std::string summary() const override { return parts_.summary; }

 private:
  void loop();
  bool step();
  bool take_incoming();
  bool end_late_requests();
  Result<void> compute();
  void apply();
  void advance(Sample& sample);
  void fork_samples(RequestState& state);
  void accept(Sample& sample);
  bool is_eog(TokenId id) const;
  void append_token(Sample& sample, TokenId token);
  void finish(Sample& sample, StopReason reason);
  void finish_all(RequestState& state, StopReason reason);
  void fail(RequestState& state, const Error& error);
  void hand_over_done();
  void publish_stats();
  // Sessions (engine_impl_session.cpp).
  Result<const SessionBinding*> binding() const;
  uint64_t mix_hash(const std::vector<AdapterUse>& mix) const;
  Result<void> check_session(const Request& request) const;
  void use_session(Sample& leader) const;
  Result<void> import_session(const runtime::Sequence& sequence);
  void keep_session(Sample& sample);
  /// The error with the name of the model's file before it.
  Error in_file(Error error) const;

  const EngineOptions options_;
  EngineParts parts_;
  const RequestLimits limits_;
  runtime::KvCache cache_;
  runtime::Scheduler scheduler_;
  StepSink sink_;
  runtime::Step step_;
  std::vector<std::unique_ptr<RequestState>> active_;
  std::vector<std::unique_ptr<RequestState>> arrived_;  ///< swapped with incoming_
  std::vector<RequestId> to_cancel_;                    ///< swapped with cancels_
  MixTable mixes_;
  int64_t n_deadline_ = 0;  ///< active requests with a deadline
  EngineStats live_stats_;

  mutable std::mutex mutex_;  ///< guards what follows
  std::condition_variable work_, done_;
  std::vector<std::unique_ptr<RequestState>> incoming_;
  std::vector<RequestId> cancels_;
  std::unordered_set<RequestId> known_;  ///< submitted, response not taken
  std::unordered_map<RequestId, Result<Response>> responses_;
  EngineStats stats_;
  RequestId next_id_ = 1;
  bool stop_ = false;

  mutable std::once_flag bound_;
  mutable SessionBinding binding_;

  std::mutex step_mutex_;  ///< manual mode
  std::thread thread_;
};

}  // namespace infer::internal
