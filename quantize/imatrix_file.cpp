#include "quantize/imatrix_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "gguf/cursor.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::quantize {
namespace {

template <class... Args>
Error corrupt(const std::string& file, fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kCorrupt, "{}: {}", file,
                    fmt::format(format, std::forward<Args>(args)...));
}

std::vector<float> floats_at(const std::byte* data, size_t n) {
  std::vector<float> out(n);
  if (n > 0) std::memcpy(out.data(), data, n * sizeof(float));
  return out;
}

/// add() tells a caller of his mistake; here the mistake is the file's.
Result<void> add_entry(Imatrix* imatrix, std::string_view tensor, const ImatrixEntry& entry) {
  if (imatrix->contains(tensor))
    return corrupt(imatrix->path, "tensor '{}' comes twice", gguf::printable(tensor));
  if (Result<void> added = imatrix->add(tensor, entry); !added.ok())
    return make_error(ErrorCode::kCorrupt, "{}", added.error().message);
  return {};
}

Result<void> read_keys(const gguf::Reader& file, Imatrix* out) {
  INFER_ASSIGN(const std::string_view type, file.get_string(gguf::keys::kType, kImatrixType));
  if (type != kImatrixType)
    return make_error(ErrorCode::kUnsupported, "{}: key '{}' = '{}': no importance matrix",
                      file.path(), gguf::keys::kType, gguf::printable(type));
  INFER_ASSIGN(out->n_chunk, file.get_int(kImatrixChunkCount, 0));
  INFER_ASSIGN(out->chunk_tok, file.get_int(kImatrixChunkSize, 0));
  constexpr int64_t kMaxU32 = 0xffffffff;
  for (const auto& [key, n] : {std::pair{kImatrixChunkCount, out->n_chunk},
                               std::pair{kImatrixChunkSize, out->chunk_tok}}) {
    if (n < 0 || n > kMaxU32) return corrupt(file.path(), "key '{}' = {}", key, n);
  }
  const gguf::Value* names = file.find(kImatrixDatasets);
  if (names == nullptr) return {};
  if (!names->is_array() || names->elem_type() != gguf::ValueType::kString)
    return corrupt(file.path(), "key '{}' is no list of strings", kImatrixDatasets);
  for (int64_t i = 0; i < names->size(); ++i) {
    INFER_ASSIGN(const std::string_view text, names->string_at(i));
    out->datasets.emplace_back(text);
  }
  return {};
}

Result<ImatrixEntry> read_entry(const gguf::Reader& file, std::string_view tensor,
                                const gguf::TensorInfo& sums) {
  const std::string shown = gguf::printable(tensor);
  const std::string counts_name = std::string(tensor) + std::string(kCountsSuffix);
  const gguf::TensorInfo* counts = file.find_tensor(counts_name);
  if (counts == nullptr)
    return corrupt(file.path(), "tensor '{}' has {}, but no {}", shown, kSumsSuffix, kCountsSuffix);
  if (sums.view.type != DType::kF32 || counts->view.type != DType::kF32)
    return corrupt(file.path(), "tensor '{}': sums and counts are not f32", shown);
  const int64_t n_mat = counts->view.n_elem();
  if (n_mat < 1 || sums.view.n_elem() < 1 || sums.view.n_elem() % n_mat != 0)
    return corrupt(file.path(), "tensor '{}': {} sums for {} counts", shown, sums.view.n_elem(),
                   n_mat);
  ImatrixEntry entry;
  entry.n_k = sums.view.n_elem() / n_mat;
  entry.sum_sq = floats_at(sums.view.data, static_cast<size_t>(sums.view.n_elem()));
  constexpr float kMaxCount = 9007199254740992.0f;  // 2^53
  for (const float n : floats_at(counts->view.data, static_cast<size_t>(n_mat))) {
    if (!(n >= 0.0f && n <= kMaxCount))
      return corrupt(file.path(), "tensor '{}': count of {} tokens", shown, n);
    entry.n_tok.push_back(std::llround(n));
  }
  return entry;
}

/// Walks over a legacy file; every number is checked against what is left of it.
class LegacyParser {
 public:
  LegacyParser(std::span<const std::byte> bytes, const std::string& name) : cursor_(bytes) {
    out_.path = name;
    out_.counts_chunks = true;
  }

