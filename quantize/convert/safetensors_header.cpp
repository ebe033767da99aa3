#include "quantize/convert/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

constexpr size_t kMaxDims = 8;
constexpr uint64_t kMaxHeaderBytes = uint64_t{100} << 20;  // the limit of the reference reader

/// One entry of the header before it is checked.
struct Entry {
  std::string name;
  std::string dtype{};
  std::vector<uint64_t> shape{};
  std::vector<uint64_t> range{};
  bool has_dtype = false, has_shape = false, has_range = false;
};

/// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"k": "v"}}
/// and nothing else: no tree is made, nothing is deeper than this.
class HeaderHandler {
 public:
  using Json = nlohmann::json;

  std::vector<Entry> entries;
  std::string problem;  ///< set when a function returned false

  bool null() { return value("null"); }
  bool boolean(bool) { return value("true or false"); }
  bool number_integer(Json::number_integer_t) { return value("a negative number"); }
  bool number_float(Json::number_float_t, const std::string&) { return value("a fraction"); }
  bool binary(Json::binary_t&) { return value("binary"); }
  bool number_unsigned(Json::number_unsigned_t v) {
    if (depth_ != 3 || list_ == nullptr) return value("a number");
    if (list_->size() >= kMaxDims) return fail("too many numbers");
    list_->push_back(v);
    return true;
  }
  bool string(std::string& v) {
    if (depth_ == 2 && in_metadata_) return true;
    if (depth_ != 2 || field_ != Field::kDtype) return value("a string");
    entries.back().dtype = v;
    return true;
  }
  bool start_object(size_t) {
    if (depth_ >= 2) return fail("an object where none belongs");
    ++depth_;
    return true;
  }
  bool end_object() {
    --depth_;
    return true;
  }
  bool key(std::string& name) {
    if (depth_ == 1) return start_entry(name);
    if (in_metadata_) return true;
    Entry& e = entries.back();
    if (name == "dtype") return start_field(Field::kDtype, e.has_dtype);
    if (name == "shape") return start_field(Field::kShape, e.has_shape);
    if (name == "data_offsets") return start_field(Field::kRange, e.has_range);
    return fail("unknown key '" + gguf::printable(name) + "'");
  }
  bool start_array(size_t) {
    if (depth_ != 2 || in_metadata_ || (field_ != Field::kShape && field_ != Field::kRange))
      return fail("an array where none belongs");
    list_ = field_ == Field::kShape ? &entries.back().shape : &entries.back().range;
    ++depth_;
    return true;
  }
  bool end_array() {
    --depth_;
    list_ = nullptr;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const Json::exception&) {
    problem = fmt::format("header is not JSON (byte {})", position);
    return false;
  }

 private:
  enum class Field { kNone, kDtype, kShape, kRange };

  bool fail(std::string_view what) {
    problem = entries.empty() || depth_ < 2
                  ? fmt::format("header has {}", what)
                  : fmt::format("tensor '{}': {}", gguf::printable(entries.back().name), what);
    return false;
  }
  bool value(std::string_view what) { return fail(fmt::format("{} where none belongs", what)); }
  bool start_entry(const std::string& name) {
    in_metadata_ = name == "__metadata__";
    if (!in_metadata_) entries.push_back({.name = name});
    field_ = Field::kNone;
    return true;
  }
  bool start_field(Field field, bool& has) {
    if (has) return fail("a key twice");
    has = true;
    field_ = field;
    return true;
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  Field field_ = Field::kNone;
  std::vector<uint64_t>* list_ = nullptr;
};

std::optional<SafeType> type_of(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(SafeType::kF64); ++i) {
    if (name_of(static_cast<SafeType>(i)) == name) return static_cast<SafeType>(i);
  }
  return std::nullopt;
}

/// Checks an entry and gives it its place in `data`.
Result<SafeTensor> place(const std::string& path, Entry& e, std::span<const std::byte> data) {
  const auto bad = [&](std::string_view what) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}': {}", path, gguf::printable(e.name),
                      what);
  };
  if (!e.has_dtype || !e.has_shape || !e.has_range)
    return bad("dtype, shape or data_offsets missing");
  const auto type = type_of(e.dtype);
  if (!type) {
    return make_error(ErrorCode::kUnsupported, "{}: tensor '{}': dtype '{}'", path,
                      gguf::printable(e.name), gguf::printable(e.dtype));
  }
  SafeTensor t;
  t.type = *type;
  std::optional<int64_t> n_bytes = bytes_of(*type);
  for (const uint64_t d : e.shape) {
    if (d > static_cast<uint64_t>(INT64_MAX)) return bad("shape overflows");
    t.shape.push_back(static_cast<int64_t>(d));
    n_bytes = checked_mul<int64_t>(*n_bytes, t.shape.back());
    if (!n_bytes) return bad("shape overflows");
  }
  if (e.range.size() != 2) return bad("data_offsets are not two numbers");
  const auto [begin, end] = std::pair(e.range[0], e.range[1]);
  if (begin > end || end > data.size()) {
    return bad(fmt::format("data_offsets [{}, {}] in {} bytes of data", begin, end, data.size()));
  }
  if (end - begin != static_cast<uint64_t>(*n_bytes)) {
    return bad(fmt::format("data_offsets [{}, {}], but dtype and shape take {} bytes", begin, end,
                           *n_bytes));
  }
  t.name = std::move(e.name);
  t.data = data.subspan(begin, end - begin);
  return t;
}

Result<void> check_disjoint(const std::string& path, std::span<const SafeTensor> tensors) {
  const SafeTensor* last = nullptr;  // the last one that has data
  for (const SafeTensor& t : tensors) {
    if (t.data.empty()) continue;
    if (last != nullptr && last->data.data() + last->data.size() > t.data.data()) {
      return make_error(ErrorCode::kCorrupt, "{}: tensors '{}' and '{}' overlap", path,
                        gguf::printable(last->name), gguf::printable(t.name));
    }
    last = &t;
  }
  return {};
}

}  // namespace

Result<std::vector<SafeTensor>> parse_safetensors(std::span<const std::byte> bytes,
                                                  const std::string& path) {
  uint64_t n_header = 0;
  if (bytes.size() < sizeof(n_header))
    return make_error(ErrorCode::kCorrupt, "{}: no header in {} bytes", path, bytes.size());
  std::memcpy(&n_header, bytes.data(), sizeof(n_header));
  if (n_header > bytes.size() - sizeof(n_header) || n_header > kMaxHeaderBytes) {
    return make_error(ErrorCode::kCorrupt, "{}: header of {} bytes in a file of {}", path, n_header,
                      bytes.size());
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data() + sizeof(n_header));
  HeaderHandler handler;
  if (n_header == 0 || *text != '{')
    return make_error(ErrorCode::kCorrupt, "{}: header is not a JSON object", path);
  if (!nlohmann::json::sax_parse(text, text + n_header, &handler))
    return make_error(ErrorCode::kCorrupt, "{}: {}", path, handler.problem);

  const auto data = bytes.subspan(sizeof(n_header) + n_header);
  std::vector<SafeTensor> tensors;
  tensors.reserve(handler.entries.size());
  for (Entry& e : handler.entries) {
    INFER_ASSIGN(SafeTensor t, place(path, e, data));
    tensors.push_back(std::move(t));
  }
  std::sort(tensors.begin(), tensors.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::pair(a.data.data(), a.data.size()) < std::pair(b.data.data(), b.data.size());
  });
  INFER_TRY(check_disjoint(path, tensors));
  return tensors;
}

}  // namespace infer::quantize
