#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/eval/choice_task.h"

namespace infer::tools {

/// Tasks in any of the forms: a folder of CSV files (one a subject, in the order of their names),
/// .csv, .json, .jsonl, each also .gz; anything else is llama.cpp's binary form. Checked by
/// check_tasks. Errors: those of the parsers.
Result<std::vector<eval::ChoiceTask>> read_tasks(const std::string& path);

/// `pack IN OUT`: from any form to the binary one, or to JSON lines where OUT ends in .json or
/// .jsonl.
Result<void> pack_tasks(const std::string& in, const std::string& out);

/// The selected of `n_all` tasks whose subject matches `subset` (a regular expression, searched
/// for; empty: every one). Errors: kInvalidArgument for a wrong expression or nothing left.
Result<std::vector<int64_t>> keep_subset(std::span<const int64_t> selected,
                                         std::span<const eval::ChoiceTask> tasks,
                                         const std::string& subset);

}  // namespace infer::tools
