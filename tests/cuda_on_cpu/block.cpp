#include "tests/cuda_on_cpu/block.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/base/check.h"

namespace infer::cuda::emulated {

constinit thread_local const LaneIds* this_lane = nullptr;
constinit thread_local Block* this_block = nullptr;

namespace {

bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

std::string text(const Site& site) { return fmt::format("{}:{}", site.file_name(), site.line()); }

std::string text(const dim3& d) { return fmt::format("({},{},{})", d.x, d.y, d.z); }

// The first set bit at or after `start`, going round.
uint32_t next_bit(uint32_t bits, uint32_t start) {
  return (static_cast<uint32_t>(std::countr_zero(std::rotr(bits, static_cast<int>(start)))) +
          start) %
         kWarpLanes;
}

std::string kernel_name(const void* kernel) {
  Dl_info info = {};
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr) return "kernel";
  int status = 0;
  char* demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  std::string name = demangled != nullptr ? demangled : info.dli_sname;
  std::free(demangled);
  return name.substr(0, name.find('('));
}

}  // namespace

std::string LaunchedGrid::describe() const {
  return fmt::format("{} (launched at {})", kernel_name(launch.kernel), text(site));
}

Block::Block() { lanes_.reserve(kMaxLanes); }  // a fiber that waits knows its own place

bool Block::run(const LaunchedGrid& grid, dim3 index) {
  INFER_CHECK(!failed_, "lanes of a block that failed stand wherever it left them");
  const Launch& launch = grid.launch;
  grid_ = &grid;
  ids_ = {index, launch.block, launch.grid};
  const uint64_t number = (uint64_t{index.z} * launch.grid.y + index.y) * launch.grid.x + index.x;
  random_ = Random(grid.seed + number * 0x632be59bd9b4e019u);
  // Three tempers: lanes of all warps interleaved, now and then another warp, one warp far ahead.
  constexpr std::array<uint32_t, 3> kWarpSteps = {1, 16, 0x40000000u};
  warp_steps_ = kWarpSteps[random_.below(kWarpSteps.size())];
  steps_left_ = 0;
  shared_.begin_block(launch.shared_bytes);
  start_lanes();
  main_ = {};
  this_block = this;
  Lane& first = pick();
  running_ = &first;
  this_lane = &first.ids;
  switch_fiber(main_, first.fiber);
  this_block = nullptr;
  this_lane = nullptr;
  if (!failed_ && !shared_.borders_intact()) {
    failed_ = true;
    report_ = fmt::format("{}, block {}: wrote outside its {} bytes of shared memory",
                          grid.describe(), text(index), shared_.bytes());
  }
  return !failed_;
}

void Block::start_lanes() {
  const dim3 size = ids_.block_dim;
  n_lane_ = static_cast<int>(size.x * size.y * size.z);
  INFER_CHECK(n_lane_ >= 1 && n_lane_ <= kMaxLanes, "a block of {} threads", n_lane_);
  const int n_warp = (n_lane_ + kWarpLanes - 1) / kWarpLanes;
  while (lanes_.size() < static_cast<size_t>(n_lane_))
    stacks_.begin(lanes_.emplace_back().fiber, lane_main);
  if (warps_.size() < static_cast<size_t>(n_warp)) warps_.resize(static_cast<size_t>(n_warp));
  n_exited_ = n_at_barrier_ = 0;
  for (int i = 0; i < n_lane_; ++i) {
    Lane& lane = lanes_[static_cast<size_t>(i)];
    const auto n = static_cast<unsigned>(i);
    lane.ids = {dim3(n % size.x, n / size.x % size.y, n / (size.x * size.y)), &ids_};
    lane.warp = i / kWarpLanes;
    lane.index = i % kWarpLanes;
    lane.copies.clear();
  }
  ready_warps_ = 0;
  for (int i = 0; i < n_warp; ++i) {
    Warp& warp = warps_[static_cast<size_t>(i)];
    const int n_here = std::min(kWarpLanes, n_lane_ - i * kWarpLanes);
    const uint32_t present = n_here == kWarpLanes ? ~0u : (1u << n_here) - 1;
    for (uint8_t l = 0; l < kWarpLanes; ++l) warp.lane_at[l] = l;
    shuffle_items(warp.lane_at, random_);
    for (uint8_t p = 0; p < kWarpLanes; ++p) warp.place_of[warp.lane_at[p]] = p;
    warp.runnable = warp.waiting = warp.at_barrier = 0;
    warp.exited = ~present;  // lanes that a block of this size does not have
    for (int c = 0; c < warp.n_open; ++c) warp.open[static_cast<size_t>(c)].arrived = 0;
    warp.n_open = 0;
    warp.number = static_cast<uint32_t>(i);
    release(warp, present);
  }
  warp_now_ = random_.below(static_cast<uint64_t>(n_warp));
}

// Makes lanes runnable, in an order of its own each time.
inline void Block::release(Warp& warp, uint32_t lanes) {
  uint32_t places = 0;
  for (uint32_t left = lanes; left != 0; left &= left - 1)
    places |= 1u << warp.place_of[static_cast<size_t>(std::countr_zero(left))];
  if (places == 0) return;
  warp.runnable |= places;
  warp.turn = random_.below(kWarpLanes);
  ready_warps_ |= 1u << warp.number;
}

[[gnu::always_inline]] inline Lane& Block::pick() {
  if (warps_[warp_now_].runnable == 0 || steps_left_ == 0) {
    warp_now_ = next_bit(ready_warps_, random_.below(kWarpLanes));
    steps_left_ = 1 + random_.below(2 * warp_steps_ - 1);
  }
  --steps_left_;
  Warp& warp = warps_[warp_now_];
  const uint32_t place = next_bit(warp.runnable, warp.turn);
  warp.runnable &= ~(1u << place);
  if (warp.runnable == 0) ready_warps_ &= ~(1u << warp_now_);
  return lanes_[size_t{warp_now_} * kWarpLanes + warp.lane_at[place]];
}

