#include "backends/cuda/weights.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <thread>
#include <vector>

#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/cpu_features.h"
#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "kernels/cpu/dispatch.h"

namespace infer::cuda {
namespace {

using graph::Weight;
using graph::WeightId;

constexpr int64_t kUploadBytes = int64_t{16} << 20;

/// Enough to repack as fast as memory and the bus take it.
int repacking_threads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 4u));
}

/// Scalar decoders: vectors are short, and the same bits on every machine.
const kern::CpuKernels& decoders() {
  static const kern::CpuKernels table =
      kern::select_kernels(detect_cpu_features(), "generic").value();
  return table;
}

/// Bytes of a matrix, or of all its experts, in the device's layout.
std::optional<int64_t> matrix_bytes(const Weight& w) {
  const WeightLayout layout = weight_layout(w.view.type);
  INFER_CHECK(layout.n_plane > 0 && w.k() % layout.block_len == 0, "supports() let '{}' pass",
              w.name);
  // The planes hold the file's bytes and at most a plane's padding each.
  const auto padding = checked_mul<int64_t>(w.n_expert(), kMaxPlanes * kPlaneAlign);
  if (!padding || !checked_add(*padding, w.view.n_bytes)) return std::nullopt;
  return w.n_expert() * plane_offset(layout, layout.n_plane, w.n(), w.k());
}

bool is_matrix_of(const graph::Op& op, WeightId id) {
  if (const auto* embed = std::get_if<graph::EmbedAttrs>(&op.attrs)) return id == embed->table;
  if (const auto* linear = std::get_if<graph::LinearAttrs>(&op.attrs))
    return std::any_of(linear->items.begin(), linear->items.end(),
                       [&](const graph::LinearItem& item) { return item.weight == id; });
  return std::holds_alternative<graph::MoeLinearAttrs>(op.attrs);
}

}  // namespace

bool decodes(DType type) { return decoders().decode_row[static_cast<size_t>(type)] != nullptr; }

Result<WeightPlan> plan_weights(const graph::Graph& graph, const graph::StagePlan& plan) {
  WeightPlan out;
  for (int i = plan.op_begin; i < plan.op_end; ++i) {
    const graph::Op& op = graph.ops[static_cast<size_t>(i)];
    for_each_weight(op, [&](WeightId id) { out.places[id].is_matrix |= is_matrix_of(op, id); });
  }
  std::optional<int64_t> end = 0;
  for (auto& [id, place] : out.places) {
    const Weight& w = graph.weights[static_cast<size_t>(id)];
    const auto bytes =
        place.is_matrix ? matrix_bytes(w) : checked_mul<int64_t>(w.view.n_elem(), sizeof(float));
    const auto padded = bytes ? checked_align_up(*bytes, kPartAlign) : std::nullopt;
    place.offset = *end;
    place.n_bytes = bytes.value_or(0);
    end = padded ? checked_add(*end, *padded) : std::nullopt;
    if (!end)
      return make_error(ErrorCode::kOutOfMemory, "cuda: the weights up to '{}' are too large",
                        w.name);
    out.file_bytes += w.view.n_bytes;
    const int64_t row = w.view.n_bytes / (w.n() * w.n_expert()) + kMaxPlanes * kPlaneAlign;
    const int64_t whole = place.n_bytes + kMaxPlanes * kPlaneAlign;
    out.upload_bytes =
        std::max(out.upload_bytes, std::clamp(whole, row, std::max(row, kUploadBytes)));
  }
  out.n_bytes = *end;
  return out;
}

