#include "quantize/convert/hf_tokenizer_files.h"

#include <filesystem>
#include <fstream>
#include <utility>

#include "core/base/error.h"

namespace infer::quantize {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kMaxFile = uintmax_t{256} << 20;
constexpr size_t kMaxTemplates = 64;

/// Nothing if there is no such file.
Result<std::optional<std::string>> read_if_there(const fs::path& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) return std::optional<std::string>();
  const uintmax_t size = fs::file_size(path, ec);
  if (ec) return make_error(ErrorCode::kIo, "{}: {}", path.string(), ec.message());
  if (size > kMaxFile) {
    return make_error(ErrorCode::kUnsupported, "{}: {} bytes, the limit is {}", path.string(), size,
                      kMaxFile);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(size), '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file || file.gcount() != static_cast<std::streamsize>(size))
    return make_error(ErrorCode::kIo, "{}: cannot be read", path.string());
  return std::optional(std::move(text));
}

Result<void> read_more_templates(const fs::path& folder, HfTokenizerFiles& out) {
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().extension() != ".jinja" || out.more_templates.size() >= kMaxTemplates) continue;
    INFER_ASSIGN(auto text, read_if_there(it->path()));
    if (text) out.more_templates[it->path().stem().string()] = *std::move(text);
  }
  return {};
}

}  // namespace

Result<HfTokenizerFiles> read_tokenizer_files(const std::string& folder) {
  const fs::path base(folder);
  std::error_code ec;
  if (!fs::is_directory(base, ec))
    return make_error(ErrorCode::kNotFound, "{}: no such folder", folder);
  HfTokenizerFiles files;
  files.folder = folder;
  const std::pair<const char*, HfTokenizerFiles::Text*> wanted[] = {
      {"tokenizer.model", &files.tokenizer_model},
      {"tokenizer.json", &files.tokenizer_json},
      {"tokenizer_config.json", &files.tokenizer_config},
      {"special_tokens_map.json", &files.special_tokens_map},
      {"added_tokens.json", &files.added_tokens},
      {"config.json", &files.config},
      {"generation_config.json", &files.generation_config},
      {"chat_template.jinja", &files.chat_template_jinja},
      {"chat_template.json", &files.chat_template_json}};
  for (const auto& [name, text] : wanted) {
    INFER_ASSIGN(*text, read_if_there(base / name));
  }
  INFER_TRY(read_more_templates(base / "additional_chat_templates", files));
  return files;
}

}  // namespace infer::quantize
