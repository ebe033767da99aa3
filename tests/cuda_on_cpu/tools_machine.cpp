#include <cstddef>
#include <cstdlib>
#include <string_view>

#include "tests/cuda_on_cpu/emulator.h"

/// The machine that a program finds, by INFER_EMULATED in its environment.
namespace infer::cuda {
namespace {

const bool kReady = [] {
  const char* name = std::getenv("INFER_EMULATED");
  const std::string_view machine = name != nullptr ? name : "";
  if (machine == "no driver") emulated::reset({.has_driver = false});
  if (machine == "no device") emulated::reset({.n_device = 0});  // or CUDA_VISIBLE_DEVICES=
  if (machine == "old") emulated::reset({.architecture = 70});
  if (machine == "little memory") emulated::reset({.device_bytes = size_t{4} << 10});
  return true;
}();

}  // namespace
}  // namespace infer::cuda
