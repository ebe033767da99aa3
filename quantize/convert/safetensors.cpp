#include "quantize/convert/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/base/half.h"
#include "gguf/describe.h"
#include "gguf/mmap.h"
#include "quantize/convert/json.h"
#include "quantize/convert/safetensors_header.h"

namespace infer::quantize {
namespace {

struct TypeRow {
  SafeType type;
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<TypeRow, 15> kTypes{{{SafeType::kBool, "BOOL", 1},
                                          {SafeType::kU8, "U8", 1},
                                          {SafeType::kI8, "I8", 1},
                                          {SafeType::kF8E5M2, "F8_E5M2", 1},
                                          {SafeType::kF8E4M3, "F8_E4M3", 1},
                                          {SafeType::kI16, "I16", 2},
                                          {SafeType::kU16, "U16", 2},
                                          {SafeType::kF16, "F16", 2},
                                          {SafeType::kBF16, "BF16", 2},
                                          {SafeType::kI32, "I32", 4},
                                          {SafeType::kU32, "U32", 4},
                                          {SafeType::kF32, "F32", 4},
                                          {SafeType::kI64, "I64", 8},
                                          {SafeType::kU64, "U64", 8},
                                          {SafeType::kF64, "F64", 8}}};
constexpr const TypeRow& row_of(SafeType type) { return kTypes[static_cast<size_t>(type)]; }
static_assert(row_of(SafeType::kF64).type == SafeType::kF64);

constexpr float decode_e4m3(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t exponent = (bits >> 3) & 0xfu;
  const uint32_t fraction = bits & 7u;
  if ((bits & 0x7fu) == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);  // no infinities
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-9f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (fraction << 20));
}

constexpr std::array<float, 256> kE4m3 = [] {
  std::array<float, 256> table{};
  for (size_t i = 0; i < table.size(); ++i) table[i] = decode_e4m3(static_cast<uint8_t>(i));
  return table;
}();

/// out[i] = convert(element i), elements of any alignment.
template <class T, class Out, class Convert>
void widen(const std::byte* p, std::span<Out> out, Convert convert) {
  for (Out& o : out) {
    T v;
    std::memcpy(&v, p, sizeof(T));
    o = convert(v);
    p += sizeof(T);
  }
}

}  // namespace

std::string_view name_of(SafeType type) { return row_of(type).name; }
int64_t bytes_of(SafeType type) { return row_of(type).bytes; }
float f32_from_e4m3(uint8_t bits) { return kE4m3[bits]; }
float f32_from_e5m2(uint8_t bits) {  // an f16 with 8 bits less
  return f32_from_f16(static_cast<uint16_t>(bits << 8));
}

Result<void> read_floats(const SafeTensor& t, int64_t first, std::span<float> out,
                         const std::string& where) {
  const std::byte* p = t.data.data() + first * bytes_of(t.type);
  switch (t.type) {
    case SafeType::kF32:
      if (!out.empty()) std::memcpy(out.data(), p, out.size_bytes());
      return {};
    case SafeType::kF16:
      widen<uint16_t>(p, out, [](uint16_t v) { return f32_from_f16(v); });
      return {};
    case SafeType::kBF16:
      widen<uint16_t>(p, out, [](uint16_t v) { return f32_from_bf16(v); });
      return {};
    case SafeType::kF8E4M3:
      widen<uint8_t>(p, out, [](uint8_t v) { return kE4m3[v]; });
      return {};
    case SafeType::kF8E5M2:
      widen<uint8_t>(p, out, f32_from_e5m2);
      return {};
    default:
      return make_error(ErrorCode::kUnsupported,
                        "{}: tensor '{}' is {}, not floats of 32 bits or less", where,
                        gguf::printable(t.name), name_of(t.type));
  }
}

Result<void> read_ints(const SafeTensor& t, int64_t first, std::span<int64_t> out,
                       const std::string& where) {
  const std::byte* p = t.data.data() + first * bytes_of(t.type);
  if (t.type == SafeType::kI32) {
    widen<int32_t>(p, out, [](int32_t v) { return int64_t{v}; });
  } else if (t.type == SafeType::kI64) {
    widen<int64_t>(p, out, [](int64_t v) { return v; });
  } else {
    return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' is {}, not I32 or I64", where,
                      gguf::printable(t.name), name_of(t.type));
  }
  return {};
}

struct SafeTensors::Impl {
  std::vector<std::string> paths;
  std::vector<gguf::MappedFile> maps;  ///< empty for bytes in memory
  std::vector<SafeTensor> tensors;
  std::vector<size_t> by_name;  ///< indices of `tensors`

  Result<void> add(std::span<const std::byte> bytes, const std::string& path) {
    INFER_ASSIGN(std::vector<SafeTensor> more, parse_safetensors(bytes, path));
    const int file = static_cast<int>(paths.size());
    paths.push_back(path);
    for (SafeTensor& t : more) {
      t.file = file;
      tensors.push_back(std::move(t));
    }
    return {};
  }
  Result<void> add_file(const std::string& path) {
    INFER_ASSIGN(const InputFile file, InputFile::open(path));
    if (file.size() == 0) return make_error(ErrorCode::kCorrupt, "{}: empty file", path);
    INFER_ASSIGN(gguf::MappedFile map, gguf::MappedFile::map(file, path));
    const std::span<const std::byte> bytes = map.bytes();  // stays where it is when `map` moves
    maps.push_back(std::move(map));
    return add(bytes, path);
  }
  /// Errors: kCorrupt for a name that stands twice.
  Result<void> index() {
    for (size_t i = 0; i < tensors.size(); ++i) by_name.push_back(i);
    std::sort(by_name.begin(), by_name.end(),
              [&](size_t a, size_t b) { return tensors[a].name < tensors[b].name; });
    const auto twice = std::adjacent_find(by_name.begin(), by_name.end(), [&](size_t a, size_t b) {
      return tensors[a].name == tensors[b].name;
    });
    if (twice == by_name.end()) return {};
    const SafeTensor& t = tensors[*twice];
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' stands twice",
                      paths[static_cast<size_t>(t.file)], gguf::printable(t.name));
  }
};

