#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "gguf/reader.h"

/// The header of one file: magic, version, counts, keys and values, tensor records. Every number in
/// it is checked here, against the format and against the size of the file; nothing behind this
/// trusts or re-reads them.
namespace infer::gguf {

// Limits of our own. They keep the memory for records small whatever a file claims: 2^16 keys take
// 6 MiB, 2^17 tensors 12 MiB. The largest models have some hundred keys and some thousand tensors.
inline constexpr uint64_t kMaxKeys = uint64_t{1} << 16;
inline constexpr uint64_t kMaxTensors = uint64_t{1} << 17;
inline constexpr uint64_t kMaxKeyBytes = 65535;      // the specification's limit
inline constexpr uint64_t kMaxTensorNameBytes = 63;  // ggml keeps 64 with a zero at the end
inline constexpr uint32_t kMaxDims = 4;
inline constexpr uint32_t kDefaultAlignment = 32;
inline constexpr uint32_t kMaxAlignment = uint32_t{1}
                                          << 20;  // huge pages halve here; files use 32, some 4096

struct ParsedHeader {
  uint32_t version = 0;
  int64_t alignment = kDefaultAlignment;
  int64_t header_bytes = 0;         ///< up to the end of the last tensor record
  int64_t data_begin = 0;           ///< header_bytes rounded up to the alignment
  std::vector<KeyValue> kvs;        ///< in file order
  std::vector<uint32_t> kv_order;   ///< indices of kvs, sorted by key
  std::vector<TensorInfo> tensors;  ///< in file order; view.data is null
};

/// `bytes` is the start of a file of file_bytes bytes, or all of it; keys, names and values point
/// into it. `file` is named in errors. Without need_data the tensors may lie past the end of the
/// file (one cut off after its header); all else is checked all the same. Errors: kCorrupt,
/// kUnsupported.
Result<ParsedHeader> parse_header(std::span<const std::byte> bytes, int64_t file_bytes,
                                  std::string_view file, bool need_data);

}  // namespace infer::gguf
