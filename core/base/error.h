#pragma once

#include <utility>

#include <fmt/format.h>

#include "core/base/result.h"

namespace infer {

/// `return make_error(ErrorCode::kCorrupt, "{}: key '{}' = {}", file, key, value);`
template <class... Args>
Error make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace infer
