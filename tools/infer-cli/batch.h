#pragma once

#include "core/engine.h"
#include "tools/infer-cli/interrupts.h"
#include "tools/infer-cli/options.h"

namespace infer::tools {

/// --batch: one JSON object a line in, one out, in the order of the input: {id, text, stop_reason,
/// timings}, with --json ids, prompt_ids and log-probabilities as well, with -np an array
/// "samples"; {id, error} for a line that cannot be answered. Only so many lines are read ahead
/// that memory stays bounded. Ctrl-C keeps what is done. Exit code: 0, 1 when a line failed or the
/// output could not be written, 130 interrupted.
int run_batch(const CliOptions& options, Engine& engine, Interrupts& interrupts);

}  // namespace infer::tools
