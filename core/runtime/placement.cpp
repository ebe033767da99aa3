#include "core/runtime/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::runtime {
namespace {

constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();

int64_t add(int64_t a, int64_t b) { return checked_add(a, b).value_or(kMaxBytes); }

/// Half-layers [begin, end).
struct Range {
  int begin = 0, end = 0;
  int size() const { return end - begin; }
};

HalfCost cost_of(const PlacementDevice& device, const Range& range) {
  HalfCost sum;
  for (int h = range.begin; h < range.end; ++h) {
    const HalfCost& c = device.costs[static_cast<size_t>(h)];
    sum.weight_bytes = add(sum.weight_bytes, c.weight_bytes);
    sum.kv_bytes = add(sum.kv_bytes, c.kv_bytes);
    sum.arena_bytes = std::max(sum.arena_bytes, c.arena_bytes);
  }
  if (range.begin == 0 && range.end == static_cast<int>(device.costs.size()) && range.size() > 1)
    sum.weight_bytes -= device.tied_bytes;
  return sum;
}

/// The input, the layers, the output.
std::vector<Range> units_of_model(const std::vector<graph::HalfLayer>& halves) {
  std::vector<Range> units;
  for (int h = 0; h < static_cast<int>(halves.size()); ++h) {
    const int il = halves[static_cast<size_t>(h)].il;
    if (h == 0 || il < 0 || il != halves[static_cast<size_t>(h - 1)].il) units.push_back({h, h});
    units.back().end = h + 1;
  }
  return units;
}

class Placer {
 public:
  explicit Placer(const PlacementRequest& request) : r_(request) {
    n_half_ = static_cast<int>(r_.halves.size());
    units_ = units_of_model(r_.halves);
  }

  Result<Placement> run() const {
    INFER_TRY(check_shares());
    const Range range = supported(wanted());
    const bool automatic = r_.n_gpu_layers == kAutoLayers && r_.has_host;
    const std::optional<Placement> fit = automatic ? largest_fit(range) : cut(range);
    Placement placement = with_host(fit.value_or(Placement()));
    if (!r_.has_host) {
      for (const PlacedRun& run : placement) {
        if (run.device == kHost)
          return make_error(ErrorCode::kUnsupported, "{} cannot be placed: there is no CPU backend",
                            name_halves(r_.halves, run.half_begin, run.half_end));
      }
    }
    return placement;
  }

 private:
  int layer(int half) const { return r_.halves[static_cast<size_t>(half)].il; }

  Result<void> check_shares() const {
    if (r_.shares.empty()) return {};
    constexpr ErrorCode kCode = ErrorCode::kInvalidArgument;
    if (r_.shares.size() > r_.gpus.size())
      return make_error(kCode, "{} shares of layers for {} GPUs", r_.shares.size(), r_.gpus.size());
    const auto is_share = [](float x) { return std::isfinite(x) && x >= 0.0f; };
    if (!std::ranges::all_of(r_.shares, is_share) ||
        std::ranges::all_of(r_.shares, [](float x) { return x == 0.0f; }))
      return make_error(kCode, "shares of layers are numbers >= 0, not all of them 0");
    return {};
  }

  /// What the number of layers stands for.
  Range wanted() const {
    if (r_.gpus.empty() || r_.n_gpu_layers == 0) return {};
    if (r_.n_gpu_layers < 0 || r_.n_gpu_layers == kAllLayers || !r_.has_host) return {0, n_half_};
    std::vector<Range> layers;
    for (const Range& u : units_) {
      if (layer(u.begin) >= 0) layers.push_back(u);
    }
    if (layers.empty()) return {};
    const auto n_layer = static_cast<int>(layers.size());
    const int first = std::max(0, n_layer - r_.n_gpu_layers);
    return {layers[static_cast<size_t>(first)].begin,
            r_.n_gpu_layers > n_layer ? n_half_ : layers.back().end};
  }

