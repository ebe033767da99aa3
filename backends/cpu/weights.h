#pragma once

#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "backends/cpu/buffer.h"
#include "backends/cpu/device.h"
#include "backends/cpu/memory_policy.h"
#include "core/graph/graph.h"
#include "core/graph/planner.h"
#include "core/runtime/backend.h"

namespace infer::cpu {

/// A matrix as its kernel wants it.
struct PackedMatrix {
  const kern::LinearKernel* kernel = nullptr;
  const std::byte* data = nullptr;
  int64_t n = 0, k = 0;
  int64_t expert_bytes = 0;  ///< of one matrix: from one expert's to the next
  int64_t packed_at = 0;     ///< where `data` begins among the packed matrices
};

/// The weights of one stage: matrices packed for the kernels (or used from the mapped file where
/// the layouts agree), vectors widened to f32, embedding tables as they are in the file.
class StageWeights {
 public:
  static Result<StageWeights> load(const graph::Graph& graph, const graph::StagePlan& plan,
                                   const runtime::CompileOptions& options, Device& device);

  const PackedMatrix& matrix(graph::WeightId id) const { return matrices_.at(id); }
  /// nullptr for kNoWeight.
  const float* vector(graph::WeightId id) const {
    return id == graph::kNoWeight ? nullptr : vectors_.at(id).data();
  }

  /// Gives `lock` the memory that steps read, and adds what may be on huge pages.
  void report(const graph::Graph& graph, PageLock* lock, int64_t* huge_bytes) const;

  int64_t own_bytes() const { return own_bytes_; }
  int64_t mapped_bytes() const { return mapped_bytes_; }

 private:
  void place_matrix(const graph::Graph& graph, graph::WeightId id,
                    const runtime::CompileOptions& options, const Device& device);
  void pack(const graph::Graph& graph, std::span<const graph::WeightId> ids,
            const runtime::CompileOptions& options, Device& device);
  Result<void> add_vector(const graph::Graph& graph, graph::WeightId id,
                          const kern::CpuKernels& kernels);

  std::unordered_map<graph::WeightId, PackedMatrix> matrices_;
  std::unordered_map<graph::WeightId, std::vector<float>> vectors_;
  Buffer packed_;  ///< all of them, so that they lie on huge pages together
  int64_t packed_bytes_ = 0;
  int64_t own_bytes_ = 0, mapped_bytes_ = 0;
};

/// The kernel for a matrix of `type`; nullptr when it cannot be computed.
const kern::LinearKernel* linear_kernel(const kern::CpuKernels& kernels, DType type, bool precise);

/// What a kernel's products are of: f32 numbers, 8-bit ones, or 8-bit ones of which the weight has
/// at most 4 bits.
enum class Products : uint8_t { kF32, kInt8, kInt4 };
Products products_of(const kern::LinearKernel& kernel, DType type, int64_t k);

}  // namespace infer::cpu
