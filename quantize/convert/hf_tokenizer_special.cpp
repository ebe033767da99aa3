#include "quantize/convert/hf_tokenizer_special.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "core/base/error.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "quantize/convert/hf_tokenizer_json.h"

namespace infer::quantize {
namespace {

using Json = nlohmann::json;
namespace keys = gguf::keys;

constexpr std::array<std::pair<const char*, std::string_view>, 7> kKinds = {
    {{"bos", keys::kBosId},
     {"eos", keys::kEosId},
     {"unk", keys::kUnknownId},
     {"sep", keys::kSeparatorId},
     {"pad", keys::kPaddingId},
     {"cls", keys::kClsId},
     {"mask", keys::kMaskId}}};
// Ends of a turn, among the ids that end a generation. <|endoftext|> and its like end a text and
// are found by readers themselves.
constexpr std::array<std::string_view, 8> kTurnEnds = {
    "<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<|eot|>", "<EOT>", "[EOT]", "<turn|>"};
constexpr std::string_view kMessageEnd = "<|eom_id|>";

Result<Json> parse_if_there(const HfTokenizerFiles& files, const HfTokenizerFiles::Text& text,
                            const char* name) {
  if (!text) return Json();
  return parse_json_object(*text, files.folder + "/" + name);
}

/// "<s>" or {"content": "<s>", ...}
std::string content_of(const Json& entry) {
  return entry.is_string() ? entry.get<std::string>() : string_at(entry, "content");
}

Result<AddedToken> added_token(int64_t id, const Json& entry, std::string_view file) {
  const Json& content = member(entry, "content");
  if (!content.is_string())
    return make_error(ErrorCode::kCorrupt, "{}: added token {} has no content", file, id);
  return AddedToken{
      .id = id,
      .text = content.get<std::string>(),
      .special = bool_at(entry, "special", false),
      .matches_oddly = bool_at(entry, "lstrip", false) || bool_at(entry, "single_word", false),
      .normalized = bool_at(entry, "normalized", false),
      .strips_right = bool_at(entry, "rstrip", false)};
}

/// What a post_processor puts around a text.
struct Template {
  std::vector<std::string> before, after;
};

void read_template_step(const Json& step, Template& out) {
  const std::string type = string_at(step, "type");
  if (type == "Sequence") {
    const Json& steps = member(step, "processors");
    if (!steps.is_array()) return;
    for (const Json& s : steps) {
      if (string_at(s, "type") != "Sequence") read_template_step(s, out);
    }
    return;
  }
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    const auto first = [](const Json& pair) {
      return pair.is_array() && !pair.empty() ? content_of(pair[0]) : std::string();
    };
    out.before = {first(member(step, "cls"))};
    out.after = {first(member(step, "sep"))};
  }
  const Json& single = member(step, "single");
  if (type != "TemplateProcessing" || !single.is_array()) return;
  bool behind = false;
  for (const Json& part : single) {
    behind = behind || !member(part, "Sequence").is_null();
    const std::string token = string_at(member(part, "SpecialToken"), "id");
    if (!token.empty()) (behind ? out.after : out.before).push_back(token);
  }
}

class SpecialWriter {
 public:
  SpecialWriter(const HfConfigs& configs, const TokenTable& tokens, gguf::HeaderBuilder& out,
                std::vector<std::string>& notes)
      : configs_(configs), tokens_(tokens), out_(out), notes_(notes) {}

  Result<void> run(const Json& tokenizer_json, const SpecialDefaults& defaults) {
    for (const auto& [kind, key] : kKinds) resolve(kind, defaults);
    if (tokenizer_json.is_object()) {
      Template around;
      read_template_step(member(tokenizer_json, "post_processor"), around);
      INFER_TRY(write_template("bos", keys::kAddBos, around.before));
      INFER_TRY(write_template("eos", keys::kAddEos, around.after));
    } else {
      INFER_TRY(write_setting("bos", keys::kAddBos, defaults.add_bos));
      INFER_TRY(write_setting("eos", keys::kAddEos, defaults.add_eos));
    }
    for (const auto& [kind, key] : kKinds) {
      if (const auto at = ids_.find(kind); at != ids_.end())
        INFER_TRY(out_.add<uint32_t>(key, static_cast<uint32_t>(at->second)));
    }
    return write_turn_ends();
  }