  Result<Imatrix> parse() {
    const std::optional<int32_t> n = cursor_.read<int32_t>();
    constexpr size_t kLeastBytes = 4 * sizeof(int32_t) + 1;  // of an entry
    if (!n || *n < 1 || static_cast<size_t>(*n) > cursor_.remaining() / kLeastBytes)
      return corrupt(out_.path, "is no importance matrix, neither GGUF nor .dat");
    for (int32_t i = 0; i < *n; ++i) INFER_TRY(entry(i, *n));
    INFER_TRY(trailer());
    return std::move(out_);
  }

 private:
  std::optional<std::string> text(int32_t n_bytes) {
    if (n_bytes < 0 || static_cast<size_t>(n_bytes) > cursor_.remaining()) return std::nullopt;
    std::string s(static_cast<size_t>(n_bytes), '\0');
    std::memcpy(s.data(), cursor_.here(), s.size());
    cursor_.skip(s.size());
    return s;
  }

  Result<void> entry(int32_t i, int32_t n) {
    constexpr int32_t kMaxName = 1024;
    const std::optional<int32_t> length = cursor_.read<int32_t>();
    if (!length || *length < 1 || *length > kMaxName)
      return corrupt(out_.path, "entry {} of {}: name of {} bytes", i, n, length.value_or(0));
    const std::optional<std::string> tensor = text(*length);
    if (!tensor || tensor->find('\0') != std::string::npos)
      return corrupt(out_.path, "entry {} of {}: no name", i, n);
    const std::optional<int32_t> n_call = cursor_.read<int32_t>();
    const std::optional<int32_t> n_value = cursor_.read<int32_t>();
    const std::string shown = gguf::printable(*tensor);
    if (!n_call || !n_value || *n_value < 1 ||
        static_cast<size_t>(*n_value) > cursor_.remaining() / sizeof(float))
      return corrupt(out_.path, "tensor '{}': {} values, the file has {} bytes left", shown,
                     n_value.value_or(0), cursor_.remaining());
    if (*n_call < 0) return corrupt(out_.path, "tensor '{}': {} calls", shown, *n_call);
    ImatrixEntry entry;
    entry.n_k = *n_value;
    entry.n_tok = {std::max(*n_call, 1)};  // no call: llama.cpp takes the values for the means
    entry.sum_sq = floats_at(cursor_.here(), static_cast<size_t>(*n_value));
    cursor_.skip(static_cast<size_t>(*n_value) * sizeof(float));
    return add_entry(&out_, *tensor, entry);
  }

  Result<void> trailer() {
    if (cursor_.remaining() == 0) return {};
    const std::optional<int32_t> n_call = cursor_.read<int32_t>();
    if (!n_call || *n_call < 0)
      return corrupt(out_.path, "{} bytes behind the last entry", cursor_.remaining());
    out_.n_chunk = *n_call;
    if (cursor_.remaining() == 0) return {};
    const std::optional<int32_t> length = cursor_.read<int32_t>();
    std::optional<std::string> dataset = length ? text(*length) : std::nullopt;
    if (!dataset || cursor_.remaining() > 0)
      return corrupt(out_.path, "the data set's name is cut, or something follows it");
    if (!dataset->empty()) out_.datasets.push_back(*std::move(dataset));
    return {};
  }

  gguf::Cursor cursor_;
  Imatrix out_;
};

}  // namespace

Result<Imatrix> read_gguf_imatrix(const gguf::Reader& file) {
  Imatrix out;
  out.path = file.path();
  INFER_TRY(read_keys(file, &out));
  for (const gguf::TensorInfo& t : file.tensors()) {
    if (t.name.ends_with(kCountsSuffix)) {
      const std::string_view tensor = t.name.substr(0, t.name.size() - kCountsSuffix.size());
      const std::string sums_name = std::string(tensor) + std::string(kSumsSuffix);
      if (file.find_tensor(sums_name) == nullptr)
        return corrupt(file.path(), "tensor '{}' has {}, but no {}", gguf::printable(tensor),
                       kCountsSuffix, kSumsSuffix);
    }
    if (!t.name.ends_with(kSumsSuffix)) continue;  // what later versions may add
    const std::string_view tensor = t.name.substr(0, t.name.size() - kSumsSuffix.size());
    INFER_ASSIGN(const ImatrixEntry entry, read_entry(file, tensor, t));
    INFER_TRY(add_entry(&out, tensor, entry));
  }
  if (out.entries.empty()) return corrupt(file.path(), "holds no sums of any tensor");
  return out;
}

Result<Imatrix> parse_legacy_imatrix(std::span<const std::byte> bytes, const std::string& name) {
  return LegacyParser(bytes, name).parse();
}

}  // namespace infer::quantize
