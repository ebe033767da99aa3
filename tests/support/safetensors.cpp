#include "tests/support/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "core/base/half.h"

namespace infer::test {
namespace {

using Json = nlohmann::json;

struct TypeRow {
  std::string_view name;
  SafeType type;
  int64_t bytes;
};
constexpr std::array<TypeRow, 5> kTypes{{{"F32", SafeType::kF32, 4},
                                         {"F16", SafeType::kF16, 2},
                                         {"BF16", SafeType::kBF16, 2},
                                         {"I32", SafeType::kI32, 4},
                                         {"I64", SafeType::kI64, 8}}};

template <class T>
T load_at(const std::byte* p, int64_t i) {
  T v;
  std::memcpy(&v, p + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return v;
}

/// Checks one header entry and gives it its place in `data`.
Result<SafeTensor> parse_entry(const std::string& path, const std::string& name, const Json& entry,
                               std::span<const std::byte> data) {
  const auto bad = [&](std::string_view what) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}': {}", path, name, what);
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string())
    return bad("no dtype");
  const auto type_name = entry["dtype"].get<std::string>();
  const auto* row = std::find_if(kTypes.begin(), kTypes.end(),
                                 [&](const TypeRow& r) { return r.name == type_name; });
  if (row == kTypes.end())
    return make_error(ErrorCode::kUnsupported, "{}: tensor '{}': dtype {}", path, name, type_name);

  SafeTensor t;
  t.name = name;
  t.type = row->type;
  std::optional<int64_t> n_bytes = row->bytes;
  if (!entry.contains("shape") || !entry["shape"].is_array()) return bad("no shape");
  for (const Json& d : entry["shape"]) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > uint64_t{INT64_MAX})
      return bad("bad shape " + entry["shape"].dump());
    t.shape.push_back(d.get<int64_t>());
    n_bytes = checked_mul<int64_t>(*n_bytes, t.shape.back());
    if (!n_bytes) return bad("size overflows");
  }
  const Json range = entry.value("data_offsets", Json::array());
  if (!range.is_array() || range.size() != 2 || !range[0].is_number_unsigned() ||
      !range[1].is_number_unsigned()) {
    return bad("bad data_offsets " + range.dump());
  }
  const auto begin = range[0].get<uint64_t>();
  const auto end = range[1].get<uint64_t>();
  if (begin > end || end > data.size() || end - begin != static_cast<uint64_t>(*n_bytes)) {
    return bad("data_offsets " + range.dump() + " do not fit shape and file");
  }
  t.data = data.subspan(begin, end - begin);
  return t;
}

}  // namespace

int64_t SafeTensor::n_elem() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;  // the product was checked when the file was opened
  return n;
}

Result<std::vector<std::byte>> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return make_error(ErrorCode::kNotFound, "{}: cannot open", path.string());
  const std::streamoff size = in.tellg();
  std::vector<std::byte> bytes(static_cast<size_t>(std::max<std::streamoff>(size, 0)));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!in) return make_error(ErrorCode::kIo, "{}: cannot read {} bytes", path.string(), size);
  return bytes;
}

Result<SafeTensors> SafeTensors::open(const std::filesystem::path& path) {
  SafeTensors file;
  file.path_ = path.string();
  INFER_ASSIGN(file.bytes_, read_file(path));
  const std::span<const std::byte> bytes(file.bytes_);
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes))
    return make_error(ErrorCode::kCorrupt, "{}: no header", file.path_);
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > bytes.size() - sizeof(header_bytes)) {
    return make_error(ErrorCode::kCorrupt, "{}: header of {} bytes in a file of {}", file.path_,
                      header_bytes, bytes.size());
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data() + sizeof(header_bytes));
  const Json header = Json::parse(text, text + header_bytes, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object())
    return make_error(ErrorCode::kCorrupt, "{}: header is not a JSON object", file.path_);
  const auto data = bytes.subspan(sizeof(header_bytes) + header_bytes);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    INFER_ASSIGN(SafeTensor t, parse_entry(file.path_, name, entry, data));
    file.tensors_.push_back(std::move(t));
  }
  std::sort(file.tensors_.begin(), file.tensors_.end(),
            [](const SafeTensor& a, const SafeTensor& b) { return a.data.data() < b.data.data(); });
  return file;
}

const SafeTensor* SafeTensors::find(std::string_view name) const {
  const auto it = std::find_if(tensors_.begin(), tensors_.end(),
                               [&](const SafeTensor& t) { return t.name == name; });
  return it == tensors_.end() ? nullptr : &*it;
}

Result<std::vector<float>> SafeTensors::floats(std::string_view name) const {
  const SafeTensor* t = find(name);
  if (t == nullptr) return make_error(ErrorCode::kNotFound, "{}: no tensor '{}'", path_, name);
  std::vector<float> out(static_cast<size_t>(t->n_elem()));
  for (size_t i = 0; i < out.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    switch (t->type) {
      case SafeType::kF32:
        out[i] = load_at<float>(t->data.data(), at);
        break;
      case SafeType::kF16:
        out[i] = f32_from_f16(load_at<uint16_t>(t->data.data(), at));
        break;
      case SafeType::kBF16:
        out[i] = f32_from_bf16(load_at<uint16_t>(t->data.data(), at));
        break;
      default:
        return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' holds integers", path_, name);
    }
  }
  return out;
}

Result<std::vector<int64_t>> SafeTensors::ints(std::string_view name) const {
  const SafeTensor* t = find(name);
  if (t == nullptr) return make_error(ErrorCode::kNotFound, "{}: no tensor '{}'", path_, name);
  std::vector<int64_t> out(static_cast<size_t>(t->n_elem()));
  for (size_t i = 0; i < out.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    switch (t->type) {
      case SafeType::kI32:
        out[i] = load_at<int32_t>(t->data.data(), at);
        break;
      case SafeType::kI64:
        out[i] = load_at<int64_t>(t->data.data(), at);
        break;
      default:
        return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' holds floats", path_, name);
    }
  }
  return out;
}

}  // namespace infer::test
