#include "gguf/reader.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/describe.h"
#include "gguf/keys.h"
#include "gguf/mmap.h"
#include "gguf/overrides.h"
#include "gguf/parse.h"
#include "gguf/split.h"

namespace infer::gguf {
namespace {

/// One file of a model: either mapped, or its header and its tensor data apart in memory, or bytes
/// of the caller's.
struct Shard {
  std::string path;
  MappedFile map;
  AlignedBytes header;
  AlignedBytes data;  // with a map: only the tensors whose place in the file is not aligned
  ParsedHeader parsed;
  int64_t file_bytes = 0;
};

bool is_aligned(const std::byte* p) { return reinterpret_cast<uintptr_t>(p) % kTensorAlign == 0; }

/// Points the tensors at `bytes` (the whole file) and copies those that are not aligned there.
Result<void> bind_in_place(Shard& shard, std::span<const std::byte> bytes) {
  int64_t copied = 0;
  for (TensorInfo& t : shard.parsed.tensors) {
    t.view.data = bytes.data() + shard.parsed.data_begin + t.offset;
    if (!is_aligned(t.view.data)) copied += align_up(t.view.n_bytes, kTensorAlign);
  }
  if (copied == 0) return {};
  INFER_ASSIGN(shard.data, allocate_aligned(copied, shard.path));
  std::byte* to = shard.data.get();
  for (TensorInfo& t : shard.parsed.tensors) {
    if (is_aligned(t.view.data)) continue;
    std::memcpy(to, t.view.data, static_cast<size_t>(t.view.n_bytes));
    t.view.data = to;
    to += align_up(t.view.n_bytes, kTensorAlign);
  }
  return {};
}

/// Reads header and tensor data into memory of their own. `shard.parsed` comes from a map that goes
/// away afterwards.
Result<void> bind_in_memory(Shard& shard, const InputFile& file, bool huge_pages) {
  const int64_t header_bytes = shard.parsed.header_bytes;
  INFER_ASSIGN(shard.header, allocate_aligned(header_bytes, shard.path));
  const std::span<std::byte> header(shard.header.get(), static_cast<size_t>(header_bytes));
  INFER_TRY(file.read_at(0, header));
  INFER_ASSIGN(shard.parsed, parse_header(header, file.size(), shard.path, /*need_data=*/true));

  int64_t total = 0;
  for (const TensorInfo& t : shard.parsed.tensors) total += align_up(t.view.n_bytes, kTensorAlign);
  if (total == 0) return {};
  INFER_ASSIGN(shard.data, allocate_aligned(total, shard.path));
  if (huge_pages) advise_huge(shard.data.get(), total);
  std::byte* to = shard.data.get();
  for (TensorInfo& t : shard.parsed.tensors) {
    INFER_TRY(file.read_at(shard.parsed.data_begin + t.offset,
                           {to, static_cast<size_t>(t.view.n_bytes)}));
    t.view.data = to;
    to += align_up(t.view.n_bytes, kTensorAlign);
  }
  return {};
}

Result<Shard> open_shard(const std::string& path, const ReadOptions& options) {
  Shard shard;
  shard.path = path;
  INFER_ASSIGN(const InputFile file, InputFile::open(path));
  shard.file_bytes = file.size();
  INFER_ASSIGN(MappedFile map, MappedFile::map(file, path, options.huge_pages));
  INFER_ASSIGN(shard.parsed, parse_header(map.bytes(), file.size(), path, !options.header_only));
  if (options.header_only) {
    shard.map = std::move(map);
  } else if (options.use_mmap) {
    shard.map = std::move(map);
    INFER_TRY(bind_in_place(shard, shard.map.bytes()));
  } else {
    INFER_TRY(bind_in_memory(shard, file, options.huge_pages));
  }
  return shard;
}

}  // namespace

struct Reader::Impl {
  std::vector<Shard> shards;
  std::vector<TensorInfo> tensors;     // of all shards
  std::vector<uint32_t> tensor_order;  // indices of tensors, sorted by name
  int64_t file_bytes = 0;
  bool mmapped = false;
  OverrideStorage overridden;

  const Shard& first() const { return shards.front(); }
  Result<void> add_shard(Shard shard);
  Result<void> open_siblings(const std::string& path, const ReadOptions& options);
  Result<void> sort_tensors();
  Error wrong_type(std::string_view key, const Value& value, std::string_view wanted) const {
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' is {}, {} is expected", first().path,
                      printable(key), describe(value), wanted);
  }
  Error missing(std::string_view key) const {
    return make_error(ErrorCode::kNotFound, "{}: key '{}' is missing", first().path,
                      printable(key));
  }
};

