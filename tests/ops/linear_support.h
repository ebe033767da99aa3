#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "kernels/cpu/table.h"

/// Cases, runners and f64 references for the linear kernels' tests.
namespace infer::test {

inline constexpr DType kLinearTypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,  DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,  DType::kQ8_0,
                                         DType::kQ4_K, DType::kQ5_K,   DType::kQ6_K,  DType::kQ2_K,
                                         DType::kQ3_K, DType::kIQ4_NL, DType::kIQ4_XS};

/// Exactly `n` bytes aligned to 64, so that a sanitizer sees every byte read or written past the
/// end. Filled with NaNs.
class AlignedBytes {
 public:
  explicit AlignedBytes(int64_t n)
      : data_(static_cast<std::byte*>(::operator new(static_cast<size_t>(n), kAlign))) {
    std::memset(data_.get(), 0xff, static_cast<size_t>(n));
  }
  std::byte* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, kAlign); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

enum class Levels {
  kRandom,
  kAllOnes,
  kAllZeros,
  kSignBits
};  ///< bytes of the blocks: any, 0xff, 0x00, 0x80
enum class Scales { kNormal, kLargest, kSubnormal };  ///< half scales: about 0.01, 65504, 2^-24
enum class Inputs { kNormal, kPlusOne, kMinusOne, kAlternating };  ///< activations

/// n rows of k elements in the file's layout, valid and finite.
std::vector<std::byte> make_weights(std::mt19937_64& rng, DType type, int64_t n, int64_t k,
                                    Levels levels, Scales scales);
std::vector<float> make_inputs(std::mt19937_64& rng, int64_t m, int64_t k, Inputs inputs);

/// A kernel with its packed weights.
class LinearRunner {
 public:
  LinearRunner(const kern::LinearKernel& kernel, std::span<const std::byte> file, int64_t n,
               int64_t k);
  /// out [m][n_end - n_begin] for m rows of x [m][k]. Fails the test if a float around the range
  /// was written.
  std::vector<float> run(std::span<const float> x, int64_t m, int64_t n_begin, int64_t n_end) const;
  std::vector<float> run(std::span<const float> x, int64_t m) const { return run(x, m, 0, n_); }
  /// The m rows of x as the kernel sees them after its prepare: f32 as they are, or d * q of 8-bit
  /// blocks.
  std::vector<double> seen(std::span<const float> x, int64_t m) const;
  bool quantised_act() const;
  /// LinearArgs::l2_bytes of the runs that follow.
  void set_l2_bytes(int64_t bytes) { l2_bytes_ = bytes; }

 private:
  kern::LinearKernel kernel_;
  int64_t n_, k_;
  int64_t l2_bytes_ = kern::LinearArgs{}.l2_bytes;
  AlignedBytes weights_;
  int64_t act_stride() const;
  AlignedBytes prepare(std::span<const float> x, int64_t m) const;
};

/// Reference in f64 and the bound that the kernel's order of summation allows, both [m][n].
struct Reference {
  std::vector<double> value, bound;
};
Reference reference_f64(DType type, std::span<const std::byte> file, int64_t n, int64_t k,
                        std::span<const double> seen, int64_t m, int64_t n_rounding);

/// Rounding steps that a product passes through, at most (derived in linear_test.cpp).
int64_t rounding_steps(const kern::LinearKernel& kernel, bool quantised_act, int64_t k);

/// Seed from the running test's full name.
uint64_t seed_of_test();

}  // namespace infer::test
