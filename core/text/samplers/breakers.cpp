#include "core/text/samplers/breakers.h"

#include <algorithm>
#include <utility>

namespace infer::text {

Breakers::Breakers(std::vector<std::string> texts) : texts_(std::move(texts)) {
  for (const std::string& text : texts_) n_tail_ = std::max(n_tail_, text.size() - 1);
  tail_.reserve(2 * n_tail_);
  joint_.reserve(2 * n_tail_);
}

bool Breakers::inside(std::string_view token_text) const {
  return std::ranges::any_of(texts_, [&](const std::string& text) {
    return token_text.find(text) != std::string_view::npos;
  });
}

bool Breakers::ends_in(std::string_view token_text) {
  if (inside(token_text)) return true;
  joint_.assign(tail_).append(token_text.substr(0, n_tail_));
  return std::ranges::any_of(texts_, [&](const std::string& text) {
    // One that ends in the new text begins at most size - 1 bytes before it.
    const size_t back = std::min(text.size() - 1, tail_.size());
    const size_t at = joint_.find(text, tail_.size() - back);
    return at != std::string::npos && at + text.size() > tail_.size();
  });
}

void Breakers::push(std::string_view token_text) {
  n_free_ = ends_in(token_text) ? 0 : n_free_ + 1;
  if (token_text.size() >= n_tail_) {
    tail_.assign(token_text.substr(token_text.size() - n_tail_));
    return;
  }
  tail_.append(token_text);
  if (tail_.size() > n_tail_) tail_.erase(0, tail_.size() - n_tail_);
}

}  // namespace infer::text
