#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/model/hparams.h"
#include "gguf/reader.h"

namespace infer::model {

/// Reads "<arch>.<key>" with range checks; every error names file, key and value.
class HparamsReader {
 public:
  HparamsReader(const gguf::Reader& file, std::string_view arch) : file_(file), arch_(arch) {}

  const gguf::Reader& file() const { return file_; }
  const std::string& arch() const { return arch_; }
  bool has(std::string_view key) const { return file_.find(full(key)) != nullptr; }

  Result<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;
  Result<int64_t> integer(std::string_view key, int64_t min, int64_t max, int64_t fallback) const;
  Result<float> number(std::string_view key, double min, double max) const;
  Result<float> number(std::string_view key, double min, double max, double fallback) const;
  Result<std::string> text(std::string_view key, std::string_view fallback) const;
  /// One number for all layers, or an array of n_layer.
  Result<std::vector<int64_t>> per_layer(std::string_view key, int64_t n_layer, int64_t min,
                                         int64_t max) const;

  /// "[llama] attention.head_count = 5 must divide ... (model.gguf)".
  Error contradiction(std::string_view key, int64_t value, std::string_view why) const;
  Error unsupported(std::string_view key, std::string_view value, std::string_view why) const;

 private:
  std::string full(std::string_view key) const { return arch_ + "." + std::string(key); }
  const gguf::Reader& file_;
  std::string arch_;
};

/// expert_count, expert_used_count and widths into `hp`; nothing when expert_count is missing or 0.
Result<void> read_experts(const HparamsReader& r, Hparams* hp);

/// What every decoder-only architecture has: sizes, heads, context, vocabulary, norm epsilon (under
/// `eps_key`). attn_scale is set to 1 / sqrt(head_dim); windows and ropes are left to the caller.
Result<Hparams> read_common(const HparamsReader& r, std::string_view eps_key);

}  // namespace infer::model
