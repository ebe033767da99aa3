#pragma once

#include <memory>
#include <string>

#include "core/engine.h"

namespace CLI {
class App;
}

/// --prompt-cache and its kin, as llama.cpp spells them.
namespace infer::tools {

struct SessionOptions {
  std::string path;        ///< --prompt-cache; empty: none
  bool all = false;        ///< --prompt-cache-all: the answer too
  bool read_only = false;  ///< --prompt-cache-ro
};

/// There is a file to go on from.
bool has_session(const SessionOptions& options);

void add_session_options(CLI::App& app, SessionOptions* options);

/// Before anything is computed: whether the file can be what the flags want of it.
Result<void> check_session(const SessionOptions& options);

/// Reads the session, if there is one, into request->session, and says on stderr how much of the
/// prompt it holds. With an empty prompt the session's tokens are the prompt.
Result<void> use_session(std::string_view program, const SessionOptions& options, Engine& engine,
                         Request* request);
/// Writes what the request kept, unless it may not or `used`, the session it began with, is the
/// same.
Result<void> save_session(const SessionOptions& options, Engine& engine,
                          const std::shared_ptr<const Session>& used, const Response& response);

}  // namespace infer::tools
