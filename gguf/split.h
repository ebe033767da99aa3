#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/base/result.h"
#include "gguf/reader.h"

/// Models split over files "<prefix>-00001-of-00003.gguf", as llama.cpp names and marks them: the
/// first holds all keys, every one split.no (from 0), split.count and split.tensors.count (of all
/// files together).
namespace infer::gguf {

struct SplitInfo {
  int64_t no = 0;
  int64_t count = 0;  ///< 0 or 1: not split
  int64_t n_tensors = 0;
};

/// The split.* keys of one file; a file without them is not split. Errors: kCorrupt.
Result<SplitInfo> read_split_info(std::span<const KeyValue> kvs, const std::string& path);

/// "<prefix>-00001-of-00003.gguf" for no = 0, count = 3.
std::string split_path(const std::string& prefix, int64_t no, int64_t count);
/// The prefix of a path that must name file `no` of `count`. Errors: kCorrupt.
Result<std::string> split_prefix(const std::string& path, int64_t no, int64_t count);

struct SplitOptions {
  int64_t max_tensors = 0;  ///< in one file; 0: no limit
  /// Of padded tensor data in one file, unless one tensor alone is larger; 0: no limit.
  int64_t max_bytes = 0;
};

/// Writes the model in files `<prefix>-0000I-of-0000N.gguf` and gives N. Errors: those of Writer.
Result<int64_t> write_split(const Reader& in, const std::string& prefix,
                            const SplitOptions& options);
/// Writes all shards as one file, without the split.* keys.
Result<void> write_merged(const Reader& in, const std::string& path);

}  // namespace infer::gguf
