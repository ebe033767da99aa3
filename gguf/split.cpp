#include "gguf/split.h"

#include <cstdio>
#include <string_view>
#include <vector>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "gguf/writer.h"

namespace infer::gguf {
namespace {

constexpr int64_t kMaxSplits = 65535;  // split.count is a u16

const Value* find(std::span<const KeyValue> kvs, std::string_view key) {
  for (const KeyValue& kv : kvs) {
    if (kv.key == key) return &kv.value;
  }
  return nullptr;
}

Result<int64_t> split_key(std::span<const KeyValue> kvs, std::string_view key, int64_t max,
                          const std::string& path) {
  const Value* v = find(kvs, key);
  if (v == nullptr)
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' is missing in a split file", path, key);
  const Result<int64_t> i = v->as_int();
  if (!i.ok() || *i < 0 || *i > max) {
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' is {}, 0 to {} is expected", path, key,
                      describe(*v), max);
  }
  return *i;
}

bool is_split_key(std::string_view key) {
  return key == keys::kSplitNo || key == keys::kSplitCount || key == keys::kSplitTensorsCount;
}

Result<void> copy_keys(const Reader& in, Writer& out) {
  for (const KeyValue& kv : in.kvs()) {
    if (!is_split_key(kv.key)) INFER_TRY(out.add(kv));
  }
  return {};
}

Result<void> copy_tensors(const Reader& in, std::span<const TensorInfo> tensors, Writer& out) {
  for (const TensorInfo& t : tensors) {
    INFER_TRY(out.add_tensor(t.name, t.view.type,
                             std::span(t.view.ne).first(static_cast<size_t>(t.n_dims))));
  }
  INFER_TRY(out.begin());
  for (const TensorInfo& t : tensors) {
    INFER_TRY(out.write({t.view.data, static_cast<size_t>(t.view.n_bytes)}));
    in.release_pages(t);
  }
  return out.finish();
}

Result<void> write_shard(const Reader& in, std::span<const TensorInfo> tensors,
                         const std::string& prefix, int64_t no, int64_t count) {
  INFER_ASSIGN(auto out, Writer::create(split_path(prefix, no, count)));
  if (no == 0) {
    INFER_TRY(copy_keys(in, *out));
  } else if (const Value* alignment = in.find(keys::kAlignment)) {
    INFER_TRY(out->add({keys::kAlignment, *alignment}));
  }
  INFER_TRY(out->add<uint16_t>(keys::kSplitNo, static_cast<uint16_t>(no)));
  INFER_TRY(out->add<uint16_t>(keys::kSplitCount, static_cast<uint16_t>(count)));
  INFER_TRY(out->add<int32_t>(keys::kSplitTensorsCount, static_cast<int32_t>(in.tensors().size())));
  return copy_tensors(in, tensors, *out);
}

/// Index of the first tensor of every file.
std::vector<size_t> plan_splits(const Reader& in, const SplitOptions& options) {
  std::vector<size_t> begins{0};
  int64_t n_tensors = 0;
  int64_t n_bytes = 0;
  for (size_t i = 0; i < in.tensors().size(); ++i) {
    const int64_t padded = align_up(in.tensors()[i].view.n_bytes, in.alignment());
    const bool full = (options.max_tensors > 0 && n_tensors >= options.max_tensors) ||
                      (options.max_bytes > 0 && n_bytes + padded > options.max_bytes);
    if (full && n_tensors > 0) {
      begins.push_back(i);
      n_tensors = 0;
      n_bytes = 0;
    }
    ++n_tensors;
    n_bytes += padded;
  }
  return begins;
}

}  // namespace

Result<SplitInfo> read_split_info(std::span<const KeyValue> kvs, const std::string& path) {
  SplitInfo info;
  if (find(kvs, keys::kSplitCount) == nullptr) {
    if (find(kvs, keys::kSplitNo) == nullptr) return info;
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' is there, '{}' is missing", path,
                      keys::kSplitNo, keys::kSplitCount);
  }
  INFER_ASSIGN(info.count, split_key(kvs, keys::kSplitCount, kMaxSplits, path));
  if (info.count <= 1) return info;
  INFER_ASSIGN(info.no, split_key(kvs, keys::kSplitNo, info.count - 1, path));
  INFER_ASSIGN(info.n_tensors, split_key(kvs, keys::kSplitTensorsCount, INT32_MAX, path));
  return info;
}

std::string split_path(const std::string& prefix, int64_t no, int64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, no + 1, count);
}

Result<std::string> split_prefix(const std::string& path, int64_t no, int64_t count) {
  const std::string ending = split_path("", no, count);
  if (path.size() <= ending.size() || !std::string_view(path).ends_with(ending)) {
    return make_error(ErrorCode::kCorrupt,
                      "{}: is file {} of {} of a split model, its name must end in '{}'", path,
                      no + 1, count, ending);
  }
  return path.substr(0, path.size() - ending.size());
}

Result<int64_t> write_split(const Reader& in, const std::string& prefix,
                            const SplitOptions& options) {
  const std::vector<size_t> begins = plan_splits(in, options);
  const auto count = static_cast<int64_t>(begins.size());
  const size_t n_tensors = in.tensors().size();
  if (count > kMaxSplits) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: would become {} files, at most {} are allowed", in.path(), count,
                      kMaxSplits);
  }
  for (int64_t no = 0; no < count; ++no) {
    const size_t from = begins[static_cast<size_t>(no)];
    const size_t to = no + 1 < count ? begins[static_cast<size_t>(no) + 1] : n_tensors;
    const Result<void> written =
        write_shard(in, in.tensors().subspan(from, to - from), prefix, no, count);
    if (written.ok()) continue;
    // A part of a split model is of no use.
    for (int64_t i = 0; i < no; ++i) std::remove(split_path(prefix, i, count).c_str());
    return written.error();
  }
  return count;
}

Result<void> write_merged(const Reader& in, const std::string& path) {
  INFER_ASSIGN(auto out, Writer::create(path));
  INFER_TRY(copy_keys(in, *out));
  return copy_tensors(in, in.tensors(), *out);
}

}  // namespace infer::gguf
