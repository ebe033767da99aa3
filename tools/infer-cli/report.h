#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/engine.h"

/// What infer-cli says about a response, as JSON and as a line.
namespace infer::tools {

/// The model's text on its way to standard output. Remembers the first failed write: a full disk
/// must not look like a short answer.
class Output {
 public:
  void write(std::string_view text);
  Result<void> status() const;
  /// Whether the next text begins a line.
  bool at_line_start() const { return at_line_start_; }

 private:
  int error_ = 0;
  bool at_line_start_ = true;
};

/// Which parts of a response are wanted as JSON.
struct JsonParts {
  bool ids = true;
  bool logprobs = false;
  bool prompt_logprobs = false;
};

nlohmann::ordered_json timings_json(const Timings& timings);
/// Adds text, ids, stop_reason and logprobs of the only sample; of several, an array "samples".
void add_samples_json(const Response& response, const JsonParts& parts, nlohmann::ordered_json* to);
nlohmann::json logprobs_json(const std::vector<TopLogprobs>& rows);

double per_second(int64_t n, double us);
/// "prompt: 16 tokens (0 cached), 299.9 tok/s; generated: ..." without a newline.
std::string timings_line(const Response& response);
/// Writes to stderr; on a line of its own where stderr continues what stdout wrote.
void print_report(const Output& out, const std::string& line);

}  // namespace infer::tools
