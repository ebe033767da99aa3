#pragma once

#include <stop_token>

#include "core/base/result.h"
#include "tools/perplexity/options.h"

namespace infer::tools {

/// Multiple choice, HellaSwag, Winogrande: scores every task, then the report.
Result<void> run_tasks(const PerplexityArgs& args, const std::stop_token& stop);

/// `compare A B`: two --jsonl files, task by task.
Result<void> compare_files(const std::string& a, const std::string& b, bool json);

}  // namespace infer::tools
