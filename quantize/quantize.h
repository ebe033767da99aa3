#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "quantize/codec.h"
#include "quantize/imatrix.h"
#include "quantize/output.h"
#include "quantize/plan.h"
#include "quantize/report.h"
#include "quantize/source.h"

/// Carrying out a plan: rows of the source, as many as a panel of about a MiB has, are decoded,
/// encoded and written where they belong by whichever thread comes next. Memory does not grow with
/// the model or its tensors, and the bytes do not depend on the threads.
namespace infer::quantize {

struct Progress {
  int64_t done_bytes = 0, all_bytes = 0;  ///< of the input's tensor data
};

struct RunOptions {
  Output::Options output;
  const Imatrix* imatrix = nullptr;
  bool best = false;     ///< EncodeTable::best
  bool measure = false;  ///< decode what was written and sum up the errors
  int n_threads = 0;     ///< 0: one a CPU
  /// Set by another thread to stop: the run ends with kCancelled.
  const std::atomic<bool>* cancel = nullptr;
  /// Called by any one thread at a time, ten times a second at most.
  std::function<void(const Progress&)> progress;
  /// Called by any one thread at a time, for each tensor in the plan's order, once it is written.
  std::function<void(size_t index, const TensorReport&)> on_tensor;
};

/// Tells the matrix the shapes of the plan's tensors; files of the older form do not have them.
/// Call it before quantize(). Errors: kInvalidArgument for a matrix of another model.
Result<void> fit_imatrix(const Plan& plan, Imatrix* imatrix);

/// Threads that `wanted` (0: one a CPU) become.
int pick_threads(int wanted);

/// Writes the files. Nothing of an earlier output is lost, and nothing is left over, unless all
/// went well. Errors: those of Output; kNumeric for values that are not finite or that the type
/// cannot hold, naming tensor and row; kUnsupported for a type that cannot be decoded or written;
/// kInvalidArgument for an importance matrix of another model; kCancelled.
Result<Report> quantize(const Source& source, const Plan& plan, const Codec& codec,
                        const RunOptions& options);

}  // namespace infer::quantize
