#include <cstdio>
#include <exception>

#include "tools/common/args.h"
#include "tools/quantize/imatrix_command.h"

namespace infer::tools {
namespace {

int run(int argc, char** argv) {
  CLI::App app("Importance matrices for quantising models.", "quantize");
  app.require_subcommand(1);
  const ImatrixCommand imatrix = add_imatrix_command(app);
  if (const int code = parse_args(app, normalise_args(argc, argv, imatrix_aliases())); code >= 0)
    return code;
  return imatrix.run();
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  try {
    return infer::tools::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "quantize: error: %s\n", e.what());
    return infer::tools::kExitFailure;
  }
}
