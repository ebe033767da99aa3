#pragma once

#include <utility>
#include <vector>

#include "core/text/jinja/value.h"

/// What filters and methods of texts share.
namespace infer::text::jinja {

/// str.splitlines(): [begin, end) of each line; `with_ends` leaves the line ends in.
std::vector<std::pair<size_t, size_t>> split_lines(std::string_view s, bool with_ends);

/// str.center, ljust, rjust: `side` -1 puts the text left, 0 in the middle, 1 right.
Result<Value> padded(Budget& budget, const Text& text, int64_t width, std::string_view fill,
                     int side);

inline Result<Value> as_value(Result<TextPtr> text) {
  if (!text.ok()) return std::move(text).error();
  return Value(std::move(text).value());
}

}  // namespace infer::text::jinja
