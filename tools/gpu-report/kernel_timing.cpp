#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstring>
#include <exception>

#include "tools/gpu-report/timing.h"

/// Times of the kernels' launchers at the shapes of two models, by events, as JSON on stdout. The
/// second level cache is overwritten before each launch; medians of 20.
namespace infer::cuda::timing {

Bench::Bench(const Shape& shape, Timer& timer, int n_sm, Json& results)
    : s_(shape),
      timer_(timer),
      n_sm_(n_sm),
      results_(results),
      x_(int64_t{4} * kRowsAtMost * s_.n_ff),
      out_(int64_t{4} * std::max<int64_t>(kRowsAtMost * (s_.n_ff + s_.n_embd), 8 * s_.n_vocab)),
      act_(int64_t{2} * kRowsAtMost * s_.n_ff),
      scales_(int64_t{8} * kRowsAtMost * s_.n_ff / 32),
      norm_(int64_t{4} * s_.n_embd),
      k_(int64_t{2} * kContext * s_.n_kv_head * s_.head_dim),
      v_(int64_t{2} * kContext * s_.n_kv_head * s_.head_dim) {
  std::vector<int32_t> slots(kRowsAtMost), blocks(kContext / kBlockTok);
  for (int i = 0; i < kRowsAtMost; ++i) slots[static_cast<size_t>(i)] = i;
  for (int i = 0; i < kContext / kBlockTok; ++i) blocks[static_cast<size_t>(i)] = i;
  slots_ = std::make_unique<Memory>(slots);
  blocks_ = std::make_unique<Memory>(blocks);
  zeros_ = std::make_unique<Memory>(int64_t{4} * kRowsAtMost, false);
}

void Bench::add(Json what, const std::function<cudaError_t(cudaStream_t)>& launch) {
  what["model"] = s_.name;
  const std::vector<double> us = timer_.run(launch);
  what["us"] = (us[kRepetitions / 2 - 1] + us[kRepetitions / 2]) / 2;
  what["us_least"] = us.front();
  what["us_most"] = us.back();
  results_.push_back(std::move(what));
}

const int32_t* Bench::live(int m) {
  lives_.push_back(std::make_unique<Memory>(std::vector<int32_t>{m}));
  return lives_.back()->as<int32_t>();
}

Rows Bench::prompt_rows(int m) {
  return {m,
          live(m),
          zeros_->as<int32_t>(),
          slots_->as<int32_t>(),
          slots_->as<int32_t>(),
          zeros_->as<int32_t>()};
}

KvPool Bench::pool() const {
  return {k_.as<std::byte>(), v_.as<std::byte>(), DType::kF16,
          DType::kF16,        s_.n_kv_head,       s_.head_dim};
}

namespace {

constexpr Shape kShapes[] = {{"42dot-1.3B", 2048, 16, 16, 128, 5632, 50304},
                             {"Llama-3-8B", 4096, 32, 8, 128, 14336, 128256}};

Json device_json(int device) {
  cudaDeviceProp p{};
  must(cudaGetDeviceProperties(&p, device), "device");
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    must(cudaDeviceGetAttribute(&value, which, device), "device");
    return value;
  };
  int driver = 0, runtime = 0;
  must(cudaDriverGetVersion(&driver), "driver");
  must(cudaRuntimeGetVersion(&runtime), "runtime");
  return {{"name", p.name},
          {"architecture", 10 * p.major + p.minor},
          {"n_sm", p.multiProcessorCount},
          {"clock_hz", 1e3 * attribute(cudaDevAttrClockRate)},
          {"memory_clock_hz", 1e3 * attribute(cudaDevAttrMemoryClockRate)},
          {"bus_bits", attribute(cudaDevAttrGlobalMemoryBusWidth)},
          {"l2_bytes", p.l2CacheSize},
          {"memory_bytes", p.totalGlobalMem},
          {"driver", driver},
          {"runtime", runtime}};
}

int run(bool device_only) {
  int n_device = 0;
  const cudaError_t error = cudaGetDeviceCount(&n_device);
  if (error != cudaSuccess || n_device == 0) {
    fmt::print(stderr, "kernel_timing: no GPU here ({})\n", cudaGetErrorString(error));
    return 1;
  }
  Json out;
  out["device"] = device_json(0);
  if (!device_only) {
    Timer timer(std::max(out["device"]["l2_bytes"].get<int64_t>(), int64_t{1} << 20));
    out["empty_us"] = timer.run([](cudaStream_t) { return cudaSuccess; })[kRepetitions / 2];
    Json& results = out["kernels"] = Json::array();
    for (const Shape& shape : kShapes) {
      Bench bench(shape, timer, out["device"]["n_sm"], results);
      bench.linears();
      bench.attention();
      bench.rows();
      bench.experts();
    }
  }
  fmt::print("{}\n", out.dump(1));
  return 0;
}

}  // namespace
}  // namespace infer::cuda::timing

/// kernel_timing [--device]: only what the device is.
int main(int argc, char** argv) {
  try {
    return infer::cuda::timing::run(argc > 1 && std::strcmp(argv[1], "--device") == 0);
  } catch (const std::exception& e) {
    fmt::print(stderr, "kernel_timing: error: {}\n", e.what());
    return 1;
  }
}
