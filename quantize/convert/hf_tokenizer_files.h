#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "quantize/convert/hf_tokenizer.h"

namespace infer::quantize {

/// The files of a folder that a tokenizer is made of, as they lie on disk.
struct HfTokenizerFiles {
  using Text = std::optional<std::string>;
  std::string folder;  ///< named in errors
  Text tokenizer_model{}, tokenizer_json{}, tokenizer_config{}, special_tokens_map{},
      added_tokens{}, config{}, generation_config{}, chat_template_jinja{}, chat_template_json{};
  std::map<std::string, std::string> more_templates{};  ///< additional_chat_templates/NAME.jinja
};

/// Errors: kNotFound (no such folder), kIo, kUnsupported (a file above 256 MiB).
Result<HfTokenizerFiles> read_tokenizer_files(const std::string& folder);

/// write_tokenizer on files in memory.
Result<void> write_tokenizer(const HfTokenizerFiles& files, const HfTokenizerInfo& info,
                             gguf::HeaderBuilder& out, std::vector<std::string>* notes);

}  // namespace infer::quantize
