#include "backends/cpu/bench/op.h"

#include <memory>

#include <CLI/CLI.hpp>

#include "backends/cpu/bench/roofline.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "core/eval/stats.h"
#include "tools/infer-bench/command.h"
#include "tools/infer-bench/output.h"

namespace infer::tools {
namespace {

using cpu::bench::OpReport;
using cpu::bench::RooflineReport;

struct OpArgs {
  cpu::bench::OpSpec spec;
  cpu::bench::OpOptions options;
  std::string type = "q4_0", kv_type = "f16";
  int64_t array_mib = 0;
  bool no_pin = false;
  OutputFormat format;
};

/// The machine's limits that this op stands against, measured with the same threads.
struct OpLimits {
  double read_per_s = 0.0;
  cpu::bench::Limits::Ops ops;
};

OpLimits limits_of(const RooflineReport& roofline, const OpReport& op) {
  const cpu::bench::Limits limits = cpu::bench::limits_of(roofline, op.isa, op.n_threads);
  return {limits.read_per_s, limits.*op.limit};
}

struct Row {
  double us = 0, bytes_per_s = 0, ops_per_s = 0;
  double roofline_percent = 0;  ///< of the time that the nearer limit would take
  bool bound_by_read = false;
};

Row row_of(const OpArgs& args, const OpReport& op, const OpLimits& limits) {
  const double s = eval::median(op.call_s);
  const double read_s = args.spec.hot ? 0.0 : op.bytes / limits.read_per_s;
  const double ops_s = op.ops / limits.ops.per_s;
  return {s * 1e6, op.bytes / s, op.ops / s, 100.0 * std::max(read_s, ops_s) / s, read_s >= ops_s};
}

/// Type of what the op reads.
std::string type_of(const OpArgs& args) {
  const std::string& op = args.spec.op;
  if (op == "attention") return args.kv_type;
  if (op == "rms_norm" || op == "logit_stats") return "f32";
  return std::string(name_of(args.spec.type)) + (args.spec.precise ? " precise" : "");
}

nlohmann::ordered_json to_json(const OpArgs& args, const OpReport& op, const OpLimits& limits) {
  const Row row = row_of(args, op, limits);
  std::vector<double> us;
  for (const double s : op.call_s) us.push_back(s * 1e6);
  const cpu::bench::OpSpec& s = args.spec;
  nlohmann::ordered_json j;
  j["op"] = s.op;
  j["isa"] = op.isa;
  j["threads"] = op.n_threads;
  j["type"] = type_of(args);
  j["m"] = s.m;
  if (s.op == "attention") {
    j["n_kv"] = s.n_kv;
    j["n_head"] = s.n_head;
    j["n_kv_head"] = s.n_kv_head;
    j["head_dim"] = s.head_dim;
  } else {
    if (s.op == "linear") j["n"] = s.n;
    j["k"] = s.k;
  }
  j["copies"] = op.n_copy;
  j["us"] = rounded(us);
  j["bytes"] = op.bytes;
  j["ops"] = op.ops;
  j["gb_s"] = rounded(row.bytes_per_s * 1e-9);
  j["gop_s"] = rounded(row.ops_per_s * 1e-9);
  j["limit_gb_s"] = rounded(limits.read_per_s * 1e-9);
  j["limit_gop_s"] = rounded(limits.ops.per_s * 1e-9);
  j["limit_recipe"] = limits.ops.name;
  j["bound_by"] = row.bound_by_read ? "read" : "ops";
  j["roofline_percent"] = rounded(row.roofline_percent);
  return j;
}

std::string shape_of(const OpArgs& args) {
  const cpu::bench::OpSpec& s = args.spec;
  const std::string type_and_m = fmt::format("{} m={}", type_of(args), s.m);
  if (s.op == "attention")
    return fmt::format("{} n_kv={} heads={}/{} head_dim={}", type_and_m, s.n_kv, s.n_head,
                       s.n_kv_head, s.head_dim);
  if (s.op == "linear") return fmt::format("{} n={} k={}", type_and_m, s.n, s.k);
  return fmt::format("{} k={}", type_and_m, s.k);
}

std::string to_md(const OpArgs& args, const OpReport& op, const OpLimits& limits) {
  const Row row = row_of(args, op, limits);
  Table table({{"op"},
               {"shape"},
               {"isa"},
               {"threads", true},
               {"us", true},
               {"GB/s", true},
               {"GOP/s", true},
               {"of roofline", true},
               {"bound by"}});
  table.add({args.spec.op, shape_of(args), op.isa, std::to_string(op.n_threads),
             fmt::format("{:.2f}", row.us), fmt::format("{:.1f}", row.bytes_per_s * 1e-9),
             fmt::format("{:.1f}", row.ops_per_s * 1e-9),
             fmt::format("{:.0f} %", row.roofline_percent), row.bound_by_read ? "read" : "ops"});
  return fmt::format("{}\nlimits with {} thread{}: {:.1f} GB/s, {:.1f} GOP/s ({} {})\n",
                     table.text(), op.n_threads, op.n_threads == 1 ? "" : "s",
                     limits.read_per_s * 1e-9, limits.ops.per_s * 1e-9, op.isa, limits.ops.name);
}

Result<void> run_op(OpArgs& args) {
  const auto type = dtype_from_name(args.type);
  if (!type) return make_error(ErrorCode::kInvalidArgument, "--type {}: unknown type", args.type);
  if (args.kv_type != "f16" && args.kv_type != "f32")
    return make_error(ErrorCode::kInvalidArgument, "--cache-type {}: known are f16, f32",
                      args.kv_type);
  args.spec.type = *type;
  args.spec.kv_f32 = args.kv_type == "f32";
  args.options.pin = !args.no_pin;
  INFER_ASSIGN(const OpReport op, measure_op(args.spec, args.options));
  cpu::bench::RooflineOptions options{.threads = {op.n_threads},
                                      .isa = op.isa,
                                      .timing = args.options.timing,
                                      .array_bytes = args.array_mib << 20,
                                      .pin = args.options.pin};
  INFER_ASSIGN(const RooflineReport roofline, measure_roofline(options));
  const OpLimits limits = limits_of(roofline, op);
  return args.format.json ? print(to_json(args, op, limits)) : print(to_md(args, op, limits));
}

void add_shape_options(CLI::App& sub, cpu::bench::OpSpec* spec) {
  const auto size = [&](const char* flag, int64_t* value, const char* help) {
    sub.add_option(flag, *value, help)
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
        ->capture_default_str();
  };
  size("-m", &spec->m, "rows");
  size("-n", &spec->n, "linear: outputs");
  size("-k", &spec->k, "linear and row ops: inputs, length of a row");
  size("--n-kv", &spec->n_kv, "attention: slots of the cache");
  size("--n-head", &spec->n_head, "attention: query heads");
  size("--n-kv-head", &spec->n_kv_head, "attention: K and V heads");
  size("--head-dim", &spec->head_dim, "attention: size of a head");
}

}  // namespace

Command add_op(CLI::App& app) {
  auto args = std::make_shared<OpArgs>();
  CLI::App* sub = app.add_subcommand("op", "one kernel against the limits of this machine");
  sub->add_option("OP", args->spec.op,
                  fmt::format("one of {}", fmt::join(cpu::bench::op_names(), ", ")))
      ->required()
      ->check(CLI::IsMember(cpu::bench::op_names()));
  add_shape_options(*sub, &args->spec);
  sub->add_option("--type", args->type, "type of the weights: q4_0, f16, ...")
      ->capture_default_str();
  sub->add_option("--cache-type", args->kv_type, "attention: type of K and V: f16, f32")
      ->capture_default_str();
  sub->add_flag("--precise", args->spec.precise, "f32 activations");
  sub->add_flag("--hot", args->spec.hot,
                "the same weights (or K and V) every time, which may stay in a cache");
  sub->add_option("-t,--threads", args->options.n_threads, "threads; 0: one a physical core")
      ->check(CLI::Range(0, 1024));
  sub->add_option("--isa", args->options.isa, "CPU level; default: the best that this CPU has");
  sub->add_option("-r,--repetitions", args->options.timing.n_rep, "samples")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub->add_option("--sample-ms", args->options.timing.sample_ms, "how long a sample lasts")
      ->check(CLI::Range(0.001, 60000.0))
      ->capture_default_str();
  sub->add_option("--array-mib", args->array_mib,
                  "arrays that show the bandwidth; 0: twice the L3 cache, at least 64")
      ->check(CLI::Range(0, 1 << 20));
  sub->add_flag("--no-pin", args->no_pin, "do not bind threads to cores");
  add_output_flags(*sub, &args->format);
  return {sub, [args] { return run_op(*args); }};
}

}  // namespace infer::tools
