#include "tools/infer-cli/report.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>

#include <fmt/format.h>

namespace infer::tools {
namespace {

/// Whether stdout and stderr end up in the same place, as with 2>&1.
bool same_place() {
  struct stat out {};
  struct stat err {};
  return fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &err) == 0 &&
         out.st_dev == err.st_dev && out.st_ino == err.st_ino;
}

nlohmann::ordered_json sample_json(const Completion& c, const JsonParts& parts) {
  nlohmann::ordered_json j;
  j["text"] = c.text;
  if (parts.ids) j["ids"] = c.ids;
  j["stop_reason"] = std::string(name_of(c.stop_reason));
  if (parts.logprobs) j["logprobs"] = logprobs_json(c.logprobs);
  return j;
}

}  // namespace

void Output::write(std::string_view text) {
  if (error_ != 0 || text.empty()) return;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    error_ = errno;
  at_line_start_ = text.back() == '\n';
}

Result<void> Output::status() const {
  if (error_ == 0) return {};
  return Error{ErrorCode::kIo, std::string("standard output: ") + std::strerror(error_)};
}

nlohmann::json logprobs_json(const std::vector<TopLogprobs>& rows) {
  auto all = nlohmann::json::array();
  for (const TopLogprobs& row : rows) {
    auto entry = nlohmann::json::array();
    for (const TokenLogprob& t : row) entry.push_back({{"id", t.id}, {"logprob", t.logprob}});
    all.push_back(std::move(entry));
  }
  return all;
}

nlohmann::ordered_json timings_json(const Timings& t) {
  return {{"prompt_tok", t.prompt_tok},       {"cached_tok", t.cached_tok},
          {"predicted_tok", t.predicted_tok}, {"queue_us", t.queue_us},
          {"prompt_us", t.prompt_us},         {"predicted_us", t.predicted_us}};
}

void add_samples_json(const Response& response, const JsonParts& parts,
                      nlohmann::ordered_json* to) {
  if (response.samples.size() == 1) {
    to->update(sample_json(response.samples[0], parts));
    return;
  }
  auto all = nlohmann::ordered_json::array();
  for (const Completion& c : response.samples) all.push_back(sample_json(c, parts));
  (*to)["samples"] = std::move(all);
}

double per_second(int64_t n, double us) { return us > 0 ? static_cast<double>(n) * 1e6 / us : 0.0; }

std::string timings_line(const Response& response) {
  const Timings& t = response.timings;
  // The first token of each sample takes no time of its own.
  const int64_t n_timed = t.predicted_tok - std::ssize(response.samples);
  std::string ends;
  for (const Completion& c : response.samples) {
    if (!ends.empty()) ends += ", ";
    ends += name_of(c.stop_reason);
  }
  return fmt::format(
      "prompt: {} tokens ({} cached), {:.1f} tok/s; generated: {} tokens{}; ended by: {}",
      t.prompt_tok, t.cached_tok, per_second(t.prompt_tok - t.cached_tok, t.prompt_us),
      t.predicted_tok,
      n_timed > 0 ? fmt::format(", {:.1f} tok/s", per_second(n_timed, t.predicted_us)) : "", ends);
}

void print_report(const Output& out, const std::string& line) {
  const bool open = !out.at_line_start() && same_place();
  std::fprintf(stderr, "%s%s\n", open ? "\n" : "", line.c_str());
}

}  // namespace infer::tools