Result<StageWeights> StageWeights::load(const graph::Graph& graph, WeightPlan plan,
                                        const runtime::CompileOptions& options, Upload& upload) {
  StageWeights weights;
  INFER_ASSIGN(weights.memory_, DeviceBuffer::allocate(plan.n_bytes, "the weights"));
  weights.plan_ = std::move(plan);
  ThreadPool threads({.n_threads = repacking_threads()});
  int64_t done = 0;
  for (const auto& [id, place] : weights.plan_.places) {
    const Weight& w = graph.weights[static_cast<size_t>(id)];
    INFER_TRY(place.is_matrix ? weights.load_matrix(w, place, upload, threads)
                              : weights.load_vector(w, place, upload));
    if (options.weight_copied) options.weight_copied(id);
    done += w.view.n_bytes;
    if (options.progress) options.progress(done, weights.plan_.file_bytes);
  }
  INFER_TRY(upload.finish());
  return weights;
}

/// As many rows at a time as a buffer holds, repacked as a matrix of their own, each plane to its
/// place.
Result<void> StageWeights::load_matrix(const Weight& w, const WeightPlan::Place& place,
                                       Upload& upload, ThreadPool& threads) {
  const WeightLayout layout = weight_layout(w.view.type);
  const int64_t n = w.n();
  const int64_t k = w.k();
  const int64_t row_blocks = k / layout.block_len;
  const int64_t row = w.view.n_bytes / (n * w.n_expert());
  const int64_t padding = (layout.n_plane - 1) * kPlaneAlign;
  const int64_t rows = std::max<int64_t>(1, (upload.buffer_bytes() - padding) / row);
  INFER_CHECK(rows * row + padding <= upload.buffer_bytes(), "a row of {} bytes", row);
  for (int64_t i = 0; i < n * w.n_expert(); i += std::min(rows, n - i % n)) {
    const int64_t begin = i % n;
    const int64_t n_row = std::min(rows, n - begin);
    std::byte* const matrix =
        memory_.data() + place.offset + i / n * plane_offset(layout, layout.n_plane, n, k);
    INFER_ASSIGN(std::byte* const staged, upload.begin());
    const int64_t part = ceil_div<int64_t>(n_row, threads.n_threads());
    threads.for_each(ceil_div(n_row, part), [&](int64_t task, int) {
      const int64_t from = task * part;
      repack_rows(layout, w.view.data + (i + from) * row, n_row, k, from,
                  std::min(from + part, n_row), staged);
    });
    for (int p = 0; p < layout.n_plane; ++p) {
      const int64_t plane_row = row_blocks * layout.plane_bytes[p];
      INFER_TRY(upload.copy(matrix + plane_offset(layout, p, n, k) + begin * plane_row,
                            staged + plane_offset(layout, p, n_row, k), n_row * plane_row));
    }
    INFER_TRY(upload.end());
  }
  return {};
}

Result<void> StageWeights::load_vector(const Weight& w, const WeightPlan::Place& place,
                                       Upload& upload) {
  const auto decode = decoders().decode_row[static_cast<size_t>(w.view.type)];
  INFER_CHECK(decode != nullptr, "supports() let '{}' pass", w.name);
  std::vector<float> values(static_cast<size_t>(w.view.n_elem()));
  decode(w.view.data, w.view.n_elem(), values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return make_error(ErrorCode::kCorrupt, "tensor '{}'[{}] = {}: not a finite number", w.name, i,
                        values[i]);
    }
  }
  return upload.send(memory_.data() + place.offset, values.data(), place.n_bytes);
}

Matrix StageWeights::matrix(const graph::Graph& graph, WeightId id) const {
  const WeightPlan::Place& place = plan_.places.at(id);
  const Weight& w = graph.weights[static_cast<size_t>(id)];
  const std::byte* data = memory_.data() + place.offset;
  if (!place.is_matrix) return make_matrix(DType::kF32, w.n(), w.k(), 1, data);
  return make_matrix(w.view.type, w.n(), w.k(), w.n_expert(), data);
}

const float* StageWeights::vector(WeightId id) const {
  if (id == graph::kNoWeight) return nullptr;
  const WeightPlan::Place& place = plan_.places.at(id);
  INFER_CHECK(!place.is_matrix, "weight {} is a matrix", id);
  return reinterpret_cast<const float*>(memory_.data() + place.offset);
}

}  // namespace infer::cuda
