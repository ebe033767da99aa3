#include "tools/infer-bench/profile.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "tools/infer-bench/output.h"

namespace infer::tools {

using cpu::bench::Limits;
using cpu::bench::ProfileReport;
using cpu::bench::ProfileRow;

void add_profile_flags(CLI::App& app, ProfileArgs* args) {
  auto* profile = app.add_flag("--profile", args->on,
                               "where the time goes: each kind of op against the machine's limits, "
                               "which are measured after the tests");
  app.add_option("--svg", args->svg, "write the profile as a chart: a roofline a test")
      ->needs(profile)
      ->type_name("FILE");
  app.add_option("--array-mib", args->array_mib,
                 "arrays that show the bandwidth; 0: twice the L3 cache, at least 64")
      ->needs(profile)
      ->check(CLI::Range(0, 1 << 20));
}

namespace {

const char* bound_by(const ProfileRow& row) { return row.bound_by_read() ? "read" : "ops"; }

nlohmann::ordered_json row_json(const ProfileReport& report, const ProfileRow& row) {
  nlohmann::ordered_json j;
  j["op"] = row.name;
  j["calls"] = rounded(row.n_call);
  j["ms"] = rounded(row.seconds * 1e3);
  j["share"] = rounded(100.0 * report.share(row.seconds));
  j["bytes"] = rounded(row.bytes);
  j["ops"] = rounded(row.ops());
  j["gb_s"] = rounded(row.bytes / row.seconds * 1e-9);
  j["gop_s"] = rounded(row.ops() / row.seconds * 1e-9);
  j["roofline_percent"] = rounded(100.0 * row.roofline());
  j["bound_by"] = bound_by(row);
  return j;
}

std::string limits_line(const ProfileReport& report) {
  const Limits& l = report.test.limits;
  return fmt::format(
      "limits with {} thread{}, {}: {:.1f} GB/s; GOP/s: {:.1f} f32 ({}), {:.1f} 8 bits ({}), "
      "{:.1f} "
      "8 bits times 4 ({})",
      report.test.n_threads, report.test.n_threads == 1 ? "" : "s", report.test.isa,
      l.read_per_s * 1e-9, l.f32.per_s * 1e-9, l.f32.name, l.int8.per_s * 1e-9, l.int8.name,
      l.int4.per_s * 1e-9, l.int4.name);
}

}  // namespace

Result<void> prepare_profile(ModelOptions* options, runtime::OpProfile* profile) {
  const std::string& layers = options->device.gpu_layers;
  if (layers != "auto" && layers != "0")
    return make_error(ErrorCode::kInvalidArgument, "--profile: times a CPU's ops only, not -ngl {}",
                      layers);
  options->device.gpu_layers = "0";
  options->engine.profile = profile;
  return {};
}

Result<std::optional<OutputFile>> open_chart(const ProfileArgs& args, const std::string& model) {
  if (args.svg.empty()) return std::optional<OutputFile>();
  std::error_code none;
  if (std::filesystem::equivalent(args.svg, model, none))
    return make_error(ErrorCode::kInvalidArgument, "--svg {}: is the model", args.svg);
  INFER_ASSIGN(OutputFile file, OutputFile::create(args.svg));
  return std::optional(std::move(file));
}

Result<void> write_chart(const std::string& model, const ProfiledRun& run, OutputFile* file) {
  INFER_TRY(
      file->write(roofline_chart(model + ": " + run.roofline.cpu, run.reports, run.roofline)));
  return file->finish();
}

Result<ProfiledRun> judge(const ProfileArgs& args, bool pin,
                          const std::vector<RecordedTest>& recorded) {
  cpu::bench::RooflineOptions options;
  options.isa = recorded.front().test.isa;
  options.array_bytes = args.array_mib << 20;
  options.pin = pin;
  for (const RecordedTest& r : recorded) {
    if (std::ranges::find(options.threads, r.test.n_threads) == options.threads.end())
      options.threads.push_back(r.test.n_threads);
  }
  ProfiledRun run;
  INFER_ASSIGN(run.roofline, measure_roofline(options));
  for (const RecordedTest& r : recorded) {
    cpu::bench::ProfiledTest test = r.test;
    test.limits = limits_of(run.roofline, test.isa, test.n_threads);
    run.reports.push_back(profile_report(std::move(test), r.profile));
  }
  return run;
}

nlohmann::ordered_json profile_json(const ProfileReport& report) {
  const Limits& l = report.test.limits;
  nlohmann::ordered_json j;
  j["steps"] = report.n_step;
  j["step_ms"] = rounded(report.step_s * 1e3);
  j["ops"] = nlohmann::json::array();
  for (const ProfileRow& row : report.rows) j["ops"].push_back(row_json(report, row));
  j["between_ops_ms"] = rounded(report.between_ops_s * 1e3);
  j["between_ops_share"] = rounded(100.0 * report.share(report.between_ops_s));
  j["between_steps_ms"] = rounded(report.between_steps_s * 1e3);
  j["between_steps_share"] = rounded(100.0 * report.share(report.between_steps_s));
  j["limits"] = {{"isa", report.test.isa},
                 {"threads", report.test.n_threads},
                 {"read_gb_s", rounded(l.read_per_s * 1e-9)},
                 {"f32_gop_s", rounded(l.f32.per_s * 1e-9)},
                 {"f32_recipe", l.f32.name},
                 {"int8_gop_s", rounded(l.int8.per_s * 1e-9)},
                 {"int8_recipe", l.int8.name},
                 {"int4_gop_s", rounded(l.int4.per_s * 1e-9)},
                 {"int4_recipe", l.int4.name}};
  j["advice"] = report.advice;
  return j;
}

std::string profile_md(const ProfileReport& report) {
  Table table({{report.test.name + ": op"},
               {"calls", true},
               {"ms", true},
               {"share", true},
               {"MB", true},
               {"MOP", true},
               {"GB/s", true},
               {"GOP/s", true},
               {"of roofline", true},
               {"bound by"}});
  const auto share = [&](double s) { return fmt::format("{:.1f} %", 100.0 * report.share(s)); };
  const auto ms = [](double s) { return fmt::format("{:.3f}", s * 1e3); };
  for (const ProfileRow& row : report.rows) {
    table.add({row.name, fmt::format("{:.4g}", row.n_call), ms(row.seconds), share(row.seconds),
               fmt::format("{:.2f}", row.bytes * 1e-6), fmt::format("{:.1f}", row.ops() * 1e-6),
               fmt::format("{:.1f}", row.bytes / row.seconds * 1e-9),
               fmt::format("{:.1f}", row.ops() / row.seconds * 1e-9),
               fmt::format("{:.0f} %", 100.0 * row.roofline()), bound_by(row)});
  }
  const auto rest = [&](const char* name, double s) {
    table.add({name, "", ms(s), share(s), "", "", "", "", "", ""});
  };
  rest("between ops", report.between_ops_s);
  rest("between steps", report.between_steps_s);
  rest("a step", report.step_s);
  return fmt::format("{}{}\n{}: {}\n", table.text(), limits_line(report), report.test.name,
                     report.advice);
}

}  // namespace infer::tools
