#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/input_file.h"

namespace infer::test {

/// Errors: kNotFound, kIo.
inline Result<std::vector<std::byte>> read_file(const std::filesystem::path& path) {
  INFER_ASSIGN(const InputFile file, InputFile::open(path.string()));
  std::vector<std::byte> bytes(static_cast<size_t>(file.size()));
  INFER_TRY(file.read_at(0, bytes));
  return bytes;
}

/// Errors: kNotFound, kIo, kCorrupt (not JSON).
inline Result<nlohmann::json> read_json(const std::filesystem::path& path) {
  INFER_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  nlohmann::json root =
      nlohmann::json::parse(text, text + bytes.size(), nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return make_error(ErrorCode::kCorrupt, "{}: not JSON", path.string());
  return root;
}

}  // namespace infer::test