SafeTensors::SafeTensors(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafeTensors::SafeTensors(SafeTensors&&) noexcept = default;
SafeTensors& SafeTensors::operator=(SafeTensors&&) noexcept = default;
SafeTensors::~SafeTensors() = default;

namespace {

/// What model.safetensors.index.json says: tensor -> name of its file.
using WeightMap = std::vector<std::pair<std::string, std::string>>;

/// Errors for names that leave the folder.
Result<WeightMap> read_index(const std::string& path) {
  INFER_ASSIGN(model::HfValue root, read_json(path));
  const model::HfValue* map = root.find("weight_map");
  const auto* object = map != nullptr ? std::get_if<model::HfValue::Object>(&map->value) : nullptr;
  if (object == nullptr)
    return make_error(ErrorCode::kCorrupt, "{}: key 'weight_map' is no object", path);
  WeightMap out;
  for (const auto& [tensor, value] : *object) {
    const auto* file = std::get_if<std::string>(&value.value);
    if (file == nullptr || !file->ends_with(".safetensors") ||
        file->find('/') != std::string::npos || file->find('\0') != std::string::npos) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}': no name of a .safetensors file",
                        path, gguf::printable(tensor));
    }
    out.emplace_back(tensor, *file);
  }
  return out;
}

/// The files of a folder without an index, sorted.
std::vector<std::string> weight_files(const std::filesystem::path& folder) {
  std::error_code ec;
  if (std::filesystem::exists(folder / "model.safetensors", ec)) return {"model.safetensors"};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ec)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with("model-") && name.ends_with(".safetensors"))
      files.push_back(std::move(name));
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// A pickle file of the folder; empty when there is none.
std::string pickle_of(const std::filesystem::path& folder) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ec)) {
    std::string name = entry.path().filename().string();
    for (const std::string_view end : {".bin", ".pt", ".pth", ".pkl"}) {
      if (name.ends_with(end)) return name;
    }
  }
  return {};
}

Error no_weights(const std::string& folder) {
  const std::string pickle = pickle_of(folder);
  if (pickle.empty()) {
    return make_error(ErrorCode::kNotFound,
                      "{}: neither model.safetensors nor model.safetensors.index.json", folder);
  }
  return make_error(ErrorCode::kUnsupported,
                    "{}: only pickle weights ({}), which are programs and are not run; save the "
                    "model as safetensors",
                    folder, gguf::printable(pickle));
}

}  // namespace

Result<SafeTensors> SafeTensors::open_file(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  INFER_TRY(impl->add_file(path));
  INFER_TRY(impl->index());
  return SafeTensors(std::move(impl));
}

Result<SafeTensors> SafeTensors::parse(std::span<const std::byte> bytes, const std::string& name) {
  auto impl = std::make_unique<Impl>();
  INFER_TRY(impl->add(bytes, name));
  INFER_TRY(impl->index());
  return SafeTensors(std::move(impl));
}

Result<SafeTensors> SafeTensors::open_folder(const std::string& folder) {
  const std::filesystem::path root(folder);
  const std::string index = (root / "model.safetensors.index.json").string();
  std::error_code ec;
  WeightMap map;
  std::vector<std::string> files;
  if (std::filesystem::exists(index, ec)) {
    INFER_ASSIGN(map, read_index(index));
    std::set<std::string> named;
    for (const auto& [tensor, file] : map) named.insert(file);
    files.assign(named.begin(), named.end());
  } else {
    files = weight_files(root);
    if (files.empty()) return no_weights(folder);
  }
  auto impl = std::make_unique<Impl>();
  for (const std::string& file : files) INFER_TRY(impl->add_file((root / file).string()));
  INFER_TRY(impl->index());
  SafeTensors all(std::move(impl));
  for (const auto& [tensor, file] : map) {
    const SafeTensor* t = all.find(tensor);
    if (t != nullptr && std::filesystem::path(all.path_of(*t)).filename() == file) continue;
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is not in {}", index,
                      gguf::printable(tensor), gguf::printable(file));
  }
  return all;
}

std::span<const SafeTensor> SafeTensors::tensors() const { return impl_->tensors; }

const SafeTensor* SafeTensors::find(std::string_view name) const {
  const auto it = std::lower_bound(
      impl_->by_name.begin(), impl_->by_name.end(), name,
      [&](size_t i, std::string_view wanted) { return impl_->tensors[i].name < wanted; });
  if (it == impl_->by_name.end() || impl_->tensors[*it].name != name) return nullptr;
  return &impl_->tensors[*it];
}

const std::string& SafeTensors::path_of(const SafeTensor& t) const {
  return impl_->paths[static_cast<size_t>(t.file)];
}

void SafeTensors::release(const SafeTensor& t, std::span<const std::byte> part) const {
  const auto file = static_cast<size_t>(t.file);
  if (file < impl_->maps.size()) impl_->maps[file].release(part);
}

}  // namespace infer::quantize
