#pragma once

#include "tools/common/model_options.h"

namespace CLI {
class App;
}

namespace infer::tools {

/// --override-kv, --rope-*, --yarn-*: flags that end up as keys of the model.
void add_key_options(CLI::App& app, ModelOptions* options);

}  // namespace infer::tools
