#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/result.h"
#include "gguf/header_builder.h"
#include "quantize/convert/hf_tokenizer_files.h"
#include "quantize/convert/token_table.h"

namespace infer::quantize {

/// The small JSON files of a folder; null where there is none.
struct HfConfigs {
  nlohmann::json tokenizer, special_map, added, model, generation;
};
Result<HfConfigs> read_configs(const HfTokenizerFiles& files);

/// Added tokens of all files that list some. Errors: kCorrupt naming file and token.
Result<std::vector<AddedToken>> collect_added(const HfTokenizerFiles& files,
                                              const HfConfigs& configs,
                                              const nlohmann::json& tokenizer_json);

/// What the model itself says of its special ids: SentencePiece's trainer_spec, BPE's unk_token.
struct SpecialDefaults {
  std::map<std::string, int64_t> ids;  ///< by kind: "bos", "unk", ...
  bool add_bos = false, add_eos = false;
};
/// Special ids, and whether BOS and EOS are added.
Result<void> write_special(const HfConfigs& configs, const nlohmann::json& tokenizer_json,
                           const SpecialDefaults& defaults, const TokenTable& tokens,
                           gguf::HeaderBuilder& out, std::vector<std::string>& notes);

/// tokenizer.chat_template and its named companions.
Result<void> write_chat_templates(const HfTokenizerFiles& files, const HfConfigs& configs,
                                  gguf::HeaderBuilder& out, std::vector<std::string>& notes);

}  // namespace infer::quantize