  int n_whole_layers(const Range& range) const {
    return static_cast<int>(std::ranges::count_if(units_, [&](const Range& u) {
      return layer(u.begin) >= 0 && u.begin >= range.begin && u.end <= range.end;
    }));
  }

  /// The longest part that every GPU computes; of equals the last.
  Range supported(const Range& range) const {
    Range best;
    for (int h = range.begin; h < range.end;) {
      int end = h;
      while (end < range.end && !r_.refused[static_cast<size_t>(end)]) ++end;
      if (end - h >= best.size() && end > h) best = {h, end};
      h = end + 1;
    }
    return n_whole_layers(best) > 0 ? best : Range{};
  }

  /// The range's units, those at its ends perhaps cut off.
  std::vector<Range> units_of(const Range& range) const {
    std::vector<Range> out;
    for (const Range& u : units_) {
      const Range part{std::max(u.begin, range.begin), std::min(u.end, range.end)};
      if (part.begin < part.end) out.push_back(part);
    }
    return out;
  }

  bool fits(int device, const Range& range) const {
    const PlacementDevice& d = r_.gpus[static_cast<size_t>(device)];
    return cost_of(d, range).total() <= d.budget_bytes;
  }

  /// Cuts a range over the GPUs.
  Placement cut(const Range& range) const {
    const std::vector<Range> units = units_of(range);
    const auto n_gpu = static_cast<int>(r_.gpus.size());
    Placement out;
    int device = 0;
    for (size_t i = 0; i < units.size(); ++i) {
      const Range& unit = units[i];
      int begin = unit.begin;
      if (!out.empty() && out.back().device == device) begin = out.back().half_begin;
      if (!r_.shares.empty()) {
        device = device_by_share(i, units.size());
      } else {
        while (device + 1 < n_gpu && !fits(device, {begin, unit.end})) {
          ++device;
          begin = unit.begin;
        }
      }
      if (out.empty() || out.back().device != device)
        out.push_back({device, unit.begin, unit.begin});
      out.back().half_end = unit.end;
    }
    return out;
  }

  int device_by_share(size_t unit, size_t n_unit) const {
    const double all = std::accumulate(r_.shares.begin(), r_.shares.end(), 0.0);
    const double at = static_cast<double>(unit) / static_cast<double>(n_unit) * all;
    double sum = 0.0;
    int last = 0;  // with a share: rounding may lead past all
    for (size_t d = 0; d < r_.shares.size(); ++d) {
      if (r_.shares[d] <= 0.0f) continue;
      last = static_cast<int>(d);
      sum += r_.shares[d];
      if (at < sum) break;
    }
    return last;
  }

  bool all_fit(const Placement& runs) const {
    return std::ranges::all_of(runs, [&](const PlacedRun& run) {
      return fits(run.device, {run.half_begin, run.half_end});
    });
  }

  /// The most layers from the range's end that fit.
  std::optional<Placement> largest_fit(const Range& range) const {
    std::vector<int> ends{range.end};
    if (range.size() > 0 && range.end == n_half_ && units_.back().begin > range.begin)
      ends.push_back(units_.back().begin);
    for (const int end : ends) {
      for (const Range& unit : units_of({range.begin, end})) {
        const Range part{unit.begin, end};
        if (n_whole_layers(part) == 0) break;
        if (Placement runs = cut(part); all_fit(runs)) return runs;
      }
    }
    return std::nullopt;
  }

  Placement with_host(const Placement& runs) const {
    if (runs.empty()) return {{kHost, 0, n_half_}};
    Placement all;
    if (const int begin = runs.front().half_begin; begin > 0) all.push_back({kHost, 0, begin});
    all.insert(all.end(), runs.begin(), runs.end());
    if (const int end = runs.back().half_end; end < n_half_) all.push_back({kHost, end, n_half_});
    return all;
  }

