#include "core/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace infer {

void check_failed(const char* file, int line, const char* cond, std::string_view message) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %.*s\n", file, line, cond,
               static_cast<int>(message.size()), message.data());
  std::abort();
}

}  // namespace infer
