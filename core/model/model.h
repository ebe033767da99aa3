#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/model/arch.h"
#include "core/model/hparams.h"
#include "core/text/tokenizer.h"
#include "gguf/reader.h"

namespace infer::model {

/// A model file, read and checked: hyper-parameters, tensors with the shapes the architecture asks
/// for, tokenizer. Immutable and safe to share between engines.
class Model {
 public:
  /// Errors: kUnsupported for an unknown architecture, rope scaling or tokenizer; kCorrupt for
  /// values that contradict.
  static Result<std::shared_ptr<const Model>> load(std::shared_ptr<const gguf::Reader> file);

  const gguf::Reader& file() const { return *file_; }
  const Hparams& hparams() const { return hp_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  /// The file's chat template (Jinja), empty when it has none. text::ChatTemplate::from_model reads
  /// it with a check.
  std::string_view chat_template() const;
  const ArchDef& arch() const { return *arch_; }
  std::string description()
      const;  ///< "SmolLM2 135M Instruct, llama, Q4_1, 134.5 M parameters, 92.1 MiB"

  /// The graph refers to the file's bytes, so the model must outlive it.
  Result<graph::Graph> build_graph(const BuildOptions& options) const;

 private:
  std::shared_ptr<const gguf::Reader> file_;
  Hparams hp_;
  const ArchDef* arch_ = nullptr;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
};

}  // namespace infer::model