  const PlacementRequest& r_;
  int n_half_ = 0;
  std::vector<Range> units_;  ///< the input, the layers, the output
};

std::string mib(int64_t bytes) {
  return fmt::format("{:.1f}", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

}  // namespace

int64_t HalfCost::total() const { return add(add(weight_bytes, kv_bytes), arena_bytes); }

HalfCost& HalfCost::operator+=(const HalfCost& other) {
  weight_bytes = add(weight_bytes, other.weight_bytes);
  kv_bytes = add(kv_bytes, other.kv_bytes);
  arena_bytes = add(arena_bytes, other.arena_bytes);
  return *this;
}

int64_t memory_budget(int64_t free_bytes) {
  constexpr int64_t kMostReserved = int64_t{512} << 20;
  return free_bytes <= 0 ? kMaxBytes : free_bytes - std::min(kMostReserved, free_bytes / 16);
}

Result<Placement> place(const PlacementRequest& request) { return Placer(request).run(); }

HalfCost use_of(const PlacementRequest& request, const Placement& placement, int device) {
  const PlacementDevice& d =
      device == kHost ? request.host : request.gpus[static_cast<size_t>(device)];
  HalfCost sum;
  for (const PlacedRun& run : placement) {
    if (run.device != device) continue;
    sum += cost_of(d, {run.half_begin, run.half_end});
  }
  return sum;
}

int n_layers(const std::vector<graph::HalfLayer>& halves) {
  return static_cast<int>(std::ranges::count_if(units_of_model(halves), [&](const Range& u) {
    return halves[static_cast<size_t>(u.begin)].il >= 0;
  }));
}

int n_gpu_layers(const std::vector<graph::HalfLayer>& halves, const Placement& placement) {
  return static_cast<int>(std::ranges::count_if(units_of_model(halves), [&](const Range& u) {
    return halves[static_cast<size_t>(u.begin)].il >= 0 &&
           std::ranges::any_of(placement, [&](const PlacedRun& run) {
             return run.device != kHost && u.begin >= run.half_begin && u.end <= run.half_end;
           });
  }));
}

std::string name_halves(const std::vector<graph::HalfLayer>& halves, int half_begin, int half_end) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  int first = -1, last = -1;  // whole layers not yet named
  const auto add_layers = [&] {
    if (first >= 0) {
      add(first == last ? fmt::format("layer {}", first)
                        : fmt::format("layers {}-{}", first, last));
    }
    first = -1;
  };
  for (const Range& unit : units_of_model(halves)) {
    const Range part{std::max(unit.begin, half_begin), std::min(unit.end, half_end)};
    if (part.size() <= 0) continue;
    const graph::HalfLayer& half = halves[static_cast<size_t>(part.begin)];
    if (half.il >= 0 && part.size() == unit.size()) {
      if (first < 0) first = half.il;
      last = half.il;
      continue;
    }
    add_layers();
    if (half.il >= 0) {
      add(fmt::format("{} of layer {}", half.kind == graph::HalfKind::kFfn ? "ffn" : "attention",
                      half.il));
    } else {
      add(half.kind == graph::HalfKind::kInput ? "input" : "output");
    }
  }
  add_layers();
  return text;
}

std::vector<std::string> memory_plan(const PlacementRequest& request, const Placement& placement,
                                     const std::vector<HalfCost>& costs) {
  std::vector<std::string> lines;
  for (int d = kHost; d < static_cast<int>(request.gpus.size()); ++d) {
    std::string what;
    HalfCost use;
    for (size_t i = 0; i < placement.size(); ++i) {
      const PlacedRun& run = placement[i];
      if (run.device != d) continue;
      use += costs[i];
      what +=
          (what.empty() ? "" : "; ") + name_halves(request.halves, run.half_begin, run.half_end);
    }
    if (what.empty()) continue;
    const PlacementDevice& device =
        d == kHost ? request.host : request.gpus[static_cast<size_t>(d)];
    std::string line = fmt::format("{}: {} | MiB: weights {}, K/V {}, arena {}", device.name, what,
                                   mib(use.weight_bytes), mib(use.kv_bytes), mib(use.arena_bytes));
    if (device.free_bytes > 0)
      line += fmt::format("; {} of {} free", mib(use.total()), mib(device.free_bytes));
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace infer::runtime
