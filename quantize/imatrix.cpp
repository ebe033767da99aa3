#include "quantize/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "gguf/mmap.h"
#include "gguf/writer.h"
#include "quantize/imatrix_file.h"

namespace infer::quantize {
namespace {

constexpr std::string_view kGgufMagic = "GGUF";

std::string shape_text(int64_t n_k, int64_t n_mat) {
  return n_mat == 1 ? fmt::format("{} columns", n_k)
                    : fmt::format("{} columns in {} matrices", n_k, n_mat);
}

/// What is wrong with sums and counts of one tensor; empty when nothing is.
std::string problem_of(const ImatrixEntry& e) {
  const auto n_mat = static_cast<int64_t>(e.n_tok.size());
  if (n_mat == 0 || e.n_k <= 0 || checked_mul(e.n_k, n_mat) != std::ssize(e.sum_sq))
    return fmt::format("{} sums for {}", e.sum_sq.size(), shape_text(e.n_k, n_mat));
  for (int64_t mat = 0; mat < n_mat; ++mat) {
    const int64_t n = e.n_tok[static_cast<size_t>(mat)];
    if (n < 0) return fmt::format("matrix {} was met by {} tokens", mat, n);
    for (int64_t i = mat * e.n_k; i < (mat + 1) * e.n_k; ++i) {
      const float sum = e.sum_sq[static_cast<size_t>(i)];
      if (!(sum >= 0.0f) || !std::isfinite(sum))
        return fmt::format("sum of squares {} is {}", i, sum);
      if (n == 0 && sum > 0.0f)
        return fmt::format("sum of squares {} is {}, but matrix {} was met by no token", i, sum,
                           mat);
    }
  }
  if (std::ranges::all_of(e.n_tok, [](int64_t n) { return n == 0; })) return "was met by no token";
  return "";
}

void update_means(ImatrixEntry* e) {
  e->mean_sq.resize(e->sum_sq.size());
  for (size_t i = 0; i < e->sum_sq.size(); ++i) {
    const int64_t n = e->n_tok[i / static_cast<size_t>(e->n_k)];
    e->mean_sq[i] =
        n == 0 ? 1.0f
               : static_cast<float>(static_cast<double>(e->sum_sq[i]) / static_cast<double>(n));
  }
}

}  // namespace

Result<Imatrix> Imatrix::parse(std::span<const std::byte> bytes, const std::string& name) {
  const bool is_gguf = bytes.size() >= kGgufMagic.size() &&
                       std::memcmp(bytes.data(), kGgufMagic.data(), kGgufMagic.size()) == 0;
  if (!is_gguf) return parse_legacy_imatrix(bytes, name);
  INFER_ASSIGN(const auto file, gguf::Reader::parse(bytes, name));
  return read_gguf_imatrix(*file);
}

Result<Imatrix> Imatrix::read(const std::string& path) {
  INFER_ASSIGN(const InputFile file, InputFile::open(path));
  if (file.size() == 0) return make_error(ErrorCode::kCorrupt, "{}: is empty", path);
  INFER_ASSIGN(const gguf::MappedFile mapped, gguf::MappedFile::map(file, path));
  return parse(mapped.bytes(), path);
}

Result<void> Imatrix::write(const std::string& out_path) const {
  constexpr int64_t kMaxU32 = std::numeric_limits<uint32_t>::max();
  const std::vector<std::string_view> names(datasets.begin(), datasets.end());
  INFER_ASSIGN(const auto out, gguf::Writer::create(out_path));
  INFER_TRY(out->add<std::string_view>(gguf::keys::kType, kImatrixType));
  INFER_TRY(out->add_strings(kImatrixDatasets, names));
  INFER_TRY(out->add<uint32_t>(kImatrixChunkCount,
                               static_cast<uint32_t>(std::clamp<int64_t>(n_chunk, 0, kMaxU32))));
  INFER_TRY(out->add<uint32_t>(kImatrixChunkSize,
                               static_cast<uint32_t>(std::clamp<int64_t>(chunk_tok, 0, kMaxU32))));
  for (const auto& [tensor, e] : entries) {
    if (const std::string problem = problem_of(e); !problem.empty())
      return make_error(ErrorCode::kInvalidArgument, "{}: tensor '{}': {}", out_path,
                        gguf::printable(tensor), problem);
    const auto n_mat = static_cast<int64_t>(e.n_tok.size());
    const int64_t sums[] = {e.n_k, n_mat};
    const int64_t counts[] = {1, n_mat};
    INFER_TRY(out->add_tensor(tensor + std::string(kSumsSuffix), DType::kF32, sums));
    INFER_TRY(out->add_tensor(tensor + std::string(kCountsSuffix), DType::kF32, counts));
  }
  INFER_TRY(out->begin());
  for (const auto& [tensor, e] : entries) {
    const std::vector<float> counts(e.n_tok.begin(), e.n_tok.end());
    INFER_TRY(out->write(std::as_bytes(std::span(e.sum_sq))));
    INFER_TRY(out->write(std::as_bytes(std::span(counts))));
  }
  return out->finish();
}

bool Imatrix::contains(std::string_view tensor) const {
  return entries.find(tensor) != entries.end();
}

std::span<const float> Imatrix::means(std::string_view tensor, int64_t mat) const {
  const auto it = entries.find(tensor);
  if (it == entries.end() || mat < 0 || mat >= std::ssize(it->second.n_tok)) return {};
  const ImatrixEntry& e = it->second;
  return std::span(e.mean_sq).subspan(static_cast<size_t>(mat * e.n_k), static_cast<size_t>(e.n_k));
}

Result<void> Imatrix::fit(std::string_view tensor, int64_t n_k, int64_t n_mat) {
  const auto it = entries.find(tensor);
  if (it == entries.end()) return {};
  ImatrixEntry& e = it->second;
  const auto have_mat = static_cast<int64_t>(e.n_tok.size());
  if (e.n_k == n_k && have_mat == n_mat) return {};
  const bool splits = have_mat == 1 && n_k > 0 && n_mat > 0 && checked_mul(n_k, n_mat) == e.n_k;
  if (!splits)
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: tensor '{}' has sums of {}, the model's tensor has {}", path,
                      gguf::printable(tensor), shape_text(e.n_k, have_mat), shape_text(n_k, n_mat));
  e.n_k = n_k;
  e.n_tok.assign(static_cast<size_t>(n_mat), e.n_tok[0]);
  return {};
}

