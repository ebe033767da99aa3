#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "core/base/checked.h"
#include "gguf/audit.h"
#include "gguf/describe.h"
#include "gguf/reader.h"
#include "gguf/split.h"
#include "tools/common/docs/command_doc.h"
#include "tools/infer-gguf/info.h"

namespace infer::tools {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

struct Options {
  std::string in;
  std::string out;
  std::string max_size;
  int64_t max_tensors = 0;
  bool json = false;
  bool header_only = false;
  InfoOptions info;
};

int fail(std::string_view message, int code = kExitFailure) {
  fmt::print(stderr, "infer-gguf: error: {}\n", message);
  return code;
}

/// "300M", "2G", "64KiB", "1000": K, M and G are powers of 1000 (as in llama.cpp), KiB, MiB and GiB
/// of 1024.
std::optional<int64_t> parse_size(std::string_view text) {
  struct Unit {
    std::string_view name;
    int64_t bytes;
  };
  constexpr Unit kUnits[] = {{"", 1},
                             {"K", 1000},
                             {"M", 1000 * 1000},
                             {"G", 1000 * 1000 * 1000},
                             {"KiB", int64_t{1} << 10},
                             {"MiB", int64_t{1} << 20},
                             {"GiB", int64_t{1} << 30}};
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc{} || n <= 0) return std::nullopt;
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  for (const Unit& u : kUnits) {
    if (u.name == unit) return checked_mul(n, u.bytes);
  }
  return std::nullopt;
}

/// All files of a split model when given the first; one file alone when given a later one.
Result<std::shared_ptr<const gguf::Reader>> open_for_looking(const std::string& path,
                                                             bool header_only) {
  INFER_ASSIGN(auto file,
               gguf::Reader::open(path, {.all_shards = false, .header_only = header_only}));
  INFER_ASSIGN(const gguf::SplitInfo split, gguf::read_split_info(file->kvs(), path));
  if (split.count <= 1 || split.no > 0 || header_only) return file;
  return gguf::Reader::open(path);
}

int run_info(const Options& options) {
  const auto file = open_for_looking(options.in, options.header_only);
  if (!file.ok()) return fail(file.error().message);
  const std::string text =
      options.json ? info_json(**file, options.info) : info_text(**file, options.info);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

int run_check(const Options& options) {
  const auto file = gguf::Reader::open(options.in);
  if (!file.ok()) return fail(file.error().message);
  std::vector<std::string> problems = gguf::audit_tokenizer(**file);
  for (std::string& p : gguf::audit_tensor_data(**file)) problems.push_back(std::move(p));
  for (const std::string& p : problems) fmt::print("{}: {}\n", options.in, p);
  if (!problems.empty()) {
    return fail(fmt::format("{}: {} problem{} found", options.in, problems.size(),
                            problems.size() == 1 ? "" : "s"));
  }
  fmt::print("{}: ok, {} keys, {} tensors, {} bytes in {} file{}\n", options.in,
             (*file)->kvs().size(), (*file)->tensors().size(), (*file)->file_bytes(),
             (*file)->n_shards(), (*file)->n_shards() == 1 ? "" : "s");
  return 0;
}

int run_split(const Options& options) {
  gguf::SplitOptions split{.max_tensors = options.max_tensors};
  if (!options.max_size.empty()) split.max_bytes = parse_size(options.max_size).value_or(0);
  const auto file = gguf::Reader::open(options.in);
  if (!file.ok()) return fail(file.error().message);
  const auto n = gguf::write_split(**file, options.out, split);
  if (!n.ok()) return fail(n.error().message);
  for (int64_t i = 0; i < *n; ++i) fmt::print("{}\n", gguf::split_path(options.out, i, *n));
  return 0;
}

int run_merge(const Options& options) {
  const auto file = gguf::Reader::open(options.in);
  if (!file.ok()) return fail(file.error().message);
  const auto done = gguf::write_merged(**file, options.out);
  if (!done.ok()) return fail(done.error().message);
  fmt::print("{}\n", options.out);
  return 0;
}

int run(int argc, char** argv) {
  Options o;
  CLI::App app("Looks into, checks, splits and merges GGUF files.", "infer-gguf");
  app.require_subcommand(1);
  CLI::App* info = app.add_subcommand("info", "say what a file holds");
  info->add_flag("--json", o.json, "one JSON object");
  info->add_flag("--tensors", o.info.tensors, "list every tensor");
  info->add_flag("--kv", o.info.kv, "list every key");
  info->add_flag("--header-only", o.header_only,
                 "this file alone, whose tensor data may be missing (a download)");
  info->add_option("FILE", o.in, "a GGUF file; the first of a split model stands for all")
      ->required();

  CLI::App* check = app.add_subcommand(
      "check", "check structure, tokenizer tables and tensor data; exit 1 if wrong");
  check->add_option("FILE", o.in, "a GGUF file, or the first of a split model")->required();

  CLI::App* split = app.add_subcommand("split", "write OUT-PREFIX-0000I-of-0000N.gguf");
  auto* limit = split->add_option_group("limit", "one of");
  limit->add_option("--max-tensors", o.max_tensors, "tensors in one file")
      ->check(CLI::Range(int64_t{1}, INT64_MAX));
  limit
      ->add_option("--max-size", o.max_size,
                   "tensor bytes in one file: 300M, 2G (powers of 1000), 64KiB, 2GiB")
      ->check([](const std::string& s) {
        return parse_size(s) ? std::string() : "'" + s + "' is not a size";
      });
  limit->require_option(1);
  split->add_option("IN", o.in, "a GGUF file, or the first of a split model")->required();
  split->add_option("OUT-PREFIX", o.out, "path and name up to -00001-of-...")->required();

  CLI::App* merge = app.add_subcommand("merge", "write a split model as one file");
  merge->add_option("FIRST", o.in, "the -00001-of-0000N.gguf file")->required();
  merge->add_option("OUT", o.out, "the file to write")->required();
  const std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  if (const int code = print_docs(app, args); code >= 0) return code;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, on stdout
    return fail(e.what(), kExitUsage);
  }
  if (info->parsed()) return run_info(o);
  if (check->parsed()) return run_check(o);
  if (split->parsed()) return run_split(o);
  return run_merge(o);
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  try {
    const int code = infer::tools::run(argc, argv);
    if (std::fflush(stdout) != 0) return infer::tools::fail("cannot write to stdout");
    return code;
  } catch (const std::exception& e) {
    return infer::tools::fail(e.what());
  }
}
