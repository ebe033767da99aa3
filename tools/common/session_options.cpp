#include "tools/common/session_options.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <CLI/CLI.hpp>

#include "core/base/error.h"

namespace infer::tools {
namespace fs = std::filesystem;

void add_session_options(CLI::App& app, SessionOptions* o) {
  auto* path = app.add_option("--prompt-cache", o->path,
                              "file with what a prompt left in the K/V cache: used if it is there, "
                              "then written");
  app.add_flag("--prompt-cache-all", o->all, "keep the answer in it too")->needs(path);
  app.add_flag("--prompt-cache-ro", o->read_only, "use it, do not write it")->needs(path);
}

bool has_session(const SessionOptions& o) {
  std::error_code error;
  const auto size = fs::file_size(o.path, error);
  return !o.path.empty() && !error && size > 0;
}

Result<void> check_session(const SessionOptions& o) {
  if (o.path.empty()) return {};
  std::error_code error;
  const fs::file_status status = fs::status(o.path, error);
  if (fs::exists(status) && !fs::is_regular_file(status))
    return make_error(ErrorCode::kIo, "{}: is no regular file", o.path);
  if (o.read_only) return {};
  const fs::path folder = fs::path(o.path).parent_path();
  if (access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0)
    return make_error(ErrorCode::kIo, "{}: {}", o.path, std::strerror(errno));
  return {};
}

Result<void> use_session(std::string_view program, const SessionOptions& o, Engine& engine,
                         Request* request) {
  if (o.path.empty()) return {};
  if (!o.read_only) request->keep = o.all ? KeepSession::kAll : KeepSession::kPrompt;
  if (!has_session(o)) {
    if (!o.read_only) return {};
    return make_error(ErrorCode::kNotFound, "{}: there is no session", o.path);
  }
  INFER_ASSIGN(request->session, engine.read_session(o.path));
  const std::vector<int32_t>& saved = request->session->tokens;
  if (request->prompt.empty()) request->prompt = saved;
  const auto end = std::ranges::mismatch(request->prompt, saved);
  std::fprintf(stderr, "%.*s: session %s: %zu of %zu tokens of the prompt\n",
               static_cast<int>(program.size()), program.data(), o.path.c_str(),
               static_cast<size_t>(end.in1 - request->prompt.begin()), request->prompt.size());
  return {};
}

Result<void> save_session(const SessionOptions& o, Engine& engine,
                          const std::shared_ptr<const Session>& used, const Response& response) {
  if (o.path.empty() || o.read_only || response.session == nullptr) return {};
  if (used != nullptr && used->tokens == response.session->tokens) return {};
  return engine.write_session(o.path, *response.session);
}

}  // namespace infer::tools
