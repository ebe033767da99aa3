#include "quantize/convert/hf_tokenizer_json.h"

#include <array>
#include <utility>

#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

using Json = nlohmann::json;
using Event = Json::parse_event_t;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxEntries = size_t{1} << 20;
constexpr int64_t kMaxObjects = int64_t{1} << 15;
constexpr int64_t kMaxValues = int64_t{1} << 22;

/// Listens to the parser, takes vocabulary and merges, and lets the rest become a tree.
class Listener {
 public:
  explicit Listener(TokenizerJson* out) : out_(out) {}

  /// Whether the parser keeps what it has just read.
  bool operator()(int depth, Event event, Json& parsed) {
    if ((event == Event::object_start || event == Event::array_start) && depth >= kMaxDepth)
      fail("nested deeper than 64");
    if (!error_.empty()) return false;
    if (event == Event::key && depth < static_cast<int>(path_.size()))
      path_[static_cast<size_t>(depth)] = parsed.get_ref<const std::string&>();
    if (out_ != nullptr && path_[1] == "model") {
      if (path_[2] == "vocab" && depth == 3) return vocab_event(event, parsed);
      if (path_[2] == "merges" && depth >= 3) return merges_event(depth, event, parsed);
    }
    return small_enough(event);
  }
  const std::string& error() const { return error_; }
  bool too_many() const { return too_many_; }

 private:
  void fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
  }
  /// The parser looks at all members of the parent whenever an object in it ends, so objects are
  /// few; the rest is bounded because it stays in memory.
  bool small_enough(Event event) {
    n_object_ += event == Event::object_start ? 1 : 0;
    n_value_ += event == Event::value || event == Event::array_start ? 1 : 0;
    if (n_object_ <= kMaxObjects && n_value_ <= kMaxValues) return true;
    fail(fmt::format("more than {} objects or {} values", kMaxObjects, kMaxValues));
    too_many_ = true;
    return false;
  }
  bool vocab_event(Event event, const Json& parsed) {
    if (event == Event::key) {
      token_ = parsed.get<std::string>();
      has_token_ = true;
      return false;
    }
    if (!has_token_) return true;  // Unigram's array of pairs
    if (event == Event::value && parsed.is_number_integer()) {
      if (out_->vocab.size() >= kMaxEntries) return overflow();
      out_->vocab.emplace_back(std::move(token_), parsed.get<int64_t>());
      has_token_ = false;
      return false;
    }
    if (event == Event::value || event == Event::object_start || event == Event::array_start)
      fail(fmt::format("model.vocab: the id of '{}' is no integer", gguf::printable(token_)));
    return false;
  }
  bool merges_event(int depth, Event event, const Json& parsed) {
    if (event == Event::value && depth == 3) return merge_line(parsed);
    if (event == Event::array_start && depth == 3) {
      n_parts_ = 0;
      return true;
    }
    if (event == Event::value && depth == 4) {
      if (!parsed.is_string() || n_parts_ >= 2) return bad_merge();
      parts_[n_parts_++] = parsed.get<std::string>();
      return false;
    }
    if (event == Event::array_end && depth == 3) {
      if (n_parts_ != 2) return bad_merge();
      return push_merge();
    }
    return true;
  }
  /// "a b"
  bool merge_line(const Json& parsed) {
    if (!parsed.is_string()) return bad_merge();
    const auto& line = parsed.get_ref<const std::string&>();
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
      return bad_merge();
    parts_ = {line.substr(0, space), line.substr(space + 1)};
    return push_merge();
  }
  bool push_merge() {
    if (parts_[0].empty() || parts_[1].empty()) return bad_merge();
    if (out_->merges.size() >= kMaxEntries) return overflow();
    out_->merges.emplace_back(std::move(parts_[0]), std::move(parts_[1]));
    return false;
  }
  bool bad_merge() {
    fail(fmt::format("model.merges[{}] is no pair of tokens", out_->merges.size()));
    return false;
  }
  bool overflow() {
    fail("more than 2^20 tokens or merges");
    too_many_ = true;
    return false;
  }

  TokenizerJson* out_;
  std::array<std::string, 3> path_;  // the key above each of the outermost levels
  std::string token_, error_;
  std::array<std::string, 2> parts_;
  size_t n_parts_ = 0;
  int64_t n_object_ = 0, n_value_ = 0;
  bool has_token_ = false, too_many_ = false;
};

Result<Json> parse(std::string_view text, std::string_view name, TokenizerJson* out) {
  Listener listener(out);
  Json root = Json::parse(
      text.begin(), text.end(),
      [&](int depth, Event event, Json& parsed) { return listener(depth, event, parsed); },
      /*allow_exceptions=*/false);
  if (!listener.error().empty()) {
    return make_error(listener.too_many() ? ErrorCode::kUnsupported : ErrorCode::kCorrupt, "{}: {}",
                      name, listener.error());
  }
  if (!root.is_object()) return make_error(ErrorCode::kCorrupt, "{}: not a JSON object", name);
  return root;
}

}  // namespace

Result<Json> parse_json_object(std::string_view text, std::string_view name) {
  return parse(text, name, nullptr);
}

Result<TokenizerJson> parse_tokenizer_json(std::string_view text, std::string_view name) {
  TokenizerJson out;
  INFER_ASSIGN(out.root, parse(text, name, &out));
  return out;
}

const Json& member(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto at = object.find(key);
  return at == object.end() ? null : *at;
}

std::string string_at(const Json& object, const char* key, std::string fallback) {
  const Json& v = member(object, key);
  return v.is_string() ? v.get<std::string>() : std::move(fallback);
}

bool bool_at(const Json& object, const char* key, bool fallback) {
  const Json& v = member(object, key);
  return v.is_boolean() ? v.get<bool>() : fallback;
}

}  // namespace infer::quantize
