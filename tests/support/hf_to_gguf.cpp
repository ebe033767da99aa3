#include "tests/support/hf_to_gguf.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "tests/support/encode.h"
#include "tests/support/hf_json.h"
#include "tests/support/hf_source.h"
#include "tests/support/hf_tokenizer.h"

namespace infer::test {
namespace {

using hf::Change;
using hf::HfArch;
using hf::Json;
using hf::NamePair;
using hf::Source;
using hf::Target;

std::optional<Target> look_up(std::span<const NamePair> table, std::string_view name) {
  for (const NamePair& row : table) {
    if (row.hf == name) return Target{std::string(row.gguf), row.change};
  }
  return std::nullopt;
}

/// Takes "12." off the front of `name`.
std::optional<int64_t> take_index(std::string_view* name) {
  int64_t index = 0;
  const char* end = name->data() + name->size();
  const auto [next, error] = std::from_chars(name->data(), end, index);
  if (error != std::errc() || index < 0 || next == end || *next != '.') return std::nullopt;
  name->remove_prefix(static_cast<size_t>(next - name->data()) + 1);
  return index;
}

std::optional<Target> map_tensor(const HfArch& arch, std::string_view name) {
  if (auto outer = look_up(arch.outer, name)) return outer;
  if (!name.starts_with(arch.layers)) return std::nullopt;
  name.remove_prefix(arch.layers.size());
  const auto il = take_index(&name);
  if (!il) return std::nullopt;
  std::optional<Target> target;
  if (!arch.experts.empty() && name.starts_with(arch.experts)) {
    name.remove_prefix(arch.experts.size());
    const auto expert = take_index(&name);
    if (!expert) return std::nullopt;
    target = look_up(arch.expert_tensors, name);
    if (target) target->expert = *expert;
  } else {
    target = look_up(arch.inner, name);
  }
  if (target) target->name = "blk." + std::to_string(*il) + "." + target->name;
  return target;
}

/// Row i of the first half of a head goes to 2i, row i of the second half to 2i + 1.
int64_t permuted_row(int64_t r, int64_t head_rows) {
  const int64_t i = r % head_rows;
  return r - i + i % (head_rows / 2) * 2 + i / (head_rows / 2);
}

/// Where row r of `n_row` goes.
int64_t new_row(Change change, int64_t r, int64_t n_row, int64_t n_head) {
  if (change != Change::kSplitQkv) return permuted_row(r, n_row / n_head);
  const int64_t head_dim = n_row / (3 * n_head);
  const int64_t head = r / (3 * head_dim);
  const int64_t part = r / head_dim % 3;
  return (part * n_head + head) * head_dim + r % head_dim;
}

std::vector<float> move_rows(const std::vector<float>& x, Change change, int64_t n_row,
                             int64_t n_head) {
  const int64_t k = static_cast<int64_t>(x.size()) / n_row;
  std::vector<float> out(x.size());
  for (int64_t r = 0; r < n_row; ++r)
    std::copy_n(x.begin() + r * k, k, out.begin() + new_row(change, r, n_row, n_head) * k);
  return out;
}

std::vector<float> transpose(const std::vector<float>& x, int64_t n_row, int64_t n_col) {
  std::vector<float> out;
  out.reserve(x.size());
  for (int64_t c = 0; c < n_col; ++c) {
    for (int64_t r = 0; r < n_row; ++r) out.push_back(x[static_cast<size_t>(r * n_col + c)]);
  }
  return out;
}

Result<GgufTensor> convert_tensor(const Source& src, const SafeTensor& t, const Target& target,
                                  DType type) {
  INFER_ASSIGN(std::vector<float> x, src.weights.floats(t.name));
  std::vector<int64_t> shape(t.shape.rbegin(), t.shape.rend());
  if (target.change == Change::kAddOne) {
    for (float& v : x) v += 1.0f;
  } else if (target.change == Change::kTranspose) {
    x = transpose(x, t.shape.at(0), t.shape.at(1));
    std::swap(shape[0], shape[1]);
  } else if (target.change == Change::kFlatten) {
    shape = {static_cast<int64_t>(x.size())};
  } else if (target.change != Change::kNone) {
    const int64_t n_head = target.change == Change::kPermuteK ? src.n_kv_head() : src.n_head();
    const int64_t parts = target.change == Change::kSplitQkv ? 3 : 2;
    if (n_head <= 0 || t.shape[0] % (parts * n_head) != 0) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' has no rows for {} heads",
                        src.folder.string(), t.name, n_head);
    }
    x = move_rows(x, target.change, t.shape[0], n_head);
  }
  GgufTensor out{target.name, DType::kF32, std::move(shape), {}};
  if (out.shape.size() > 1) out.type = row_bytes(type, out.shape[0]) ? type : DType::kF16;
  // Learned positions are added, never multiplied: llama.cpp keeps them F32.
  if (out.name == "position_embd.weight") out.type = DType::kF32;
  out.bytes = encode(out.type, x);
  return out;
}

