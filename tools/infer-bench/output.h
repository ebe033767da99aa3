#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/result.h"

namespace CLI {
class App;
}

namespace infer::tools {

/// --json or --md (the default).
struct OutputFormat {
  bool json = false;
  bool md = false;
};
void add_output_flags(CLI::App& app, OutputFormat* format);

/// A Markdown table as llama-bench prints them: the columns padded to one width, numbers to the
/// right.
class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// As many cells as columns.
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// "123.45 +- 1.20" with a real plus-minus sign: mean and standard deviation.
std::string mean_and_spread(const std::vector<double>& x);
/// Rounded for JSON: six significant digits say more than any timing knows.
double rounded(double x);
std::vector<double> rounded(const std::vector<double>& x);

/// Errors: kIo when stdout does not take it.
Result<void> print(const std::string& text);
Result<void> print(const nlohmann::ordered_json& json);

}  // namespace infer::tools
