#include "core/model/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <unordered_map>
#include <variant>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/describe.h"
#include "gguf/keys.h"

namespace infer::model {
namespace {

constexpr std::string_view kSuffixA = ".lora_a";
constexpr std::string_view kSuffixB = ".lora_b";
constexpr int64_t kMaxRank = 1 << 14;

std::string shape_of(const TensorView& view) {
  return fmt::format("[{}, {}, {}, {}]", view.ne[0], view.ne[1], view.ne[2], view.ne[3]);
}

Result<void> expect_text(const gguf::Reader& file, std::string_view key, std::string_view wanted) {
  INFER_ASSIGN(const std::string_view text, file.get_string(key));
  if (text == wanted) return {};
  return make_error(ErrorCode::kUnsupported, "{}: key '{}' = {}: an adapter has '{}'", file.path(),
                    key, gguf::printable(text), wanted);
}

Error bad_tensor(const gguf::Reader& file, ErrorCode code, std::string_view name,
                 std::string_view why) {
  return make_error(code, "{}: tensor '{}' {}", file.path(), gguf::printable(name), why);
}

/// What one tensor alone can be wrong in.
Result<void> check_half(const gguf::Reader& file, const gguf::TensorInfo& t) {
  const DType type = t.view.type;
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16 && type != DType::kQ8_0) {
    return bad_tensor(file, ErrorCode::kUnsupported, t.name,
                      fmt::format("is of type {}: known are f32, f16, bf16, q8_0", name_of(type)));
  }
  return {};
}

Result<void> check_pair(const gguf::Reader& file, const Adapter::Pair& p) {
  const TensorView& a = p.a->view;
  const TensorView& b = p.b->view;
  for (const gguf::TensorInfo* t : {p.a, p.b}) {
    if (t->view.ne[2] == 1 && t->view.ne[3] == 1) continue;
    return bad_tensor(
        file, ErrorCode::kUnsupported, t->name,
        fmt::format("has shape {}: adapters of experts are not computed", shape_of(t->view)));
  }
  if (a.ne[1] != b.ne[0] || a.ne[1] < 1 || a.ne[1] > kMaxRank) {
    return bad_tensor(file, ErrorCode::kCorrupt, p.a->name,
                      fmt::format("has shape {} and its lora_b {}: the rank must be the same, and "
                                  "in 1..{}",
                                  shape_of(a), shape_of(b), kMaxRank));
  }
  return {};
}

/// Shapes against the matrix of the model.
Result<void> check_against(const gguf::Reader& model, const Adapter& adapter,
                           const Adapter::Pair& p) {
  const gguf::TensorInfo* w = model.find_tensor(p.tensor);
  if (w == nullptr) {
    return bad_tensor(adapter.file(), ErrorCode::kUnsupported, p.a->name,
                      fmt::format("has no counterpart in {}", model.path()));
  }
  const TensorView& view = w->view;
  if (view.ne[2] != 1 || view.ne[3] != 1) {
    return bad_tensor(adapter.file(), ErrorCode::kUnsupported, p.a->name,
                      "is for experts: adapters of experts are not computed");
  }
  if (p.a->view.ne[0] != view.ne[0]) {
    return bad_tensor(adapter.file(), ErrorCode::kCorrupt, p.a->name,
                      fmt::format("has shape {}, but '{}' of the model {}", shape_of(p.a->view),
                                  p.tensor, shape_of(view)));
  }
  if (p.b->view.ne[1] != view.ne[1]) {
    return bad_tensor(adapter.file(), ErrorCode::kCorrupt, p.b->name,
                      fmt::format("has shape {}, but '{}' of the model {}", shape_of(p.b->view),
                                  p.tensor, shape_of(view)));
  }
  return {};
}

/// Rows [begin, begin + n) of B.
TensorView rows_of(const TensorView& b, int64_t begin, int64_t n) {
  TensorView view = b;
  const int64_t row = b.n_bytes / b.ne[1];
  view.ne[1] = n;
  view.data += begin * row;
  view.n_bytes = n * row;
  return view;
}

/// Adds adapters to the items of a graph.
class Attacher {
 public:
  Attacher(const gguf::Reader& model, graph::Graph* graph) : model_(model), g_(*graph) {}

  Result<void> add(int index, const Adapter& adapter) {
    if (adapter.arch() != g_.arch) {
      return make_error(
          ErrorCode::kUnsupported, "{}: key 'general.architecture' = {}: the model {} is of '{}'",
          adapter.file().path(), gguf::printable(adapter.arch()), model_.path(), g_.arch);
    }
    for (const Adapter::Pair& pair : adapter.pairs()) {
      INFER_TRY(check_against(model_, adapter, pair));
      if (pair.tensor != "token_embd.weight" && add_pair(index, adapter, pair)) continue;
      return bad_tensor(adapter.file(), ErrorCode::kUnsupported, pair.a->name,
                        "is for a tensor that adapters cannot be added to");
    }
    return {};
  }

