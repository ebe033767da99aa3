#include "backends/cpu/bench/roofline.h"

#include <memory>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/eval/stats.h"
#include "tools/infer-bench/command.h"
#include "tools/infer-bench/output.h"

namespace infer::tools {
namespace {

using cpu::bench::RooflinePoint;
using cpu::bench::RooflineReport;

struct RooflineArgs {
  cpu::bench::RooflineOptions options;
  int64_t array_mib = 0;
  bool no_pin = false;
  OutputFormat format;
};

/// GB/s or GOP/s.
std::vector<double> giga(const std::vector<double>& per_s) {
  std::vector<double> out;
  out.reserve(per_s.size());
  for (const double v : per_s) out.push_back(v * 1e-9);
  return out;
}

const char* unit_of(const RooflinePoint& p) {
  return p.kind == RooflinePoint::Kind::kRead ? "GB/s" : "GOP/s";
}

nlohmann::ordered_json to_json(const RooflineReport& report) {
  nlohmann::ordered_json j;
  j["cpu"] = report.cpu;
  j["n_array"] = report.n_array;
  j["array_bytes"] = report.array_bytes;
  j["points"] = nlohmann::json::array();
  for (const RooflinePoint& p : report.points) {
    const std::vector<double> samples = giga(p.per_s);
    nlohmann::ordered_json point;
    point["isa"] = p.isa;
    point["name"] = p.name;
    point["recipe"] = p.recipe;
    point["threads"] = p.n_threads;
    point["unit"] = unit_of(p);
    point["best"] = rounded(cpu::bench::best_of(samples));
    point["median"] = rounded(eval::median(samples));
    point["samples"] = rounded(samples);
    j["points"].push_back(std::move(point));
  }
  j["skipped"] = nlohmann::json::array();
  for (const auto& s : report.skipped) j["skipped"].push_back({{"isa", s.isa}, {"why", s.why}});
  return j;
}

std::string to_md(const RooflineReport& report) {
  Table table({{"isa"},
               {"what"},
               {"threads", true},
               {"best", true},
               {"median", true},
               {"unit"},
               {"recipe"}});
  for (const RooflinePoint& p : report.points) {
    const std::vector<double> samples = giga(p.per_s);
    table.add({p.isa, p.name, std::to_string(p.n_threads),
               fmt::format("{:.1f}", cpu::bench::best_of(samples)),
               fmt::format("{:.1f}", eval::median(samples)), unit_of(p), p.recipe});
  }
  std::string out = fmt::format("{}; {} arrays of {} MiB\n\n{}", report.cpu, report.n_array,
                                report.array_bytes >> 20, table.text());
  for (const auto& s : report.skipped) out += fmt::format("\nskipped {}: {}\n", s.isa, s.why);
  return out;
}

}  // namespace

Command add_roofline(CLI::App& app) {
  auto args = std::make_shared<RooflineArgs>();
  CLI::App* sub = app.add_subcommand(
      "roofline", "what this machine can reach: bytes read, f32 and 8-bit multiply-adds a second");
  sub->add_option("-t,--threads", args->options.threads,
                  "thread counts: 1,2; default: 1 and one a physical core")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  sub->add_option("--isa", args->options.isa, "one level only: generic, avx2, avxvnni, avx512");
  sub->add_option("-r,--repetitions", args->options.timing.n_rep, "samples of each")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub->add_option("--sample-ms", args->options.timing.sample_ms, "how long a sample lasts")
      ->check(CLI::Range(0.001, 60000.0))
      ->capture_default_str();
  sub->add_option("--array-mib", args->array_mib,
                  "size of an array that is read; 0: twice the L3 cache, at least 64")
      ->check(CLI::Range(0, 1 << 20));
  sub->add_option("--arrays", args->options.n_array, "arrays read in turn")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  sub->add_flag("--no-pin", args->no_pin, "do not bind threads to cores");
  add_output_flags(*sub, &args->format);
  return {sub, [args]() -> Result<void> {
            args->options.array_bytes = args->array_mib << 20;
            args->options.pin = !args->no_pin;
            INFER_ASSIGN(const RooflineReport report, measure_roofline(args->options));
            return args->format.json ? print(to_json(report)) : print(to_md(report));
          }};
}

}  // namespace infer::tools