// What lies between a lane and its switch is inlined: a return after a switch is easily
// mispredicted.

[[gnu::always_inline]] inline void Block::run_lane(Lane& next) {
  Lane& from = *running_;
  running_ = &next;
  this_lane = &next.ids;
  switch_fiber(from.fiber, next.fiber);
}

// Lanes of a warp can only be released by lanes of the same warp: if none of them can run, none
// ever will.
[[gnu::always_inline]] inline void Block::check_progress() {
  const Warp& warp = warps_[static_cast<size_t>(running_->warp)];
  if (warp.runnable == 0 && warp.waiting != 0)
    fail("the warp waits for lanes that never come: " + describe_waiting(), running_->waits_at);
}

[[gnu::always_inline]] inline void Block::wait(Site site) {
  running_->waits_at = site;
  check_progress();
  run_lane(pick());
}

inline Collective& Block::find_or_open(Warp& warp, Collective::Compute compute, uint32_t mask,
                                       Site site) {
  Collective* free_entry = nullptr;
  for (int i = 0; i < warp.n_open; ++i) {
    Collective& c = warp.open[static_cast<size_t>(i)];
    if (c.arrived == 0) {
      free_entry = &c;
    } else if (c.mask == mask && c.compute == compute && same(c.site, site)) {
      return c;
    }
  }
  if (free_entry == nullptr) free_entry = &warp.open[static_cast<size_t>(warp.n_open++)];
  free_entry->compute = compute;
  free_entry->mask = mask;
  free_entry->site = site;
  return *free_entry;
}

void Block::lane_main() {
  Block& block = *this_block;
  arrive(block.running_->fiber);
  while (true) {
    const Launch& launch = block.grid_->launch;
    launch.call(launch.kernel, launch.arguments);
    block.end_lane();
  }
}

// Returns when a later block begins this lane.
[[gnu::noinline]] void Block::end_lane() {
  ++n_exited_;
  Warp& warp = warps_[static_cast<size_t>(running_->warp)];
  warp.exited |= 1u << running_->index;
  if (n_at_barrier_ > 0)
    fail("a thread ended while others wait in sync_threads: " + describe_waiting(), barrier_site_);
  check_progress();
  if (n_exited_ == n_lane_)
    switch_fiber(running_->fiber, main_);
  else
    run_lane(pick());
}

void Block::collective(Collective::Compute compute, uint32_t mask, void* operands, Site site) {
  Warp& warp = warps_[static_cast<size_t>(running_->warp)];
  const auto index = static_cast<size_t>(running_->index);
  const uint32_t self = 1u << index;
  if ((mask & self) == 0) fail(fmt::format("the lane is not in its own mask {:#010x}", mask), site);
  Collective& c = find_or_open(warp, compute, mask, site);
  c.operands[index] = operands;
  c.arrived |= self;
  if (c.arrived != mask) {
    warp.waiting |= self;
    return wait(site);
  }
  compute(c.operands.data(), mask);
  c.arrived = 0;
  while (warp.n_open > 0 && warp.open[static_cast<size_t>(warp.n_open - 1)].arrived == 0)
    --warp.n_open;
  const uint32_t others = mask & ~self;
  warp.waiting &= ~others;
  release(warp, others);
}

void Block::barrier(Site site) {
  Warp& warp = warps_[static_cast<size_t>(running_->warp)];
  if (n_exited_ > 0)
    fail(fmt::format("sync_threads after {} threads of the block have ended", n_exited_), site);
  if (n_at_barrier_ == 0) {
    barrier_site_ = site;
  } else if (!same(barrier_site_, site)) {
    fail("threads of one block in different sync_threads: " + describe_waiting(), site);
  }
  if (++n_at_barrier_ == n_lane_) return release_barrier();
  warp.at_barrier |= 1u << running_->index;
  wait(site);
}

void Block::release_barrier() {
  n_at_barrier_ = 0;
  const auto n_warp = static_cast<size_t>((n_lane_ + kWarpLanes - 1) / kWarpLanes);
  for (size_t i = 0; i < n_warp; ++i) {
    release(warps_[i], warps_[i].at_barrier);
    warps_[i].at_barrier = 0;
  }
}

void Block::fail(std::string what, Site site) {
  report_ = fmt::format("{}, at {}: {}", where(), text(site), what);
  failed_ = true;
  std::string().swap(what);  // nobody returns here to destroy it
  switch_fiber(running_->fiber, main_);
  __builtin_unreachable();
}

std::string Block::where() const {
  return fmt::format("{}, block {}, thread {} (lane {} of warp {})", grid_->describe(),
                     text(ids_.block_idx), text(running_->ids.thread_idx), running_->index,
                     running_->warp);
}

std::string Block::describe_waiting() const {
  std::string out;
  const auto add = [&out](const std::string& s) { out += (out.empty() ? "" : "; ") + s; };
  if (n_at_barrier_ > 0)
    add(fmt::format("{} of {} threads in sync_threads at {}", n_at_barrier_, n_lane_,
                    text(barrier_site_)));
  const Warp& warp = warps_[static_cast<size_t>(running_->warp)];
  for (int i = 0; i < warp.n_open; ++i) {
    const Collective& c = warp.open[static_cast<size_t>(i)];
    if (c.arrived != 0)
      add(fmt::format("lanes {:#010x} of mask {:#010x} at {}", c.arrived, c.mask, text(c.site)));
  }
  if (warp.exited != 0) add(fmt::format("lanes {:#010x} have ended", warp.exited));
  return out;
}

}  // namespace infer::cuda::emulated