Result<void> Reader::Impl::add_shard(Shard shard) {
  const int index = static_cast<int>(shards.size());
  if (tensors.size() + shard.parsed.tensors.size() > kMaxTensors) {
    return make_error(ErrorCode::kCorrupt, "{}: the files up to this one have more than {} tensors",
                      shard.path, kMaxTensors);
  }
  for (TensorInfo& t : shard.parsed.tensors) t.shard = index;
  tensors.insert(tensors.end(), shard.parsed.tensors.begin(), shard.parsed.tensors.end());
  shard.parsed.tensors = {};
  if (index > 0) shard.parsed.kvs = {};
  file_bytes += shard.file_bytes;
  shards.push_back(std::move(shard));
  return {};
}

Result<void> Reader::Impl::open_siblings(const std::string& path, const ReadOptions& options) {
  INFER_ASSIGN(const SplitInfo split, read_split_info(first().parsed.kvs, path));
  if (split.count <= 1) return {};
  INFER_ASSIGN(const std::string prefix, split_prefix(path, split.no, split.count));
  if (split.no != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: is file {} of {} of a split model; open the first, {}", path,
                      split.no + 1, split.count, split_path(prefix, 0, split.count));
  }
  for (int64_t i = 1; i < split.count; ++i) {
    const std::string sibling = split_path(prefix, i, split.count);
    INFER_ASSIGN(Shard shard, open_shard(sibling, options));
    INFER_ASSIGN(const SplitInfo other, read_split_info(shard.parsed.kvs, sibling));
    if (other.no != i || other.count != split.count || other.n_tensors != split.n_tensors) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: {} = {}, {} = {}, {} = {}; expected {}, {} and {}", sibling,
                        keys::kSplitNo, other.no, keys::kSplitCount, other.count,
                        keys::kSplitTensorsCount, other.n_tensors, i, split.count, split.n_tensors);
    }
    INFER_TRY(add_shard(std::move(shard)));
  }
  if (static_cast<int64_t>(tensors.size()) != split.n_tensors) {
    return make_error(ErrorCode::kCorrupt, "{}: key '{}' = {}, but the {} files hold {} tensors",
                      path, keys::kSplitTensorsCount, split.n_tensors, split.count, tensors.size());
  }
  return {};
}

Result<void> Reader::Impl::sort_tensors() {
  tensor_order.resize(tensors.size());
  std::iota(tensor_order.begin(), tensor_order.end(), 0u);
  std::sort(tensor_order.begin(), tensor_order.end(), [&](uint32_t a, uint32_t b) {
    const auto &x = tensors[a].name, &y = tensors[b].name;
    return x != y ? x < y : a < b;
  });
  for (size_t i = 1; i < tensor_order.size(); ++i) {
    const TensorInfo &a = tensors[tensor_order[i - 1]], &b = tensors[tensor_order[i]];
    if (a.name == b.name) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor name '{}' occurs in {} too",
                        shards[static_cast<size_t>(b.shard)].path, printable(b.name),
                        shards[static_cast<size_t>(a.shard)].path);
    }
  }
  return {};
}

Reader::Reader() : impl_(std::make_unique<Impl>()) {}
Reader::~Reader() = default;

Result<std::shared_ptr<const Reader>> Reader::open(const std::string& path,
                                                   const ReadOptions& options) {
  std::shared_ptr<Reader> reader(new Reader);
  Impl& impl = *reader->impl_;
  INFER_ASSIGN(Shard shard, open_shard(path, options));
  impl.mmapped = shard.map.is_mapped();
  INFER_TRY(impl.add_shard(std::move(shard)));
  if (options.all_shards) INFER_TRY(impl.open_siblings(path, options));
  INFER_TRY(impl.sort_tensors());
  INFER_TRY(
      apply_overrides(options.overrides, path, &impl.shards.front().parsed, &impl.overridden));
  return std::shared_ptr<const Reader>(std::move(reader));
}

Result<std::shared_ptr<const Reader>> Reader::parse(std::span<const std::byte> bytes,
                                                    std::string name, const ReadOptions& options) {
  std::shared_ptr<Reader> reader(new Reader);
  Shard shard;
  shard.path = std::move(name);
  shard.file_bytes = static_cast<int64_t>(bytes.size());
  INFER_ASSIGN(shard.parsed,
               parse_header(bytes, shard.file_bytes, shard.path, !options.header_only));
  if (!options.header_only) INFER_TRY(bind_in_place(shard, bytes));
  Impl& impl = *reader->impl_;
  INFER_TRY(impl.add_shard(std::move(shard)));
  INFER_TRY(impl.sort_tensors());
  INFER_TRY(apply_overrides(options.overrides, impl.first().path, &impl.shards.front().parsed,
                            &impl.overridden));
  return std::shared_ptr<const Reader>(std::move(reader));
}