 private:
  /// False when no linear item has that tensor's rows.
  bool add_pair(int index, const Adapter& adapter, const Adapter::Pair& pair) {
    bool any = false;
    for (graph::Op& op : g_.ops) {
      auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs);
      if (linear == nullptr) continue;
      for (graph::LinearItem& item : linear->items) {
        const graph::Weight& w = g_.weights[static_cast<size_t>(item.weight)];
        if (w.tensor != pair.tensor) continue;
        any = true;
        std::vector<graph::LowRank>& set = set_of(item);
        // Two ops with one weight share its set.
        if (!set.empty() && set.back().adapter == index) continue;
        set.push_back({index, pair.a->view, rows_of(pair.b->view, w.row_begin, w.n()),
                       adapter.scale_of(pair),
                       fmt::format("{}: tensor '{}", adapter.file().path(), pair.tensor)});
      }
    }
    return any;
  }

  std::vector<graph::LowRank>& set_of(graph::LinearItem& item) {
    const auto next = static_cast<int>(g_.item_adapters.size());
    const auto [it, is_new] = sets_.emplace(item.weight, next);
    if (is_new) g_.item_adapters.emplace_back();
    item.adapter = it->second;
    return g_.item_adapters[static_cast<size_t>(it->second)];
  }

  const gguf::Reader& model_;
  graph::Graph& g_;
  std::unordered_map<graph::WeightId, int> sets_;
};

}  // namespace

Result<std::shared_ptr<const Adapter>> Adapter::load(std::shared_ptr<const gguf::Reader> file) {
  auto out = std::make_shared<Adapter>();
  INFER_TRY(expect_text(*file, gguf::keys::kType, "adapter"));
  INFER_TRY(expect_text(*file, "adapter.type", "lora"));
  if (file->find("adapter.alora.invocation_tokens") != nullptr) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: key 'adapter.alora.invocation_tokens': adapters that begin at a text "
                      "(activated LoRA) are not computed",
                      file->path());
  }
  INFER_ASSIGN(out->arch_, file->get_string(gguf::keys::kArchitecture));
  INFER_ASSIGN(const double alpha, file->get_float("adapter.lora.alpha"));
  out->alpha_ = static_cast<float>(alpha);
  if (!std::isfinite(out->alpha_)) {
    return make_error(ErrorCode::kCorrupt, "{}: key 'adapter.lora.alpha' = {}", file->path(),
                      alpha);
  }
  std::map<std::string_view, Pair> pairs;
  for (const gguf::TensorInfo& t : file->tensors()) {
    const bool is_a = t.name.ends_with(kSuffixA);
    if (!is_a && !t.name.ends_with(kSuffixB)) {
      return bad_tensor(*file, ErrorCode::kUnsupported, t.name,
                        "is neither a lora_a nor a lora_b: only matrices are adapted");
    }
    INFER_TRY(check_half(*file, t));
    const std::string_view base = t.name.substr(0, t.name.size() - kSuffixA.size());
    Pair& pair = pairs[base];
    pair.tensor = base;
    (is_a ? pair.a : pair.b) = &t;
  }
  if (pairs.empty())
    return make_error(ErrorCode::kCorrupt, "{}: an adapter without tensors", file->path());
  for (const auto& [base, pair] : pairs) {
    if (pair.a == nullptr || pair.b == nullptr) {
      const bool no_a = pair.a == nullptr;
      return bad_tensor(*file, ErrorCode::kCorrupt, (no_a ? pair.b : pair.a)->name,
                        fmt::format("stands alone: {} is missing", no_a ? "lora_a" : "lora_b"));
    }
    INFER_TRY(check_pair(*file, pair));
    out->pairs_.push_back(pair);
  }
  out->file_ = std::move(file);
  return std::shared_ptr<const Adapter>(std::move(out));
}

Result<void> attach_adapters(const gguf::Reader& model,
                             std::span<const std::shared_ptr<const Adapter>> adapters,
                             graph::Graph* graph) {
  if (adapters.size() > kMaxAdapters) {
    return make_error(ErrorCode::kUnsupported, "{} adapters: at most {} at once", adapters.size(),
                      kMaxAdapters);
  }
  graph->n_adapter = static_cast<int>(adapters.size());
  Attacher attacher(model, graph);
  for (size_t i = 0; i < adapters.size(); ++i)
    INFER_TRY(attacher.add(static_cast<int>(i), *adapters[i]));
  return {};
}

}  // namespace infer::model
