#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/base/check.h"

namespace infer {

/// What kind of thing went wrong in the world; programs act on the code, people read the message.
enum class ErrorCode {
  kInvalidArgument,  ///< a flag or a request is wrong (tools exit with 2)
  kNotFound,         ///< a file, key or tensor is missing
  kIo,               ///< the operating system refused a read or a write
  kCorrupt,          ///< bytes from a file contradict the format
  kUnsupported,      ///< well-formed, but nothing here can compute it
  kOutOfMemory,      ///< a size or a pool limit was exceeded
  kCancelled,        ///< the caller asked to stop
  kDeadline,         ///< the caller's deadline passed
  kNumeric,          ///< NaN where numbers were due
};

struct Error {
  ErrorCode code = ErrorCode::kInvalidArgument;
  std::string message;  ///< one line, names file, key and value
};

/// A value or an Error: C++20 stand-in for std::expected.
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    INFER_CHECK(ok(), "value() of an error: {}", error().message);
    return std::get<0>(v_);
  }
  const T& value() const& {
    INFER_CHECK(ok(), "value() of an error: {}", error().message);
    return std::get<0>(v_);
  }
  T&& value() && {
    INFER_CHECK(ok(), "value() of an error: {}", error().message);
    return std::get<0>(std::move(v_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& { return std::get<1>(v_); }
  Error&& error() && { return std::get<1>(std::move(v_)); }

 private:
  std::variant<T, Error> v_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : e_(std::move(error)) {}  // NOLINT: implicit by design
  bool ok() const { return !e_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const& { return *e_; }
  Error&& error() && { return *std::move(e_); }

 private:
  std::optional<Error> e_;
};

}  // namespace infer

/// Leaves the function with the error of `expr` (a Result), if it has one.
#define INFER_TRY(expr)                                                       \
  do {                                                                        \
    auto infer_try_result_ = (expr);                                          \
    if (!infer_try_result_.ok()) return std::move(infer_try_result_).error(); \
  } while (false)

#define INFER_CONCAT_INNER_(a, b) a##b
#define INFER_CONCAT_(a, b) INFER_CONCAT_INNER_(a, b)

/// `INFER_ASSIGN(auto x, f());` declares x from the value of f(), or leaves with its error.
#define INFER_ASSIGN(decl, expr) INFER_ASSIGN_(INFER_CONCAT_(infer_result_, __LINE__), decl, expr)
// NOLINTBEGIN(bugprone-macro-parentheses): a declaration takes no parentheses
#define INFER_ASSIGN_(tmp, decl, expr)          \
  auto tmp = (expr);                            \
  if (!tmp.ok()) return std::move(tmp).error(); \
  decl = std::move(tmp).value()
// NOLINTEND(bugprone-macro-parentheses)