Result<void> Imatrix::add(std::string_view tensor, const ImatrixEntry& more) {
  const auto fail = [&](const std::string& problem) {
    return make_error(ErrorCode::kInvalidArgument, "{}: tensor '{}': {}", path,
                      gguf::printable(tensor), problem);
  };
  if (std::string problem = problem_of(more); !problem.empty()) return fail(problem);
  const auto it = entries.find(tensor);
  if (it == entries.end()) {
    ImatrixEntry& made = entries[std::string(tensor)];
    made = more;
    update_means(&made);
    return {};
  }
  ImatrixEntry sum = it->second;
  if (sum.n_k != more.n_k || sum.n_tok.size() != more.n_tok.size())
    return fail(fmt::format("sums of {} and of {}", shape_text(sum.n_k, std::ssize(sum.n_tok)),
                            shape_text(more.n_k, std::ssize(more.n_tok))));
  for (size_t i = 0; i < sum.sum_sq.size(); ++i) sum.sum_sq[i] += more.sum_sq[i];
  for (size_t i = 0; i < sum.n_tok.size(); ++i) {
    const auto n = checked_add(sum.n_tok[i], more.n_tok[i]);
    if (!n) return fail("too many tokens");
    sum.n_tok[i] = *n;
  }
  if (std::string problem = problem_of(sum); !problem.empty()) return fail(problem);
  update_means(&sum);
  it->second = std::move(sum);
  return {};
}

Result<void> Imatrix::combine(const Imatrix& more) {
  if (chunk_tok <= 0)
    return make_error(ErrorCode::kInvalidArgument, "{}: tokens of a chunk are not known", path);
  int64_t most = 0;
  for (const auto& [tensor, e] : more.entries) {
    ImatrixEntry scaled = e;
    if (more.counts_chunks) {
      for (float& sum : scaled.sum_sq) sum *= static_cast<float>(chunk_tok);
      for (int64_t& n : scaled.n_tok) n *= chunk_tok;
    }
    // One side may not know how many matrices there are.
    const auto mine = entries.find(tensor);
    if (mine != entries.end() && scaled.n_tok.size() > 1)
      INFER_TRY(fit(tensor, scaled.n_k, std::ssize(scaled.n_tok)));
    if (mine != entries.end() && scaled.n_tok.size() == 1 && mine->second.n_tok.size() > 1 &&
        std::ssize(scaled.sum_sq) == std::ssize(mine->second.sum_sq)) {
      scaled.n_k = mine->second.n_k;
      scaled.n_tok.assign(mine->second.n_tok.size(), scaled.n_tok[0]);
    }
    if (Result<void> added = add(tensor, scaled); !added.ok())
      return make_error(added.error().code, "{}: {}", more.path, added.error().message);
  }
  for (const auto& [tensor, e] : entries)
    most = std::max(most, *std::max_element(e.n_tok.begin(), e.n_tok.end()));
  n_chunk = most / chunk_tok;
  datasets.insert(datasets.end(), more.datasets.begin(), more.datasets.end());
  return {};
}

}  // namespace infer::quantize
