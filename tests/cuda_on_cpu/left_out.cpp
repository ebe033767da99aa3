#include "tests/cuda_on_cpu/left_out.h"

#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "kernels/cuda/emulated.h"

namespace infer::cuda::emulated {
namespace {

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

template <class T>
T number(std::string_view digits) {
  T n = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), n);
  return n;
}

/// "gemm_q8.cuh:255"
struct Place {
  explicit Place(std::string_view text)
      : file(text.substr(0, text.rfind(':'))),
        line(text.empty() ? 0 : number<uint32_t>(text.substr(file.size() + 1))) {}
  ~Place() {
    if (!file.empty()) std::fprintf(stderr, "left out %lu times\n", n.load());
  }
  std::string_view file;
  uint32_t line;
  std::atomic<unsigned long> n{0};
};

Place place(environment("INFER_CUDA_LEFT_OUT"));
const auto offset = number<uint64_t>(environment("INFER_CUDA_SEED"));

}  // namespace

bool any_left_out = !place.file.empty();

bool is_left_out(Site here) noexcept {
  if (here.line() != place.line) return false;
  const std::string_view path = here.file_name();
  if (path.substr(path.rfind('/') + 1) != place.file) return false;
  place.n.fetch_add(1, std::memory_order_relaxed);
  return true;
}

uint64_t seed_offset() noexcept { return offset; }

}  // namespace infer::cuda::emulated
