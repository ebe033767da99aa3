#include "core/runtime/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infer::runtime {
namespace {

using graph::HalfKind;
using testing::ElementsAre;

/// Input, layers of two halves, output: 2 n_layer + 2 half-layers. A layer takes 10 for attention
/// (of which 4 are K and V) and 20 for its FFN, the input 50, the output 60; the arena 5.
PlacementRequest model(int n_layer, int n_gpu, int n_gpu_layers) {
  PlacementRequest r;
  std::vector<HalfCost> costs;
  const auto add = [&](HalfKind kind, int il, int64_t weights, int64_t kv) {
    r.halves.push_back({.kind = kind, .il = il});
    costs.push_back({weights, kv, 5});
  };
  add(HalfKind::kInput, -1, 50, 0);
  for (int il = 0; il < n_layer; ++il) {
    add(HalfKind::kMixer, il, 6, 4);
    add(HalfKind::kFfn, il, 20, 0);
  }
  add(HalfKind::kOutput, -1, 60, 0);
  r.refused.assign(r.halves.size(), false);
  r.host = {.name = "cpu", .costs = costs};
  for (int d = 0; d < n_gpu; ++d)
    r.gpus.push_back({.name = "gpu:" + std::to_string(d), .costs = costs});
  r.n_gpu_layers = n_gpu_layers;
  return r;
}

/// "cpu: input, layer 0 | gpu:0: layer 1, output"
std::string shown(const PlacementRequest& r) {
  const Result<Placement> placement = place(r);
  if (!placement.ok()) return placement.error().message;
  std::string text;
  int at = 0;
  for (const PlacedRun& run : *placement) {
    EXPECT_EQ(run.half_begin, at);
    EXPECT_LT(run.half_begin, run.half_end);
    at = run.half_end;
    const std::string& name =
        run.device == kHost ? r.host.name : r.gpus[static_cast<size_t>(run.device)].name;
    text += (text.empty() ? "" : " | ") + name + ": " +
            name_halves(r.halves, run.half_begin, run.half_end);
  }
  EXPECT_EQ(at, static_cast<int>(r.halves.size()));
  return text;
}

TEST(Placement, CountsLayersFromTheEnd) {
  EXPECT_EQ(shown(model(4, 1, 0)), "cpu: input, layers 0-3, output");
  EXPECT_EQ(shown(model(4, 1, 1)), "cpu: input, layers 0-2 | gpu:0: layer 3 | cpu: output");
  EXPECT_EQ(shown(model(4, 1, 3)), "cpu: input, layer 0 | gpu:0: layers 1-3 | cpu: output");
  EXPECT_EQ(shown(model(4, 1, 4)), "cpu: input | gpu:0: layers 0-3 | cpu: output");
  EXPECT_EQ(shown(model(4, 1, 5)), "cpu: input | gpu:0: layers 0-3, output");
  EXPECT_EQ(shown(model(4, 1, 99)), "cpu: input | gpu:0: layers 0-3, output");
  EXPECT_EQ(shown(model(4, 1, kAllLayers)), "gpu:0: input, layers 0-3, output");
  EXPECT_EQ(shown(model(4, 0, kAllLayers)), "cpu: input, layers 0-3, output");
}

TEST(Placement, AutoTakesAsManyAsFit) {
  PlacementRequest r = model(4, 1, kAutoLayers);
  const auto with = [&](int64_t budget) {
    r.gpus[0].budget_bytes = budget;
    return shown(r);
  };
  EXPECT_EQ(with(1000), "gpu:0: input, layers 0-3, output");
  EXPECT_EQ(with(50 + 4 * 30 + 60 + 5), "gpu:0: input, layers 0-3, output");
  EXPECT_EQ(with(50 + 4 * 30 + 60 + 4), "cpu: input | gpu:0: layers 0-3, output");
  EXPECT_EQ(with(2 * 30 + 60 + 5), "cpu: input, layers 0-1 | gpu:0: layers 2-3, output");
  EXPECT_EQ(with(30 + 60 + 5), "cpu: input, layers 0-2 | gpu:0: layer 3, output");
  // The output alone would leave no layer.
  EXPECT_EQ(with(30 + 60 + 4), "cpu: input, layers 0-1 | gpu:0: layers 2-3 | cpu: output");
  EXPECT_EQ(with(34), "cpu: input, layers 0-3, output");
  EXPECT_EQ(with(0), "cpu: input, layers 0-3, output");
}

/// An embedding that is the output matrix too is there once, where both are on one device.
TEST(Placement, TiedWeightsCountOnce) {
  PlacementRequest r = model(4, 1, kAutoLayers);
  PlacementDevice& gpu = r.gpus[0];
  gpu.tied_bytes = 50;
  gpu.budget_bytes = 4 * 30 + 60 + 5;
  EXPECT_EQ(shown(r), "gpu:0: input, layers 0-3, output");
  EXPECT_EQ(use_of(r, *place(r), 0).total(), gpu.budget_bytes);
  gpu.budget_bytes -= 1;
  EXPECT_EQ(shown(r), "cpu: input, layer 0 | gpu:0: layers 1-3, output");
  EXPECT_EQ(use_of(r, *place(r), 0).total(), 3 * 30 + 60 + 5);
}

TEST(Placement, ANumberIsTakenAtItsWord) {
  PlacementRequest r = model(4, 1, 3);
  r.gpus[0].budget_bytes = 10;
  EXPECT_EQ(shown(r), "cpu: input, layer 0 | gpu:0: layers 1-3 | cpu: output");
}

TEST(Placement, FillsOneGpuAfterTheOther) {
  PlacementRequest r = model(4, 3, kAutoLayers);
  EXPECT_EQ(shown(r), "gpu:0: input, layers 0-3, output");
  r.gpus[0].budget_bytes = 50 + 30 + 5;
  r.gpus[1].budget_bytes = 10;  // too little for anything
  r.gpus[2].budget_bytes = 3 * 30 + 60 + 5;
  EXPECT_EQ(shown(r), "gpu:0: input, layer 0 | gpu:2: layers 1-3, output");
  r.gpus[2].budget_bytes -= 1;
  EXPECT_EQ(shown(r), "cpu: input | gpu:0: layers 0-1 | gpu:2: layers 2-3, output");
  r.n_gpu_layers = 4;
  r.gpus[2].budget_bytes = 0;  // the last takes what is left
  EXPECT_EQ(shown(r), "cpu: input | gpu:0: layers 0-1 | gpu:2: layers 2-3 | cpu: output");
}

TEST(Placement, CutsByShares) {
  PlacementRequest r = model(8, 2, 8);
  r.shares = {3, 1};
  EXPECT_EQ(shown(r), "cpu: input | gpu:0: layers 0-5 | gpu:1: layers 6-7 | cpu: output");
  r.shares = {0, 0.5f};
  EXPECT_EQ(shown(r), "cpu: input | gpu:1: layers 0-7 | cpu: output");
  r.shares = {1};
  EXPECT_EQ(shown(r), "cpu: input | gpu:0: layers 0-7 | cpu: output");
  r.n_gpu_layers = kAutoLayers;
  r.shares = {1, 1};
  r.gpus[0].budget_bytes = 2 * 30 + 5;
  EXPECT_EQ(shown(r), "cpu: input, layers 0-4 | gpu:0: layers 5-6 | gpu:1: layer 7, output");
  r.shares = {1, 1, 1};
  EXPECT_EQ(shown(r), "3 shares of layers for 2 GPUs");
  for (const float bad : {-1.0f, NAN, 0.0f}) {
    r.shares = {bad};
    EXPECT_THAT(shown(r), testing::HasSubstr("shares of layers"));
  }
}

TEST(Placement, WhatIsRefusedStaysAndNothingBounces) {
  PlacementRequest r = model(6, 1, kAllLayers);
  r.refused[0] = true;
  EXPECT_EQ(shown(r), "cpu: input | gpu:0: layers 0-5, output");
  r.refused[6] = true;  // the FFN of layer 2
  EXPECT_EQ(shown(r), "cpu: input, layers 0-2 | gpu:0: layers 3-5, output");
  r.refused[11] = true;  // the attention of layer 5: [1, 6) is longer than [7, 11)
  EXPECT_EQ(
      shown(r),
      "cpu: input | gpu:0: layers 0-1, attention of layer 2 | cpu: ffn of layer 2, layers 3-5, "
      "output");
  EXPECT_EQ(n_layers(r.halves), 6);
  EXPECT_EQ(n_gpu_layers(r.halves, *place(r)), 2);  // whole ones
  r.n_gpu_layers = 5;
  EXPECT_EQ(shown(r), "cpu: input, layers 0-2 | gpu:0: layers 3-4 | cpu: layer 5, output");
  for (size_t h = 2; h < r.refused.size(); h += 2) r.refused[h] = true;  // every FFN
  for (const int n : {kAllLayers, kAutoLayers, 3}) {
    r.n_gpu_layers = n;
    EXPECT_EQ(shown(r), "cpu: input, layers 0-5, output");
  }
}

TEST(Placement, WithoutAHostEverythingGoesToTheGpus) {
  PlacementRequest r = model(2, 2, 1);
  r.has_host = false;
  r.gpus[0].budget_bytes = 100;
  EXPECT_EQ(shown(r), "gpu:0: input, layer 0 | gpu:1: layer 1, output");
  r.refused[1] = true;
  EXPECT_THAT(shown(r), testing::HasSubstr("input, attention of layer 0 cannot be placed"));
}

TEST(Placement, LayersOfOneHalf) {  // attention and FFN side by side
  PlacementRequest r = model(0, 1, 1);
  for (int il = 0; il < 3; ++il) {
    r.halves.insert(r.halves.end() - 1, {.kind = HalfKind::kMixer, .il = il});
    r.gpus[0].costs.push_back({1, 1, 1});
    r.refused.push_back(false);
  }
  EXPECT_EQ(shown(r), "cpu: input, layers 0-1 | gpu:0: layer 2 | cpu: output");
}

/// Whatever is asked: all half-layers once and in order, no more than fits, and one layer more
/// would not fit.
TEST(Placement, HoldsForRandomMachines) {
  std::mt19937 rng(4);
  const auto below = [&](uint32_t n) { return static_cast<int64_t>(rng() % n); };
  for (int round = 0; round < 3000; ++round) {
    PlacementRequest r = model(1 + static_cast<int>(rng() % 9), 1 + static_cast<int>(rng() % 3),
                               static_cast<int>(rng() % 12) - 1);
    for (PlacementDevice& gpu : r.gpus) {
      gpu.budget_bytes = below(400);
      for (HalfCost& c : gpu.costs) c = {below(40), below(20), below(9)};
    }
    if (rng() % 3 == 0) r.refused[rng() % r.refused.size()] = true;
    if (rng() % 4 == 0) r.shares.assign(r.gpus.size(), 1.0f);
    ASSERT_THAT(shown(r), testing::HasSubstr("input"));
    const Placement placement = *place(r);
    for (size_t i = 0; i < placement.size(); ++i) {
      const PlacedRun& run = placement[i];
      if (run.device == kHost) continue;
      if (i > 0 && placement[i - 1].device != kHost) {
        ASSERT_LT(placement[i - 1].device, run.device);
      }
      for (int h = run.half_begin; h < run.half_end; ++h)
        ASSERT_FALSE(r.refused[static_cast<size_t>(h)]);
    }
    if (r.n_gpu_layers != kAutoLayers) continue;
    for (size_t d = 0; d < r.gpus.size(); ++d)
      ASSERT_LE(use_of(r, placement, static_cast<int>(d)).total(), r.gpus[d].budget_bytes);
  }
}

TEST(Placement, TellsWhatMemoryIsFor) {
  PlacementRequest r = model(4, 1, 2);
  for (auto* costs : {&r.host.costs, &r.gpus[0].costs}) {
    for (HalfCost& c : *costs) {
      for (int64_t* bytes : {&c.weight_bytes, &c.kv_bytes, &c.arena_bytes}) *bytes <<= 20;
    }
  }
  r.gpus[0].free_bytes = int64_t{100} << 20;
  const Placement placement = *place(r);
  std::vector<HalfCost> costs;
  for (const PlacedRun& run : placement) costs.push_back(use_of(r, {run}, run.device));
  EXPECT_THAT(memory_plan(r, placement, costs),
              ElementsAre("cpu: input, layers 0-1; output | MiB: weights 162.0, K/V 8.0, arena "
                          "10.0",
                          "gpu:0: layers 2-3 | MiB: weights 52.0, K/V 8.0, arena 5.0; 65.0 of "
                          "100.0 free"));
}

TEST(Placement, LeavesSomeMemoryToOthers) {
  EXPECT_EQ(memory_budget(0), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(memory_budget(1600), 1500);
  EXPECT_EQ(memory_budget(int64_t{24} << 30), (int64_t{24} << 30) - (int64_t{512} << 20));
}

TEST(Placement, SizesThatDoNotFitAreTooMuch) {
  PlacementRequest r = model(2, 1, kAutoLayers);
  for (HalfCost& c : r.gpus[0].costs) c.weight_bytes = std::numeric_limits<int64_t>::max() / 2;
  r.gpus[0].budget_bytes = std::numeric_limits<int64_t>::max() - 1;
  EXPECT_EQ(shown(r), "cpu: input, layers 0-1, output");
}

}  // namespace
}  // namespace infer::runtime
