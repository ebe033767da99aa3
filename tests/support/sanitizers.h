#pragma once

/// Whether a sanitizer slows this program down.
namespace infer::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kThreadSanitized = __has_feature(thread_sanitizer);
#else
inline constexpr bool kThreadSanitized = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = kThreadSanitized || __has_feature(address_sanitizer);
#else
inline constexpr bool kSanitized = kThreadSanitized;
#endif
/// Repetitions of a random test: fewer where a sanitizer makes each one slow.
constexpr int scaled(int normal, int sanitized) { return kSanitized ? sanitized : normal; }

}  // namespace infer::test