 private:
  bool accept(const char* kind, int64_t id, std::string_view source) {
    if (id >= 0 && id < tokens_.size()) {
      ids_[kind] = id;
      return true;
    }
    notes_.push_back(fmt::format("{}: {} token {} is outside the vocabulary of {} and left out",
                                 source, kind, id, tokens_.size()));
    return false;
  }
  /// tokenizer_config.json names tokens, config.json counts them; the former is right where they
  /// differ.
  void resolve(const char* kind, const SpecialDefaults& defaults) {
    const std::string token_key = fmt::format("{}_token", kind);
    for (const Json* config : {&configs_.tokenizer, &configs_.special_map}) {
      const std::string text = content_of(member(*config, token_key.c_str()));
      const int64_t id = text.empty() ? -1 : tokens_.find(text);
      if (id >= 0) {
        ids_[kind] = id;
        return;
      }
    }
    const std::string id_key = token_key + "_id";
    const Json& inner = member(configs_.model, "text_config");
    for (const Json* config : {&configs_.model, &inner, &configs_.generation}) {
      const Json& value = member(*config, id_key.c_str());
      const Json& first = value.is_array() && !value.empty() ? value[0] : value;
      if (first.is_number_integer() && first.get<int64_t>() >= 0 &&
          accept(kind, first.get<int64_t>(), "config.json"))
        return;
    }
    if (const auto at = defaults.ids.find(kind); at != defaults.ids.end() && at->second >= 0)
      accept(kind, at->second, "the model");
  }

  static std::string setting_of(const char* kind) { return fmt::format("add_{}_token", kind); }

  /// With a tokenizer.json its post_processor alone says what is added: transformers 5 drops
  /// add_bos_token and add_eos_token where it has that file.
  Result<void> write_template(const char* kind, std::string_view key,
                              const std::vector<std::string>& around) {
    const Json& said = member(configs_.tokenizer, setting_of(kind).c_str());
    if (said.is_boolean() && said.get<bool>() == around.empty()) {
      notes_.push_back(
          fmt::format("{} = {} in tokenizer_config.json, but not so in the post_processor of "
                      "tokenizer.json: the latter holds, as in transformers",
                      setting_of(kind), said.get<bool>()));
    }
    if (around.empty()) return out_.add<bool>(key, false);
    if (around.size() > 1) {
      notes_.push_back(fmt::format("the post_processor adds {} {} tokens; GGUF can say one, '{}'",
                                   around.size(), kind, gguf::printable(around.front())));
    }
    const int64_t id = tokens_.find(around.front());
    if (id >= 0) {
      ids_[kind] = id;
    } else {
      notes_.push_back(fmt::format("the post_processor adds '{}', which is no token: left out",
                                   gguf::printable(around.front())));
    }
    return out_.add<bool>(key, id >= 0);
  }

  /// Without one the settings do.
  Result<void> write_setting(const char* kind, std::string_view key, bool fallback) {
    bool add = bool_at(configs_.tokenizer, setting_of(kind).c_str(), fallback);
    if (add && !ids_.contains(kind)) {
      notes_.push_back(fmt::format("{} is to be added, but there is none: left out", kind));
      add = false;
    }
    return out_.add<bool>(key, add);
  }

  /// Of the other ids that end a generation, those that GGUF has a key for.
  Result<void> write_turn_ends() {
    int64_t eot = -1, eom = -1;
    const auto eos = ids_.find("eos");
    const std::string_view eos_text =
        eos == ids_.end() ? std::string_view() : std::string_view(tokens_.text(eos->second));
    const bool eos_ends_turns = is_turn_end(eos_text);
    for (const Json* config : {&configs_.generation, &configs_.model}) {
      const Json& list = member(*config, "eos_token_id");
      if (!list.is_array()) continue;
      for (const Json& entry : list) {
        const int64_t id = entry.is_number_integer() ? entry.get<int64_t>() : -1;
        if (id < 0 || id >= tokens_.size() || (eos != ids_.end() && id == eos->second)) continue;
        if (tokens_.text(id) == kMessageEnd && eom < 0) eom = id;
        if (is_turn_end(tokens_.text(id)) && eot < 0 && !eos_ends_turns) eot = id;
      }
    }
    if (eot >= 0) INFER_TRY(out_.add<uint32_t>(keys::kEotId, static_cast<uint32_t>(eot)));
    if (eom >= 0) INFER_TRY(out_.add<uint32_t>(keys::kEomId, static_cast<uint32_t>(eom)));
    return {};
  }
  static bool is_turn_end(std::string_view text) {
    return std::find(kTurnEnds.begin(), kTurnEnds.end(), text) != kTurnEnds.end();
  }

