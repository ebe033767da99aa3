#include "quantize/convert/hf_map.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

using model::HfChange;
using model::HfConfig;
using model::HfName;
using model::HfSide;

constexpr int64_t kMaxExperts = 1 << 12;
constexpr int64_t kMaxLayers = 1 << 12;

/// Takes "12." off the front of `name`.
std::optional<int64_t> take_index(std::string_view& name, int64_t end_index) {
  int64_t index = 0;
  const char* end = name.data() + name.size();
  const auto [next, error] = std::from_chars(name.data(), end, index);
  if (error != std::errc() || index < 0 || index >= end_index || next == end || *next != '.')
    return std::nullopt;
  name.remove_prefix(static_cast<size_t>(next - name.data()) + 1);
  return index;
}

struct Place {
  std::string name;
  HfChange change = HfChange::kNone;
  int64_t expert = -1;
};
struct Places {
  bool known = false;        ///< the tables have the name
  std::vector<Place> where;  ///< empty: not written
};

void look_up(std::span<const HfName> table, std::string_view name, const std::string& prefix,
             int64_t expert, Places& out) {
  for (const HfName& row : table) {
    if (row.hf != name) continue;
    out.known = true;
    if (!row.gguf.empty())
      out.where.push_back({prefix + std::string(row.gguf), row.change, expert});
  }
}

Places places_of(const HfSide& side, std::string_view name) {
  for (const std::string_view prefix : side.prefixes) {
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(prefix.size());
    break;
  }
  Places out;
  look_up(side.outer, name, "", -1, out);
  if (out.known || !name.starts_with(side.layers)) return out;
  name.remove_prefix(side.layers.size());
  const auto il = take_index(name, kMaxLayers);
  if (!il) return out;
  const std::string prefix = "blk." + std::to_string(*il) + ".";
  look_up(side.inner, name, prefix, -1, out);
  if (out.known || side.experts.empty() || !name.starts_with(side.experts)) return out;
  name.remove_prefix(side.experts.size());
  if (const auto expert = take_index(name, kMaxExperts))
    look_up(side.expert_tensors, name, prefix, *expert, out);
  return out;
}

