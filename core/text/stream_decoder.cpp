#include <algorithm>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"

namespace infer::text {
namespace {

constexpr size_t kWarmBytes = 256;  // longer tokens grow the buffers once

/// Moves what is decided from `in` to `out`; an unfinished character stays.
void take_complete(std::string& in, std::string& out) {
  size_t at = 0;
  while (at < in.size()) {
    const size_t valid = utf8_valid_end(in, at);
    out.append(in, at, valid - at);
    at = valid;
    if (at == in.size()) break;
    const Utf8Step step = utf8_step(in, at);
    if (step.kind == Utf8Kind::kCut) break;
    append_utf8(out, kReplacementChar);
    at += step.len;
  }
  in.erase(0, at);
}

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool special)
    : tokenizer_(tokenizer), special_(special) {
  in_.reserve(kWarmBytes);
  out_.reserve(3 * kWarmBytes);  // a byte becomes at most one U+FFFD of three
}

std::string_view StreamDecoder::push(TokenId id) {
  out_.clear();
  if (!special_ && tokenizer_.is_hidden(id)) return out_;
  in_ += tokenizer_.piece(id);
  take_complete(in_, out_);
  return out_;
}

std::string_view StreamDecoder::finish() {
  out_.clear();
  if (!in_.empty()) append_utf8(out_, kReplacementChar);  // take_complete left one maximal part
  in_.clear();
  return out_;
}

}  // namespace infer::text
