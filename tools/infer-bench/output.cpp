#include "tools/infer-bench/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/eval/stats.h"

namespace infer::tools {
namespace {

constexpr const char* kPlusMinus = "\xc2\xb1";

/// Characters on a screen: bytes that do not continue a UTF-8 sequence.
size_t width(const std::string& s) {
  return static_cast<size_t>(
      std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

void add_output_flags(CLI::App& app, OutputFormat* format) {
  auto* json = app.add_flag("--json", format->json, "print one JSON object");
  auto* md = app.add_flag("--md", format->md, "print a Markdown table (the default)");
  json->excludes(md);
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t most = std::max<size_t>(4, width(columns_[c].title));
    for (const auto& row : rows_) most = std::max(most, width(row[c]));
    widths.push_back(most);
  }
  std::string out;
  const auto cell = [&](size_t c, const std::string& text) {
    const std::string pad(widths[c] - width(text), ' ');
    out += columns_[c].right ? "| " + pad + text + " " : "| " + text + pad + " ";
  };
  for (size_t c = 0; c < columns_.size(); ++c) cell(c, columns_[c].title);
  out += "|\n";
  for (size_t c = 0; c < columns_.size(); ++c) {
    out += "| " + std::string(widths[c] - 1, '-') + (columns_[c].right ? ": " : "- ");
  }
  out += "|\n";
  for (const auto& row : rows_) {
    for (size_t c = 0; c < columns_.size(); ++c) cell(c, row[c]);
    out += "|\n";
  }
  return out;
}

std::string mean_and_spread(const std::vector<double>& x) {
  return fmt::format("{:.2f} {} {:.2f}", eval::mean(x), kPlusMinus, eval::standard_deviation(x));
}

double rounded(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", x);
  return std::strtod(text, nullptr);
}

std::vector<double> rounded(const std::vector<double>& x) {
  std::vector<double> out;
  out.reserve(x.size());
  for (const double v : x) out.push_back(rounded(v));
  return out;
}

Result<void> print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    return make_error(ErrorCode::kIo, "standard output: {}", std::strerror(errno));
  return {};
}

Result<void> print(const nlohmann::ordered_json& json) {
  return print(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace infer::tools
