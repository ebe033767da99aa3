#pragma once

#include <string_view>

#include <fmt/format.h>

namespace infer {

/// Prints one line to stderr and aborts. Only for bugs of ours: no byte of a file or request may
/// lead here.
[[noreturn]] void check_failed(const char* file, int line, const char* cond,
                               std::string_view message);

}  // namespace infer

/// Stops the program in every build type: the programmer is wrong. `INFER_CHECK(a == b, "q {} vs k
/// {}", a, b)`.
#define INFER_CHECK(cond, ...)                                                      \
  do {                                                                              \
    if (!(cond)) [[unlikely]]                                                       \
      ::infer::check_failed(__FILE__, __LINE__, #cond, ::fmt::format(__VA_ARGS__)); \
  } while (false)

#ifdef NDEBUG
#define INFER_DCHECK(cond, ...) \
  do {                          \
  } while (false)
#else
#define INFER_DCHECK(cond, ...) INFER_CHECK(cond, __VA_ARGS__)
#endif
