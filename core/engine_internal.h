#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine.h"
#include "core/graph/graph.h"
#include "core/runtime/executor.h"
#include "core/runtime/kv_cache.h"

/// Not public: how an engine is put together, so that tests can give it a model of their own.
namespace infer::internal {

/// Turns the ids of one sample into text; see text::StreamDecoder.
class TextDecoder {
 public:
  virtual ~TextDecoder() = default;
  virtual std::string_view push(TokenId id) = 0;
  virtual std::string_view finish() = 0;
};

/// What the engine needs of a vocabulary.
class Vocabulary {
 public:
  virtual ~Vocabulary() = default;
  virtual int32_t n_vocab() const = 0;  ///< columns of the logits
  virtual std::span<const TokenId> eog_ids() const = 0;
  virtual std::unique_ptr<TextDecoder> make_decoder() const = 0;
  /// The bytes of one token inside a text.
  virtual std::string_view piece(TokenId id) const = 0;
};

struct EngineParts {
  std::shared_ptr<const model::Model> model;  ///< may be null in tests
  std::unique_ptr<const graph::Graph> graph;  ///< may be null in tests; outlives the executor
  std::unique_ptr<runtime::Executor> executor;
  std::unique_ptr<const Vocabulary> vocabulary;
  std::vector<runtime::KvGroupConfig> groups;  ///< as the executor's pools are
  std::vector<StageInfo> stages;
  std::string summary;
};

/// Uses n_ctx, n_batch, max_seqs, prefix_cache and manual of the options.
/// Errors: kInvalidArgument for options out of range, kOutOfMemory when the groups cannot hold one
/// sequence.
Result<std::unique_ptr<Engine>> create_with(EngineParts parts, const EngineOptions& options);

}  // namespace infer::internal
