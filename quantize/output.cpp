#include "quantize/output.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <filesystem>

#include "core/base/checked.h"
#include "core/base/error.h"
#include "gguf/keys.h"
#include "gguf/split.h"

namespace infer::quantize {
namespace {

/// Also a file that a link in the folder leads to, as in Hugging Face's cache.
bool is_in_folder(const struct stat& file, const std::string& folder) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ec)) {
    struct stat s {};
    if (::stat(entry.path().c_str(), &s) == 0 && s.st_dev == file.st_dev && s.st_ino == file.st_ino)
      return !entry.path().native().ends_with(".gguf");
  }
  return false;
}

Result<void> check_other_file(const gguf::Reader& model, const std::string& path) {
  struct stat out {};
  if (::stat(path.c_str(), &out) != 0) return {};
  for (int i = 0; i < model.n_shards(); ++i) {
    struct stat in {};
    const std::string& from = model.shard_path(i);
    if (::stat(from.c_str(), &in) != 0) continue;
    if (S_ISDIR(in.st_mode) && is_in_folder(out, from))
      return make_error(ErrorCode::kInvalidArgument, "{}: is a file of the input", path);
    if (in.st_dev == out.st_dev && in.st_ino == out.st_ino)
      return make_error(ErrorCode::kInvalidArgument, "{}: is the input", path);
  }
  return {};
}

Result<void> check_space(const std::string& path, int64_t needed) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  struct statvfs disk {};
  if (::statvfs(folder.empty() ? "." : folder.c_str(), &disk) != 0 || disk.f_blocks == 0)
    return {};  // what is wrong with the folder shows when the file is made
  const auto free = checked_mul<uint64_t>(disk.f_bavail, disk.f_frsize);
  if (!free || *free >= static_cast<uint64_t>(needed)) return {};
  return make_error(ErrorCode::kIo, "{}: the disk is too full: {} bytes are needed, {} are free",
                    path, needed, *free);
}

Result<void> write_split_keys(int64_t no, const gguf::Reader& model, gguf::HeaderBuilder* out) {
  const gguf::Value* alignment = model.find(gguf::keys::kAlignment);
  if (no > 0 && alignment != nullptr) INFER_TRY(out->add({gguf::keys::kAlignment, *alignment}));
  INFER_TRY(out->add<uint16_t>(gguf::keys::kSplitNo, static_cast<uint16_t>(no)));
  INFER_TRY(out->add<uint16_t>(gguf::keys::kSplitCount, static_cast<uint16_t>(model.n_shards())));
  return out->add<int32_t>(gguf::keys::kSplitTensorsCount,
                           static_cast<int32_t>(model.tensors().size()));
}

}  // namespace

std::vector<std::string> output_paths(const gguf::Reader& model, const std::string& path,
                                      bool keep_split) {
  const int64_t n = model.n_shards();
  if (!keep_split || n < 2) return {path};
  constexpr std::string_view kEnding = ".gguf";
  std::string prefix = path;
  if (const auto named = gguf::split_prefix(path, 0, n); named.ok())
    prefix = *named;
  else if (prefix.ends_with(kEnding))
    prefix.resize(prefix.size() - kEnding.size());
  std::vector<std::string> paths;
  for (int64_t i = 0; i < n; ++i) paths.push_back(gguf::split_path(prefix, i, n));
  return paths;
}

Result<Output> Output::create(const gguf::Reader& model, const Plan& plan, const Options& options) {
  const bool split = options.paths.size() > 1;
  int64_t needed = 0;
  for (const PlanEntry& e : plan.entries) {
    const auto padded = checked_align_up(e.to_bytes, model.alignment());
    const auto sum = padded ? checked_add(needed, *padded) : std::nullopt;
    if (!sum) return make_error(ErrorCode::kUnsupported, "{}: would be too large", plan.path);
    needed = *sum;
  }
  for (const std::string& path : options.paths) INFER_TRY(check_other_file(model, path));
  INFER_TRY(check_space(options.paths.front(), needed));
  Output out;
  for (const std::string& path : options.paths) {
    INFER_ASSIGN(auto file, gguf::Writer::create(path));
    const auto no = static_cast<int64_t>(out.files_.size());
    if (no == 0) INFER_TRY(write_keys(model, options.keys, file.get()));
    if (split) INFER_TRY(write_split_keys(no, model, file.get()));
    out.files_.push_back(std::move(file));
  }
  std::vector<size_t> n_tensors(out.files_.size());
  for (const PlanEntry& e : plan.entries) {
    const size_t file = split ? static_cast<size_t>(e.shard) : 0;
    INFER_TRY(out.files_[file]->add_tensor(e.name, e.to.type, e.shape));
    out.places_.push_back({file, n_tensors[file]++});
  }
  for (const auto& file : out.files_) INFER_TRY(file->begin_in_place());
  return out;
}

Result<void> Output::write_at(size_t index, int64_t offset, std::span<const std::byte> bytes) {
  const Place& p = places_[index];
  return files_[p.file]->write_at(p.tensor, offset, bytes);
}

Result<void> Output::finish() {
  for (const auto& file : files_) INFER_TRY(file->finish());
  return {};
}

int64_t Output::file_bytes() const {
  int64_t n = 0;
  for (const auto& file : files_) n += file->bytes_written();
  return n;
}

}  // namespace infer::quantize