/// One matrix of an expert becomes a slice of the tensor that holds them all; safetensors list them
/// in the order of their names.
Result<void> add_expert(const Source& src, GgufTensor slice, int64_t expert, GgufImage& out) {
  GgufTensor* all = out.find_tensor(slice.name);
  const int64_t known = all == nullptr ? 0 : all->shape.at(2);
  if (expert != known) {
    return make_error(ErrorCode::kUnsupported, "{}: expert {} of '{}' comes after {} others",
                      src.folder.string(), expert, slice.name, known);
  }
  if (all == nullptr) {
    slice.shape.push_back(1);
    out.tensors.push_back(std::move(slice));
    return {};
  }
  all->bytes.insert(all->bytes.end(), slice.bytes.begin(), slice.bytes.end());
  ++all->shape[2];
  return {};
}

/// llama.cpp's numbers for general.file_type.
uint32_t file_type_of(DType type) {
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ4_K:
      return 14;
    case DType::kQ5_K:
      return 16;
    case DType::kQ6_K:
      return 18;
    case DType::kBF16:
      return 32;
    default:
      return 1;
  }
}

void write_special_ids(const Source& src, GgufImage& out) {
  constexpr std::array<std::pair<const char*, const char*>, 3> kIds{
      {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
       {"eos_token_id", "tokenizer.ggml.eos_token_id"},
       {"pad_token_id", "tokenizer.ggml.padding_token_id"}}};
  for (const auto& [hf_key, key] : kIds) {
    if (const int64_t id = src.get(hf_key, int64_t{-1}); id >= 0) out.set(key, hf::u32(id));
  }
  if (src.arch == "gemma2" || src.arch == "gemma3")
    out.set("tokenizer.ggml.add_space_prefix", false);
}

}  // namespace

Result<GgufImage> convert_hf(const std::filesystem::path& folder, const ConvertOptions& options) {
  if (!can_encode(options.type)) {
    return make_error(ErrorCode::kUnsupported, "{}: no encoder for {}", folder.string(),
                      name_of(options.type));
  }
  INFER_ASSIGN(Json config, read_json(folder / "config.json"));
  INFER_ASSIGN(SafeTensors weights, SafeTensors::open(folder / "model.safetensors"));
  const Json names = config.value("architectures", Json::array());
  const std::string hf_name =
      !names.empty() && names[0].is_string() ? names[0].get<std::string>() : "";
  const auto arch = std::find_if(hf::archs().begin(), hf::archs().end(),
                                 [&](const HfArch& a) { return a.hf_name == hf_name; });
  if (arch == hf::archs().end()) {
    return make_error(ErrorCode::kUnsupported, "{}: architecture '{}'",
                      (folder / "config.json").string(), hf_name);
  }
  const Source src{folder, std::move(config), std::move(weights), std::string(arch->gguf_name)};

  GgufImage out;
  out.set("general.architecture", src.arch);
  out.set("general.type", std::string("model"));
  out.set("general.name", folder.filename().string());
  INFER_TRY(arch->write_keys(src, out));
  out.set("general.file_type", file_type_of(options.type));
  INFER_TRY(convert_tokenizer(folder, src.get("vocab_size", int64_t{0}), out));
  write_special_ids(src, out);
  out.set("general.quantization_version", uint32_t{2});
  for (const SafeTensor& t : src.weights.tensors()) {
    const auto target = map_tensor(*arch, t.name);
    if (!target)
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}'", folder.string(), t.name);
    INFER_ASSIGN(GgufTensor converted, convert_tensor(src, t, *target, options.type));
    if (target->expert >= 0) {
      INFER_TRY(add_expert(src, std::move(converted), target->expert, out));
    } else {
      out.tensors.push_back(std::move(converted));
    }
  }
  return out;
}

}  // namespace infer::test
