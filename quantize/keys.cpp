#include "quantize/keys.h"

#include <algorithm>
#include <cstdlib>

#include "gguf/keys.h"

namespace infer::quantize {
namespace {

constexpr uint32_t kQuantizationVersion = 2;  // ggml's, since the blocks of today
constexpr std::string_view kImatrixPrefix = "quantize.imatrix.";

const gguf::KeyOverride* find_override(const KeyChanges& changes, std::string_view key) {
  const auto last = std::ranges::find(changes.overrides.rbegin(), changes.overrides.rend(), key,
                                      &gguf::KeyOverride::key);
  return last == changes.overrides.rend() ? nullptr : &*last;
}

Result<void> write_override(std::string_view key, const gguf::KeyOverride& o,
                            gguf::HeaderBuilder* out) {
  if (const auto* i = std::get_if<int64_t>(&o.value)) {
    if (*i >= 0 && *i <= UINT32_MAX) return out->add<uint32_t>(key, static_cast<uint32_t>(*i));
    if (*i >= INT32_MIN && *i < 0) return out->add<int32_t>(key, static_cast<int32_t>(*i));
    return out->add<int64_t>(key, *i);
  }
  if (const auto* d = std::get_if<double>(&o.value))
    return out->add<float>(key, static_cast<float>(*d));
  if (const auto* b = std::get_if<bool>(&o.value)) return out->add<bool>(key, *b);
  return out->add_string(key, std::get<std::string>(o.value));
}

Result<void> write_imatrix_keys(const KeyChanges& changes, gguf::HeaderBuilder* out) {
  const Imatrix& m = *changes.imatrix;
  INFER_TRY(out->add_string("quantize.imatrix.file", changes.imatrix_file));
  if (!m.datasets.empty())
    INFER_TRY(out->add_string("quantize.imatrix.dataset", m.datasets.front()));
  INFER_TRY(out->add<uint32_t>("quantize.imatrix.entries_count",
                               static_cast<uint32_t>(m.entries.size())));
  if (m.n_chunk <= 0) return {};
  return out->add<uint32_t>("quantize.imatrix.chunks_count",
                            static_cast<uint32_t>(std::min<int64_t>(m.n_chunk, UINT32_MAX)));
}

}  // namespace

Result<void> write_keys(const gguf::Reader& model, const KeyChanges& changes,
                        gguf::HeaderBuilder* out) {
  const bool copies = changes.target->copy;
  const auto is_ours = [&](std::string_view key) {
    return !copies && (key == gguf::keys::kFileType || key == gguf::keys::kQuantizationVersion);
  };
  const auto write_ours = [&](std::string_view key) {
    return out->add<uint32_t>(
        key, key == gguf::keys::kFileType ? changes.target->file_type : kQuantizationVersion);
  };
  for (const gguf::KeyValue& kv : model.kvs()) {
    if (kv.key.starts_with("split.")) continue;
    if (changes.imatrix != nullptr && kv.key.starts_with(kImatrixPrefix)) continue;
    if (const gguf::KeyOverride* o = find_override(changes, kv.key))
      INFER_TRY(write_override(kv.key, *o, out));
    else
      INFER_TRY(is_ours(kv.key) ? write_ours(kv.key) : out->add(kv));
  }
  for (const std::string_view key : {gguf::keys::kQuantizationVersion, gguf::keys::kFileType}) {
    if (!copies && model.find(key) == nullptr) INFER_TRY(write_ours(key));
  }
  return changes.imatrix != nullptr ? write_imatrix_keys(changes, out) : Result<void>();
}

}  // namespace infer::quantize