const std::string& Reader::path() const { return impl_->first().path; }
uint32_t Reader::version() const { return impl_->first().parsed.version; }
int64_t Reader::alignment() const { return impl_->first().parsed.alignment; }
int64_t Reader::file_bytes() const { return impl_->file_bytes; }
int Reader::n_shards() const { return static_cast<int>(impl_->shards.size()); }
bool Reader::is_mmapped() const { return impl_->mmapped; }
std::span<const KeyValue> Reader::kvs() const { return impl_->first().parsed.kvs; }
std::span<const TensorInfo> Reader::tensors() const { return impl_->tensors; }

const Value* Reader::find(std::string_view key) const {
  const ParsedHeader& p = impl_->first().parsed;
  const auto it =
      std::lower_bound(p.kv_order.begin(), p.kv_order.end(), key,
                       [&](uint32_t i, std::string_view k) { return p.kvs[i].key < k; });
  if (it == p.kv_order.end() || p.kvs[*it].key != key) return nullptr;
  return &p.kvs[*it].value;
}

const TensorInfo* Reader::find_tensor(std::string_view name) const {
  const auto& order = impl_->tensor_order;
  const auto it =
      std::lower_bound(order.begin(), order.end(), name,
                       [&](uint32_t i, std::string_view n) { return impl_->tensors[i].name < n; });
  if (it == order.end() || impl_->tensors[*it].name != name) return nullptr;
  return &impl_->tensors[*it];
}

Result<int64_t> Reader::get_int(std::string_view key) const {
  const Value* v = find(key);
  if (v == nullptr) return impl_->missing(key);
  Result<int64_t> r = v->as_int();
  return r.ok() ? r : impl_->wrong_type(key, *v, "an integer of 63 bits");
}

Result<int64_t> Reader::get_int(std::string_view key, int64_t fallback) const {
  if (find(key) == nullptr) return fallback;
  return get_int(key);
}

Result<double> Reader::get_float(std::string_view key) const {
  const Value* v = find(key);
  if (v == nullptr) return impl_->missing(key);
  Result<double> r = v->as_float();
  return r.ok() ? r : impl_->wrong_type(key, *v, "a number");
}

Result<double> Reader::get_float(std::string_view key, double fallback) const {
  if (find(key) == nullptr) return fallback;
  return get_float(key);
}

Result<bool> Reader::get_bool(std::string_view key, bool fallback) const {
  const Value* v = find(key);
  if (v == nullptr) return fallback;
  Result<bool> r = v->as_bool();
  return r.ok() ? r : impl_->wrong_type(key, *v, "a bool");
}

Result<std::string_view> Reader::get_string(std::string_view key) const {
  const Value* v = find(key);
  if (v == nullptr) return impl_->missing(key);
  Result<std::string_view> r = v->as_string();
  return r.ok() ? r : impl_->wrong_type(key, *v, "a string");
}

Result<std::string_view> Reader::get_string(std::string_view key, std::string_view fallback) const {
  if (find(key) == nullptr) return fallback;
  return get_string(key);
}

void Reader::release_pages(const TensorInfo& tensor) const {
  INFER_CHECK(tensor.shard >= 0 && tensor.shard < n_shards(), "shard {} of {}", tensor.shard,
              n_shards());
  impl_->shards[static_cast<size_t>(tensor.shard)].map.release(
      {tensor.view.data, static_cast<size_t>(tensor.view.n_bytes)});
}

void Reader::release_pages(const TensorInfo& tensor, int64_t offset, int64_t n_bytes) const {
  INFER_CHECK(tensor.shard >= 0 && tensor.shard < n_shards(), "shard {} of {}", tensor.shard,
              n_shards());
  INFER_CHECK(offset >= 0 && n_bytes >= 0 && offset <= tensor.view.n_bytes - n_bytes,
              "bytes {} + {} of {}", offset, n_bytes, tensor.view.n_bytes);
  impl_->shards[static_cast<size_t>(tensor.shard)].map.release_around(
      {tensor.view.data + offset, static_cast<size_t>(n_bytes)});
}

const std::string& Reader::shard_path(int shard) const {
  INFER_CHECK(shard >= 0 && shard < n_shards(), "shard {} of {}", shard, n_shards());
  return impl_->shards[static_cast<size_t>(shard)].path;
}

}  // namespace infer::gguf
