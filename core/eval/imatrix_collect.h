#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string_view>

#include "core/base/result.h"
#include "core/engine.h"
#include "core/runtime/activation_tap.h"

/// Collects what importance matrices are made of: for each weight matrix the sums of squares of the
/// activations that meet its columns while the model reads a text.
namespace infer::eval {

/// Which matrices llama-imatrix watches too: those of layers, and of others the output matrix
/// where it is asked for (by the name of the embedding where the file has no other).
runtime::ActivationTap::Wanted watched_tensors(bool output);

struct CollectOptions {
  int64_t chunk_tok = 512;     ///< tokens that are computed together, each chunk by itself
  int64_t max_chunks = -1;     ///< -1: as many as the text has
  bool output = false;         ///< the output matrix too: every row's logits are computed
  bool parse_special = false;  ///< text such as "<|im_end|>" is the control token
  std::stop_token stop{};      ///< ends the run with kCancelled, also in the middle of a chunk
  /// After each chunk, on the caller's thread; the tap's sums may be read. An error ends the run.
  std::function<Result<void>(int64_t done, int64_t all)> on_chunk{};
};

/// Reads `input` in chunks, each of whose first token becomes BOS where the model wants one (as
/// llama-imatrix does), and gives their number. What is left at the end is not used. The sums are
/// in the tap that the engine was made with (EngineOptions::tap).
/// Needs: an engine without prefix cache, n_ctx() >= chunk_tok, that nobody else uses meanwhile.
/// Errors: kInvalidArgument for less text than one chunk or an engine that cannot (numbers named),
/// kCancelled, those of the engine.
Result<int64_t> collect_imatrix(Engine& engine, std::string_view input,
                                const CollectOptions& options);

}  // namespace infer::eval