bool is_left_out(const HfSide& side, std::string_view name) {
  return std::any_of(side.left_out.begin(), side.left_out.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

/// Scales beside a weight, and what 8-bit activations would need.
bool is_scale(const SafeTensors& weights, std::string_view name) {
  for (const std::string_view end : {"_scale_inv", "_scale"}) {
    if (!name.ends_with(end)) continue;
    const SafeTensor* t = weights.find(name.substr(0, name.size() - end.size()));
    if (t != nullptr && is_float8(t->type)) return true;
  }
  for (const std::string_view end :
       {".input_scale", ".activation_scale", ".output_scale", ".k_scale", ".v_scale"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

class Mapper {
 public:
  Mapper(const SafeTensors& weights, const HfSide& side, const HfConfig& config)
      : weights_(weights), side_(side), config_(config) {}

  Result<std::vector<MappedTensor>> run(std::vector<std::string>* notes) {
    INFER_TRY(read_config());
    int64_t n_left_out = 0;
    for (const SafeTensor& t : weights_.tensors()) {
      if (is_left_out(side_, t.name)) {
        ++n_left_out;
        continue;
      }
      const Places places = places_of(side_, t.name);
      if (!places.known && !is_scale(weights_, t.name))
        return bad(t, ErrorCode::kUnsupported, "has no place in this architecture");
      for (const Place& p : places.where) {
        if (!(is_tied_ && p.name == "output.weight")) INFER_TRY(add(t, p));
      }
    }
    if (n_left_out > 0 && notes != nullptr)
      notes->push_back(fmt::format("{} tensors are no part of the language model", n_left_out));
    for (MappedTensor& m : out_) INFER_TRY(finish(m));
    return std::move(out_);
  }

 private:
  Error bad(const SafeTensor& t, ErrorCode code, std::string_view what) const {
    return make_error(code, "{}: tensor '{}': {}", weights_.path_of(t), gguf::printable(t.name),
                      what);
  }

  Result<void> read_config() {
    INFER_ASSIGN(is_tied_, config_.flag("tie_word_embeddings", side_.tied_by_default));
    INFER_ASSIGN(const HfConfig quant, config_.object("quantization_config"));
    INFER_ASSIGN(const std::string method, quant.text({"quant_method"}, "fp8"));
    constexpr std::array<std::string_view, 4> kKnown{"fp8", "fbgemm_fp8", "compressed-tensors",
                                                     "modelopt"};
    if (std::find(kKnown.begin(), kKnown.end(), method) == kKnown.end()) {
      return quant.unsupported("quant_method",
                               "only 8-bit floats are read; convert the original model");
    }
    INFER_ASSIGN(const auto block, quant.numbers("weight_block_size"));
    if (block.empty()) return {};
    if (block.size() != 2 ||
        !(block[0] >= 1 && block[0] <= 1e6 && block[1] >= 1 && block[1] <= 1e6))
      return quant.unsupported("weight_block_size", "must be two sizes");
    block_rows_ = static_cast<int64_t>(block[0]);
    block_cols_ = static_cast<int64_t>(block[1]);
    return {};
  }

  Result<void> add(const SafeTensor& t, const Place& p) {
    const auto [it, is_new] = index_.emplace(p.name, out_.size());
    if (is_new) out_.push_back({.name = p.name, .change = p.change, .is_stacked = p.expert >= 0});
    MappedTensor& m = out_[it->second];
    const auto i = static_cast<size_t>(std::max<int64_t>(p.expert, 0));
    if (m.is_stacked != (p.expert >= 0)) return bad(t, ErrorCode::kCorrupt, "stands twice");
    if (m.slices.size() <= i) {
      // Gaps are refused later; until then a name alone must not cost memory.
      n_slice_ += i + 1 - m.slices.size();
      if (n_slice_ > kMaxGap + 64 * weights_.tensors().size())
        return bad(t, ErrorCode::kCorrupt, "is an expert without most of the others");
      m.slices.resize(i + 1);
    }
    MappedTensor::Slice& slice = m.slices[i];
    if (slice.t != nullptr) {
      return bad(t, ErrorCode::kCorrupt,
                 fmt::format("stands for the same as '{}'", gguf::printable(slice.t->name)));
    }
    slice.t = &t;
    if (!is_float8(t.type)) return {};
    for (const std::string_view end : {"_scale_inv", "_scale"}) {
      if (slice.scale == nullptr) slice.scale = weights_.find(t.name + std::string(end));
    }
    return slice.scale == nullptr ? Result<void>() : place_scale(slice);
  }

  /// One scale for all, for a row, or for a block of weight_block_size.
  Result<void> place_scale(MappedTensor::Slice& s) const {
    const SafeType type = s.scale->type;
    if (type != SafeType::kF32 && type != SafeType::kF16 && type != SafeType::kBF16) {
      return bad(*s.scale, ErrorCode::kUnsupported,
                 fmt::format("scales of type {} (known are F32, F16 and BF16)", name_of(type)));
    }
    const int64_t n = s.scale->n_elem();
    const int64_t n_row = s.t->n_row();
    const int64_t n_k = s.t->n_k();
    s.scale_rows = s.scale_cols = int64_t{1} << 62;  // more than any tensor has
    if (n == 1) return {};
    if (block_rows_ > 0 && s.t->shape.size() == 2 && s.scale->shape.size() == 2 &&
        s.scale->shape[0] == ceil_div(n_row, block_rows_) &&
        s.scale->shape[1] == ceil_div(n_k, block_cols_)) {
      s.scale_rows = block_rows_;
      s.scale_cols = block_cols_;
      return {};
    }
    // After the blocks: these may be as many as there are rows.
    if (n == n_row && s.scale->shape[0] == n_row) {
      s.scale_rows = 1;
      return {};
    }
    return bad(*s.scale, ErrorCode::kUnsupported,
               "its shape fits neither the weight nor blocks of weight_block_size");
  }

  static Result<DType> type_of(const MappedTensor::Slice& s) {
    switch (s.t->type) {
      case SafeType::kF32:
        return DType::kF32;
      case SafeType::kF16:
        return DType::kF16;
      case SafeType::kBF16:
        return DType::kBF16;
      case SafeType::kF8E4M3:
      case SafeType::kF8E5M2:  // exact without a scale, and near to it with one
        return s.scale == nullptr ? DType::kBF16 : DType::kF32;
      default:
        return make_error(ErrorCode::kUnsupported, "weights of type {}", name_of(s.t->type));
    }
  }

  /// What llama.cpp keeps in F32 whatever the type of the rest: vectors, norms, routers, positions.
  static bool is_f32(const MappedTensor& m) {
    return m.shape.size() <= 1 || m.name.ends_with("_norm.weight") ||
           m.name.ends_with(".ffn_gate_inp.weight") ||
           m.name.ends_with(".ffn_gate_inp_shexp.weight") || m.name == "position_embd.weight";
  }

  Result<void> finish(MappedTensor& m) const {
    const SafeTensor* first = m.slices[0].t;
    for (size_t i = 0; i < m.slices.size(); ++i) {
      const MappedTensor::Slice& s = m.slices[i];
      if (s.t == nullptr) {
        return make_error(ErrorCode::kCorrupt, "{}: expert {} of '{}' is missing", config_.where(),
                          i, m.name);
      }
      if (first == nullptr || s.t->shape != first->shape)
        return bad(*s.t, ErrorCode::kCorrupt, "its shape is not that of the other experts");
      const Result<DType> type = type_of(s);
      if (!type.ok()) return bad(*s.t, ErrorCode::kUnsupported, type.error().message);
      m.type = i == 0 || m.type == *type ? *type : DType::kF32;
    }
    INFER_TRY(set_shape(m, *first));
    if (is_f32(m)) m.type = DType::kF32;
    return {};
  }

  Result<void> set_shape(MappedTensor& m, const SafeTensor& t) const {
    m.shape.assign(t.shape.rbegin(), t.shape.rend());
    if (m.shape.empty()) m.shape = {1};
    const bool is_half = m.change == HfChange::kFirstHalf || m.change == HfChange::kSecondHalf;
    if (is_half && (m.shape.size() < 2 || m.shape[1] % 2 != 0))
      return bad(t, ErrorCode::kCorrupt, "has no two halves");
    if (is_half) m.shape[1] /= 2;
    if (m.change == HfChange::kTranspose) {
      if (m.shape.size() != 2 || m.slices[0].scale != nullptr)
        return bad(t, ErrorCode::kCorrupt, "is no plain matrix");
      std::swap(m.shape[0], m.shape[1]);
    }
    if (m.change == HfChange::kFlatten) m.shape = {t.n_elem()};
    if (m.is_stacked) m.shape.push_back(static_cast<int64_t>(m.slices.size()));
    if (m.shape.size() > 4) return bad(t, ErrorCode::kCorrupt, "has too many dimensions");
    if (std::find(m.shape.begin(), m.shape.end(), 0) != m.shape.end())
      return bad(t, ErrorCode::kCorrupt, "is empty");
    return {};
  }

  const SafeTensors& weights_;
  const HfSide& side_;
  const HfConfig& config_;
  bool is_tied_ = false;
  int64_t block_rows_ = 0, block_cols_ = 0;
  static constexpr size_t kMaxGap = 4096;
  size_t n_slice_ = 0;  // of all of `out_`
  std::vector<MappedTensor> out_;
  std::map<std::string, size_t, std::less<>> index_;  // of `out_`, by name
};

}  // namespace

Result<std::vector<MappedTensor>> map_tensors(const SafeTensors& weights, const HfSide& side,
                                              const HfConfig& config,
                                              std::vector<std::string>* notes) {
  return Mapper(weights, side, config).run(notes);
}

std::string hf_name_of(const HfSide& side, std::string_view gguf_name) {
  const std::string prefix(side.prefixes.empty() ? "" : side.prefixes.back());
  const auto find = [](std::span<const HfName> table, std::string_view name) {
    const auto it = std::find_if(table.begin(), table.end(),
                                 [&](const HfName& row) { return row.gguf == name; });
    return it == table.end() ? std::string() : std::string(it->hf);
  };
  if (!gguf_name.starts_with("blk.")) {
    const std::string name = find(side.outer, gguf_name);
    return name.empty() || name == "lm_head.weight" ? name : prefix + name;
  }
  gguf_name.remove_prefix(4);
  const auto il = take_index(gguf_name, kMaxLayers);
  if (!il) return {};
  const std::string layer = prefix + std::string(side.layers) + std::to_string(*il) + ".";
  if (const std::string name = find(side.expert_tensors, gguf_name); !name.empty())
    return layer + std::string(side.experts) + "0." + name;
  const std::string name = find(side.inner, gguf_name);
  return name.empty() ? name : layer + name;
}

}  // namespace infer::quantize
