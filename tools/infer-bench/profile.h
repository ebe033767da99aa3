#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "backends/cpu/bench/profile_report.h"
#include "core/base/output_file.h"
#include "core/base/result.h"
#include "core/runtime/op_profile.h"
#include "tools/common/model_options.h"

namespace CLI {
class App;
}

/// `infer-bench run --profile`.
namespace infer::tools {

struct ProfileArgs {
  bool on = false;
  std::string svg;
  int64_t array_mib = 0;
};
void add_profile_flags(CLI::App& app, ProfileArgs* args);

/// Only CPUs fill profiles, so that all of the model goes there. Errors: kInvalidArgument for flags
/// that want it elsewhere.
Result<void> prepare_profile(ModelOptions* options, runtime::OpProfile* profile);
/// The chart's file, if there is to be one, opened before the run: minutes of measuring do not end
/// at a wrong path.
Result<std::optional<OutputFile>> open_chart(const ProfileArgs& args, const std::string& model);

/// A test and the profile of its repetitions.
struct RecordedTest {
  cpu::bench::ProfiledTest test;  ///< but for the limits
  runtime::OpProfile profile;
};
struct ProfiledRun {
  cpu::bench::RooflineReport roofline;
  std::vector<cpu::bench::ProfileReport> reports;  ///< one a test
};
/// Measures the machine's limits, with the threads and the level of each test.
Result<ProfiledRun> judge(const ProfileArgs& args, bool pin,
                          const std::vector<RecordedTest>& recorded);

Result<void> write_chart(const std::string& model, const ProfiledRun& run, OutputFile* file);

/// Where the time of a test went, a line a kind of op, and the advice.
nlohmann::ordered_json profile_json(const cpu::bench::ProfileReport& report);
std::string profile_md(const cpu::bench::ProfileReport& report);

}  // namespace infer::tools
