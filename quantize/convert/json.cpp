#include "quantize/convert/json.h"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/input_file.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

using model::HfValue;

constexpr size_t kMaxDepth = 64;
constexpr int64_t kMaxValues = int64_t{1} << 22;
constexpr int64_t kMaxFileBytes = int64_t{64} << 20;

/// Builds the tree from the parser's events: open containers are on a stack, each moves into its
/// parent when it ends.
class TreeHandler {
 public:
  using Json = nlohmann::json;

  HfValue root;
  std::string problem;
  ErrorCode code = ErrorCode::kCorrupt;

  bool null() { return put(HfValue{}); }
  bool boolean(bool v) { return put(HfValue{v}); }
  bool number_integer(Json::number_integer_t v) { return put(HfValue{int64_t{v}}); }
  bool number_unsigned(Json::number_unsigned_t v) {
    if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return put(HfValue{static_cast<double>(v)});
    return put(HfValue{static_cast<int64_t>(v)});
  }
  bool number_float(Json::number_float_t v, const std::string&) { return put(HfValue{v}); }
  bool string(std::string& v) { return put(HfValue{std::move(v)}); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t) { return open(HfValue{HfValue::Object{}}); }
  bool start_array(size_t) { return open(HfValue{HfValue::Array{}}); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    Level& level = stack_.back();
    if (!level.names.insert(name).second) {
      problem = "key '" + gguf::printable(name) + "' stands twice";
      return false;
    }
    level.name = std::move(name);
    return true;
  }
  bool end_object() { return close(); }
  bool parse_error(size_t position, const std::string&, const Json::exception&) {
    problem = fmt::format("not JSON (byte {})", position);
    return false;
  }

 private:
  struct Level {
    HfValue value;
    std::string name;  ///< of the next member
    std::unordered_set<std::string> names;
  };

  bool put(HfValue v) {
    if (++n_value_ > kMaxValues) {
      problem = fmt::format("more than {} values", kMaxValues);
      code = ErrorCode::kOutOfMemory;
      return false;
    }
    if (stack_.empty()) {
      root = std::move(v);
    } else if (auto* array = std::get_if<HfValue::Array>(&stack_.back().value.value)) {
      array->push_back(std::move(v));
    } else {
      std::get<HfValue::Object>(stack_.back().value.value)
          .push_back({std::move(stack_.back().name), std::move(v)});
    }
    return true;
  }
  bool open(HfValue container) {
    if (stack_.size() >= kMaxDepth) {
      problem = fmt::format("nested deeper than {}", kMaxDepth);
      return false;
    }
    stack_.push_back({.value = std::move(container), .name = {}, .names = {}});
    return true;
  }
  bool close() {
    HfValue done = std::move(stack_.back().value);
    stack_.pop_back();
    return put(std::move(done));
  }

  std::vector<Level> stack_;
  int64_t n_value_ = 0;
};

}  // namespace

Result<HfValue> parse_json(std::string_view text, const std::string& name) {
  TreeHandler handler;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &handler))
    return make_error(handler.code, "{}: {}", name, handler.problem);
  return std::move(handler.root);
}

Result<HfValue> read_json(const std::string& path) {
  INFER_ASSIGN(const InputFile file, InputFile::open(path));
  INFER_ASSIGN(const std::string text, file.read_all(kMaxFileBytes));
  return parse_json(text, path);
}

}  // namespace infer::quantize