  const HfConfigs& configs_;
  const TokenTable& tokens_;
  gguf::HeaderBuilder& out_;
  std::vector<std::string>& notes_;
  std::map<std::string, int64_t, std::less<>> ids_;
};

/// Letters and digits of ASCII, others as '_', as gguf-py names the keys.
std::string key_part(std::string_view name) {
  std::string out;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += plain ? c : '_';
  }
  return out;
}

}  // namespace

Result<HfConfigs> read_configs(const HfTokenizerFiles& files) {
  HfConfigs c;
  INFER_ASSIGN(c.tokenizer, parse_if_there(files, files.tokenizer_config, "tokenizer_config.json"));
  INFER_ASSIGN(c.special_map,
               parse_if_there(files, files.special_tokens_map, "special_tokens_map.json"));
  INFER_ASSIGN(c.added, parse_if_there(files, files.added_tokens, "added_tokens.json"));
  INFER_ASSIGN(c.model, parse_if_there(files, files.config, "config.json"));
  INFER_ASSIGN(c.generation,
               parse_if_there(files, files.generation_config, "generation_config.json"));
  return c;
}

Result<std::vector<AddedToken>> collect_added(const HfTokenizerFiles& files,
                                              const HfConfigs& configs,
                                              const Json& tokenizer_json) {
  std::vector<AddedToken> all;
  if (configs.added.is_object()) {
    for (const auto& [text, id] : configs.added.items()) {
      if (!id.is_number_integer()) {
        return make_error(ErrorCode::kCorrupt, "{}/added_tokens.json: the id of '{}' is no integer",
                          files.folder, gguf::printable(text));
      }
      all.push_back({.id = id.get<int64_t>(), .text = text});
    }
  }
  const Json& list = member(tokenizer_json, "added_tokens");
  if (list.is_array()) {
    for (const Json& entry : list) {
      const Json& id = member(entry, "id");
      const int64_t n = id.is_number_integer() ? id.get<int64_t>() : -1;
      INFER_ASSIGN(AddedToken token, added_token(n, entry, files.folder + "/tokenizer.json"));
      all.push_back(std::move(token));
    }
  }
  const Json& decoder = member(configs.tokenizer, "added_tokens_decoder");
  if (decoder.is_object()) {
    for (const auto& [number, entry] : decoder.items()) {
      int64_t id = -1;
      const char* end = number.data() + number.size();
      if (const auto r = std::from_chars(number.data(), end, id); r.ptr != end) id = -1;
      INFER_ASSIGN(AddedToken token,
                   added_token(id, entry, files.folder + "/tokenizer_config.json"));
      all.push_back(std::move(token));
    }
  }
  return all;
}

Result<void> write_special(const HfConfigs& configs, const Json& tokenizer_json,
                           const SpecialDefaults& defaults, const TokenTable& tokens,
                           gguf::HeaderBuilder& out, std::vector<std::string>& notes) {
  return SpecialWriter(configs, tokens, out, notes).run(tokenizer_json, defaults);
}

Result<void> write_chat_templates(const HfTokenizerFiles& files, const HfConfigs& configs,
                                  gguf::HeaderBuilder& out, std::vector<std::string>& notes) {
  std::map<std::string, std::string> named = files.more_templates;
  Json source = member(configs.tokenizer, "chat_template");
  if (files.chat_template_jinja) {
    named["default"] = *files.chat_template_jinja;
    source = Json();
  } else if (files.chat_template_json && source.is_null()) {
    INFER_ASSIGN(const Json inner, parse_json_object(*files.chat_template_json,
                                                     files.folder + "/chat_template.json"));
    source = member(inner, "chat_template");
  }
  if (source.is_string()) named["default"] = source.get<std::string>();
  if (source.is_array()) {
    for (const Json& entry : source) {
      const Json& body = member(entry, "template");
      const std::string name = string_at(entry, "name");
      if (name.empty() || !body.is_string()) {
        notes.push_back("a chat template without name or text is left out");
        continue;
      }
      named[name] = body.get<std::string>();
    }
  }
  std::map<std::string, const std::string*> by_key;
  for (const auto& [name, body] : named) {
    if (name == "default") {
      INFER_TRY(out.add_string(keys::kChatTemplate, body));
    } else {
      by_key.emplace(key_part(name), &body);
    }
  }
  if (by_key.empty()) return {};
  std::vector<std::string_view> names;
  for (const auto& [name, body] : by_key) {
    names.push_back(name);
    INFER_TRY(out.add_string(fmt::format("{}.{}", keys::kChatTemplate, name), *body));
  }
  return out.add_strings(keys::kChatTemplates, names);
}

}  // namespace infer::quantize
