#pragma once

#include <functional>
#include <vector>

#include "core/runtime/activation_tap.h"
#include "quantize/imatrix.h"
#include "tools/common/args.h"

namespace CLI {
class App;
}

namespace infer::tools {

/// A subcommand: its flags are registered when it is made; run() does it, prints what went wrong
/// and gives the exit code.
struct ImatrixCommand {
  CLI::App* app = nullptr;
  std::function<int()> run;
};

/// `quantize imatrix -m MODEL -f TEXT -o FILE`, flags as llama-imatrix spells them.
ImatrixCommand add_imatrix_command(CLI::App& app);
/// -tb and -ofreq, for normalise_args.
std::vector<Alias> imatrix_aliases();

/// Adds what an engine's tap saw. Errors: kNumeric naming a tensor whose sums are no numbers.
Result<void> add_sums(const runtime::ActivationTap& tap, quantize::Imatrix* imatrix);

}  // namespace infer::tools
