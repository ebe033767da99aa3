#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"

/// Which half-layers go to which device. Arithmetic on sizes only: nobody is asked or loaded here.
namespace infer::runtime {

/// What a half-layer takes on a device.
struct HalfCost {
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t arena_bytes = 0;  ///< a run needs about the largest of its halves' arenas
  int64_t total() const;
  HalfCost& operator+=(const HalfCost& other);  ///< of another run: arenas add up
};

struct PlacementDevice {
  std::string name;
  int64_t free_bytes = 0;                                      ///< 0: unknown
  int64_t budget_bytes = std::numeric_limits<int64_t>::max();  ///< what may be used
  std::vector<HalfCost> costs;                                 ///< [n_half]
  /// Of the weights, what the first and the last half both need (a tied embedding): there once if
  /// both are.
  int64_t tied_bytes = 0;
};

/// Of free bytes, what a model may take: drivers and libraries need some for themselves. Unknown
/// (0): as much as one likes.
int64_t memory_budget(int64_t free_bytes);

/// n_gpu_layers: as many as fit; everything, the input too.
inline constexpr int kAutoLayers = -1;
inline constexpr int kAllLayers = std::numeric_limits<int>::max();

struct PlacementRequest {
  std::vector<graph::HalfLayer> halves;
  std::vector<bool> refused;  ///< [n_half] some GPU cannot compute it
  std::vector<PlacementDevice> gpus;
  PlacementDevice host;
  bool has_host = true;
  /// Layers for the GPUs, counted from the end (llama.cpp's -ngl); more than the model has: the
  /// output too.
  int n_gpu_layers = kAutoLayers;
  /// Shares of the layers by GPU, which are cut in that order; missing ones are 0. Empty: a GPU is
  /// filled before the next one gets anything.
  std::vector<float> shares;
};

inline constexpr int kHost = -1;
struct PlacedRun {
  int device = kHost;  ///< index into gpus
  int half_begin = 0, half_end = 0;
  bool operator==(const PlacedRun&) const = default;
};
/// All half-layers in order; at most two runs of the host, around those of the GPUs.
using Placement = std::vector<PlacedRun>;

/// What is wanted, supported and contiguous goes to the GPUs: the longest such run, if it has a
/// whole layer. With kAutoLayers as many layers from its end as the budgets hold (without the
/// output where that leaves no room for a layer); a number of layers is taken at its word.
/// Errors: kInvalidArgument for shares that are none; kUnsupported without a host where not
/// everything goes to the GPUs.
Result<Placement> place(const PlacementRequest& request);

/// What `device` (kHost: the host) has to hold.
HalfCost use_of(const PlacementRequest& request, const Placement& placement, int device);

/// How many layers the model has, and how many are whole on GPUs.
int n_layers(const std::vector<graph::HalfLayer>& halves);
int n_gpu_layers(const std::vector<graph::HalfLayer>& halves, const Placement& placement);

/// "input, layers 0-11", "ffn of layer 3, output".
std::string name_halves(const std::vector<graph::HalfLayer>& halves, int half_begin, int half_end);

/// A line for each device that has something: what, and how many bytes for which purpose. `costs`:
/// of the placement's runs, as whole stages.
std::vector<std::string> memory_plan(const PlacementRequest& request, const Placement& placement,
                                     const std::vector<HalfCost>& costs);

}  // namespace infer::runtime
