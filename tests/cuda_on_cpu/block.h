#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/emulated.h"
#include "tests/cuda_on_cpu/async_copy.h"
#include "tests/cuda_on_cpu/fiber.h"
#include "tests/cuda_on_cpu/random.h"
#include "tests/cuda_on_cpu/shared_memory.h"

/// One thread block: its lanes are fibers of one OS thread that run until a collective makes them
/// wait.
namespace infer::cuda::emulated {

inline constexpr int kWarpLanes = 32;
inline constexpr int kMaxLanes = 1024;

struct Lane {
  Fiber fiber;
  LaneIds ids;
  AsyncCopies copies;
  Site waits_at;  ///< while it waits
  int warp = 0;
  int index = 0;  ///< in its warp
};

/// What the lanes of one mask do together. The last to arrive calls `compute` with every lane's
/// operands.
struct Collective {
  using Compute = void (*)(void* const* operands, uint32_t mask);
  Compute compute = nullptr;
  uint32_t mask = 0;
  uint32_t arrived = 0;  ///< lanes that wait; 0: the entry is free
  Site site;
  std::array<void*, kWarpLanes> operands;
};

struct Warp {
  uint32_t runnable = 0;    ///< lanes ready to run, by place in the order of the seed
  uint32_t waiting = 0;     ///< lanes in a collective of the warp, by lane number
  uint32_t at_barrier = 0;  ///< lanes at the block's barrier
  uint32_t exited = 0;
  uint32_t turn = 0;  ///< the place whose lane is asked first
  uint32_t number = 0;
  std::array<uint8_t, kWarpLanes> lane_at, place_of;
  std::array<Collective, kWarpLanes> open;  ///< as many at once as lanes could wait in
  int n_open = 0;                           ///< entries of `open` in use lie below
};

/// What all blocks of a launch share.
struct LaunchedGrid {
  const Launch& launch;
  Site site;  ///< of the launch
  uint64_t seed;
  std::string describe() const;
};

class Block {
 public:
  Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  /// Runs block `index` of the grid to its end. False: a checker stopped it, see report(); the
  /// last run then.
  bool run(const LaunchedGrid& grid, dim3 index);
  const std::string& report() const { return report_; }

  // Called by the running lane.
  void collective(Collective::Compute compute, uint32_t mask, void* operands, Site site);
  void barrier(Site site);
  [[noreturn]] void fail(std::string what, Site site);
  Lane& lane() { return *running_; }
  SharedMemory& shared() { return shared_; }
  const LaunchedGrid& grid() const { return *grid_; }
  std::string where() const;
  bool is_stack_guard(const void* address) const { return stacks_.is_guard(address); }

 private:
  [[noreturn]] static void lane_main();
  void start_lanes();
  inline Collective& find_or_open(Warp& warp, Collective::Compute compute, uint32_t mask,
                                  Site site);
  inline void release(Warp& warp, uint32_t lanes);
  void release_barrier();
  inline void wait(Site site);
  void end_lane();
  inline void check_progress();
  inline Lane& pick();
  inline void run_lane(Lane& next);
  std::string describe_waiting() const;

  const LaunchedGrid* grid_ = nullptr;
  BlockIds ids_;
  StackPool stacks_;
  SharedMemory shared_;
  std::vector<Lane> lanes_;  ///< begun once: between blocks they wait in end_lane()
  std::vector<Warp> warps_;
  uint32_t ready_warps_ = 0;  ///< warps with a runnable lane
  int n_lane_ = 0, n_exited_ = 0, n_at_barrier_ = 0;
  Site barrier_site_;
  uint32_t warp_now_ = 0;
  Lane* running_ = nullptr;
  Fiber main_;
  Random random_;
  uint32_t warp_steps_ = 1;  ///< so many lanes of a warp run, on the average, before another may
  uint32_t steps_left_ = 0;
  bool failed_ = false;
  std::string report_;
};

/// The block that this OS thread runs, or null.
extern constinit thread_local Block* this_block;

}  // namespace infer::cuda::emulated
