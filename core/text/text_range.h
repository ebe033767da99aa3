#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

namespace infer::text {

/// A stretch [begin, end) of bytes of a text. In lists of them: sorted, disjoint, not empty.
struct TextRange {
  size_t begin = 0, end = 0;
  bool operator==(const TextRange&) const = default;
};

/// Whether [begin, end) shares a byte with one of `ranges`.
inline bool overlaps(std::span<const TextRange> ranges, size_t begin, size_t end) {
  const auto after = std::partition_point(ranges.begin(), ranges.end(),
                                          [&](const TextRange& r) { return r.end <= begin; });
  return after != ranges.end() && after->begin < end;
}

}  // namespace infer::text
