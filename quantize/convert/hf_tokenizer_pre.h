#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/result.h"
#include "core/text/pre_rules.h"
#include "gguf/header_builder.h"

namespace infer::quantize {

/// normalizer and pre_tokenizer of a tokenizer.json whose model works on bytes.
struct BytePlan {
  std::vector<text::PreRule> rules;
  std::vector<std::string> forms;  ///< "nfc" and the like
};
/// Errors: kUnsupported naming the step that cannot be kept.
Result<BytePlan> read_byte_plan(const nlohmann::json& root, std::string_view name);

/// tokenizer.ggml.pre, and our keys where no name stands for the plan.
Result<void> write_byte_plan(const BytePlan& plan, bool ignore_merges, gguf::HeaderBuilder& out,
                             std::vector<std::string>& notes);

/// The same for a model of SentencePiece's kind, with U+2581 for spaces.
struct SpacePlan {
  bool adds_prefix = false;  ///< a space goes before a text
  bool cuts_words = false;   ///< no token reaches from one word into the next
  /// Value of infer.tokenizer.space_prefix: which texts get the space, where it is not all of them.
  std::string prefix_rule{};
};
Result<SpacePlan> read_space_plan(const nlohmann::json& root, std::string_view name);

/// Whether a step of this type stands in the normalizer or pre_tokenizer `node`, at any depth.
bool has_step(const nlohmann::json& node, std::string_view type);

}  // namespace infer::quantize
