#pragma once

#include <concepts>
#include <optional>

namespace infer {

/// Arithmetic on numbers that come from files: nullopt when the result does not fit.
template <std::integral T>
constexpr std::optional<T> checked_add(T a, T b) {
  T r{};
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}
template <std::integral T>
constexpr std::optional<T> checked_mul(T a, T b) {
  T r{};
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}
/// Smallest multiple of `align` (> 0) that is >= v.
template <std::integral T>
constexpr std::optional<T> checked_align_up(T v, T align) {
  const T rest = v % align;
  if (rest == 0) return v;
  return checked_add<T>(v, align - rest);
}
/// For sizes of our own making, where overflow is impossible.
template <std::integral T>
constexpr T align_up(T v, T align) {
  return (v + align - 1) / align * align;
}
template <std::integral T>
constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace infer
