#pragma once

#include <cstdlib>
#include <filesystem>

/// Where tests find what is not in the repository. Tests run in the source root and skip, by name,
/// what is absent.
namespace infer::test {

/// Shared reference data: $INFER_SHARED, or "../shared" beside the source root.
inline std::filesystem::path shared_dir() {
  const char* dir = std::getenv("INFER_SHARED");
  return dir != nullptr && *dir != '\0' ? dir : "../shared";
}

inline bool has_shared() {
  std::error_code ec;
  return std::filesystem::is_directory(shared_dir() / "data", ec);
}

/// Real models: $INFER_MODELS, or the folder that ./demo downloads to.
inline std::filesystem::path models_dir() {
  if (const char* dir = std::getenv("INFER_MODELS"); dir != nullptr && *dir != '\0') return dir;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return std::filesystem::path(cache) / "infer" / "models";
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home != nullptr ? home : ".") / ".cache" / "infer" / "models";
}

}  // namespace infer::test
