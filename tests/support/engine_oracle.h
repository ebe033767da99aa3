#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/engine.h"
#include "tests/support/fake_executor.h"

namespace infer::test {

/// What a request over the fake model gives when it is computed alone, token after token.
struct ExpectedSample {
  std::vector<TokenId> drawn;  ///< all, those of a stop string included
  Completion completion;
};
ExpectedSample expected_sample(const FakeModelOptions& model, const Request& request, int sample,
                               int64_t n_ctx);

/// The text of ids, as a fresh decoder of the fake vocabulary gives it.
std::string fake_text(const FakeModelOptions& model, std::span<const TokenId> ids);

/// Log-probabilities after prompt[0..pos], by the definition.
std::vector<double> expected_logprobs(const FakeModelOptions& model,
                                      std::span<const TokenId> prompt, int64_t pos);
/// The best n of them, best first, ties by lower id; -inf is never among them.
TopLogprobs expected_top(const std::vector<double>& logprobs, int n);

}  // namespace infer::test
