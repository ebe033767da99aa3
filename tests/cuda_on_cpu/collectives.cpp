#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/cuda_on_cpu/block.h"

/// The collectives of device.cuh. Each lane leaves its operands on its own stack; the last one
/// computes for all.
namespace infer::cuda::emulated {

namespace {

constexpr uint32_t kFull = 0xffffffffu;

template <class Operands>
Operands& of(void* const* operands, int lane) {
  return *static_cast<Operands*>(operands[lane]);
}

struct ShuffleOperands {
  Shuffle kind;
  uint64_t bits;  // in and, after the collective, out
  uint32_t operand, width;
  Site site;
};

// The lane that `lane` reads, as the PTX ISA computes it for shfl.sync; itself if that one is out
// of its group.
uint32_t shuffle_source(const ShuffleOperands& o, uint32_t lane) {
  const uint32_t first = lane & ~(o.width - 1), last = first + o.width - 1;
  switch (o.kind) {
    case Shuffle::kIndex:
      return first + (o.operand & (o.width - 1));
    case Shuffle::kUp:
      return lane >= first + o.operand && o.operand < 32 ? lane - o.operand : lane;
    case Shuffle::kDown:
      return o.operand < 32 && lane + o.operand <= last ? lane + o.operand : lane;
    case Shuffle::kXor:
      return (lane ^ (o.operand & 31)) <= last ? lane ^ (o.operand & 31) : lane;
  }
  return lane;
}

void compute_shuffle(void* const* operands, uint32_t mask) {
  uint64_t before[kWarpLanes];
  for (int lane = 0; lane < kWarpLanes; ++lane)
    if (mask >> lane & 1) before[lane] = of<ShuffleOperands>(operands, lane).bits;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    auto& o = of<ShuffleOperands>(operands, lane);
    const uint32_t source = shuffle_source(o, static_cast<uint32_t>(lane));
    if ((mask >> source & 1) == 0)
      this_block->fail(fmt::format("shuffle: lane {} reads lane {}, which is not in mask {:#010x}",
                                   lane, source, mask),
                       o.site);
    o.bits = before[source];
  }
}

struct BallotOperands {
  bool predicate;
  uint32_t votes;
};

void compute_ballot(void* const* operands, uint32_t mask) {
  uint32_t votes = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane)
    if (mask >> lane & 1)
      votes |= static_cast<uint32_t>(of<BallotOperands>(operands, lane).predicate) << lane;
  for (int lane = 0; lane < kWarpLanes; ++lane)
    if (mask >> lane & 1) of<BallotOperands>(operands, lane).votes = votes;
}

template <class T>
struct Sum {
  T operator()(T a, T b) const { return a + b; }
};
template <>
struct Sum<int> {  // wraps, as the hardware's does
  int operator()(int a, int b) const {
    return static_cast<int>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
};
// fmaxf and fminf: a NaN gives way to a number.
template <class T>
struct Max {
  T operator()(T a, T b) const { return a > b || b != b ? a : b; }
};
template <class T>
struct Min {
  T operator()(T a, T b) const { return a < b || b != b ? a : b; }
};

template <class T, class Op>
void compute_reduce(void* const* operands, uint32_t /*mask*/) {
  T v[kWarpLanes];
  for (int lane = 0; lane < kWarpLanes; ++lane) v[lane] = of<T>(operands, lane);
  // A butterfly adds the same pairs in every lane, so one tree has the bits of them all.
  for (int d = kWarpLanes / 2; d > 0; d /= 2)
    for (int lane = 0; lane < d; ++lane) v[lane] = Op()(v[lane], v[lane + d]);
  for (int lane = 0; lane < kWarpLanes; ++lane) of<T>(operands, lane) = v[0];
}

template <class T>
T reduce(Reduce kind, T value, Site site) {
  constexpr Collective::Compute kComputes[] = {compute_reduce<T, Sum<T>>, compute_reduce<T, Max<T>>,
                                               compute_reduce<T, Min<T>>};
  this_block->collective(kComputes[static_cast<size_t>(kind)], kFull, &value, site);
  return value;
}

void compute_nothing(void* const* /*operands*/, uint32_t /*mask*/) {}

}  // namespace

void fail(const char* what, Site site) { this_block->fail(what, site); }

void* shared_memory(size_t bytes, Site site) {
  SharedMemory& shared = this_block->shared();
  if (bytes > shared.bytes())
    this_block->fail(fmt::format("the kernel uses {} bytes of shared memory, the launch gave {}",
                                 bytes, shared.bytes()),
                     site);
  return shared.data();
}

void sync_threads(Site site) { this_block->barrier(site); }

void sync_warp(uint32_t mask, Site site) {
  this_block->collective(compute_nothing, mask, nullptr, site);
}

uint64_t shuffle(Shuffle kind, uint64_t bits, uint32_t operand, uint32_t width, uint32_t mask,
                 Site site) {
  if (width == 0 || width > 32 || (width & (width - 1)) != 0)
    this_block->fail(fmt::format("shuffle of width {}", width), site);
  ShuffleOperands o{kind, bits, operand, width, site};
  this_block->collective(compute_shuffle, mask, &o, site);
  return o.bits;
}

uint32_t ballot(bool predicate, uint32_t mask, Site site) {
  BallotOperands o{predicate, 0};
  this_block->collective(compute_ballot, mask, &o, site);
  return o.votes;
}

float warp_reduce(Reduce kind, float value, Site site) { return reduce(kind, value, site); }
int warp_reduce(Reduce kind, int value, Site site) { return reduce(kind, value, site); }

}  // namespace infer::cuda::emulated
