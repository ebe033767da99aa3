#include "tools/common/device_options.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "core/base/error.h"

namespace infer::tools {
namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;

std::vector<std::string_view> split(std::string_view list, std::string_view separators) {
  std::vector<std::string_view> parts;
  for (size_t end = 0; end != std::string_view::npos;) {
    end = list.find_first_of(separators);
    parts.push_back(list.substr(0, end));
    if (end != std::string_view::npos) list.remove_prefix(end + 1);
  }
  return parts;
}

Result<int> parse_layers(const std::string& text) {
  if (text == "auto") return kGpuLayersAuto;
  if (text == "all") return kGpuLayersAll;
  int n = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, n);
  if (error != std::errc() || rest != end || n < 0)
    return make_error(kInvalid, "-ngl {}: a number of layers, auto or all", text);
  return n;
}

Result<std::vector<float>> parse_shares(const std::string& text) {
  std::vector<float> shares;
  if (text.empty()) return shares;
  float sum = 0.0f;
  for (const std::string_view part : split(text, ",/")) {
    float share = 0.0f;
    const char* end = part.data() + part.size();
    const auto [rest, error] = std::from_chars(part.data(), end, share);
    if (part.empty() || error != std::errc() || rest != end || !(share >= 0.0f) || share > 1e9f)
      return make_error(kInvalid, "--tensor-split {}: '{}' is no share; shares look like 3,1", text,
                        part);
    shares.push_back(share);
    sum += share;
  }
  if (sum > 0.0f) return shares;
  return make_error(kInvalid, "--tensor-split {}: all shares are 0", text);
}

/// Prints what there is. Ends the program through CLI11, which takes CLI::Success for --help.
void list_devices() {
  GpuAbsence absence;
  const auto backends = make_backends({}, &absence);
  if (!backends.ok()) throw CLI::ValidationError("--list-devices", backends.error().message);
  for (const auto& backend : *backends) {
    const runtime::DeviceInfo d = backend->describe();
    std::string line = d.name + ": " + d.description;
    const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024.0); };
    if (d.memory_bytes > 0) line += fmt::format(", {:.0f} MiB", mib(d.memory_bytes));
    if (d.free_bytes > 0) line += fmt::format(" ({:.0f} free)", mib(d.free_bytes));
    std::printf("%s\n", line.c_str());
  }
  if (!absence.why.empty()) std::printf("no GPU: %s\n", absence.why.c_str());
  for (const std::string& line : absence.left_out) {
    if (absence.why.empty()) std::printf("left out: %s\n", line.c_str());
  }
  throw CLI::Success();
}

/// The first flag that asks for GPUs; empty: none.
std::string asked_for(const DeviceOptions& o) {
  if (o.gpu_layers != "auto" && o.gpu_layers != "0") return "-ngl " + o.gpu_layers;
  if (!o.tensor_split.empty()) return "--tensor-split " + o.tensor_split;
  return {};
}

bool is_off(const DeviceOptions& o) { return o.devices == "none" || o.devices == "cpu"; }

}  // namespace

void add_device_options(CLI::App& app, DeviceOptions* o) {
  app.add_option("--gpu-layers,--n-gpu-layers", o->gpu_layers,
                 "layers that GPUs compute, counted from the end: N, auto (as many as fit) or all; "
                 "one more than the model has: the output too (also -ngl)")
      ->type_name("N|auto|all")
      ->capture_default_str();
  app.add_option("--device", o->devices,
                 "GPUs to use, in this order: cuda:0,cuda:1; none: the CPU alone; default: all "
                 "(also -dev)")
      ->type_name("NAME[,NAME..]");
  app.add_option("--tensor-split", o->tensor_split,
                 "shares of these layers by GPU: 3,1; default: a GPU is filled before the next one "
                 "gets any (also -ts)")
      ->type_name("N,N..");
  app.add_flag_callback("--list-devices", list_devices, "print the devices there are, and leave");
}

std::vector<Alias> device_aliases() {
  return {{"-ngl", "--gpu-layers"}, {"-dev", "--device"}, {"-ts", "--tensor-split"}};
}

Result<void> apply_device_options(const DeviceOptions& o, EngineOptions* engine,
                                  BackendOptions* backend) {
  INFER_ASSIGN(engine->n_gpu_layers, parse_layers(o.gpu_layers));
  INFER_ASSIGN(engine->tensor_split, parse_shares(o.tensor_split));
  const bool unused = o.devices.empty() && engine->n_gpu_layers == 0;
  if (unused || is_off(o)) {
    backend->gpus = false;  // no driver is opened for nothing
  } else if (!o.devices.empty()) {
    for (const std::string_view name : split(o.devices, ",")) backend->devices.emplace_back(name);
  }
  return {};
}

std::string no_gpu_warning(const DeviceOptions& o, const GpuAbsence& absence) {
  const std::string asks = asked_for(o);
  if (is_off(o)) {
    if (asks.empty()) return {};
    return fmt::format("{}: --device {}; everything runs on the CPU", asks, o.devices);
  }
  if (absence.why.empty() || (asks.empty() && !absence.failed)) return {};
  return fmt::format("{}{}no GPU ({}); everything runs on the CPU", asks, asks.empty() ? "" : ": ",
                     absence.why);
}

std::string no_gpu_note(const DeviceOptions& o, const GpuAbsence& absence) {
  if (!absence.built || !no_gpu_warning(o, absence).empty()) return {};
  return fmt::format("no GPU ({}): everything runs on the CPU", absence.why);
}

std::string tap_warning(const DeviceOptions& o) {
  std::string asks = asked_for(o);
  if (asks.empty() && !o.devices.empty()) asks = "--device " + o.devices;
  if (asks.empty() || is_off(o)) return {};
  return asks + ": importance matrices are collected on the CPU, no GPU takes part";
}

std::string device_names(const Engine& engine) {
  std::vector<std::string> names;
  for (const StageInfo& stage : engine.stages()) {
    if (std::ranges::find(names, stage.device) == names.end()) names.push_back(stage.device);
  }
  return fmt::format("{}", fmt::join(names, "+"));
}

std::string isa_names(const Engine& engine) {
  const std::vector<StageInfo>& stages = engine.stages();
  if (stages.size() == 1) return stages.front().isa;
  std::string text;
  for (const StageInfo& s : stages)
    text += fmt::format("{}{}[{},{})", text.empty() ? "" : "+", s.isa, s.half_begin, s.half_end);
  return text;
}

}  // namespace infer::tools
