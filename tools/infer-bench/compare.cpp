#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/eval/stats.h"
#include "tools/infer-bench/command.h"
#include "tools/infer-bench/output.h"

namespace infer::tools {
namespace {

constexpr const char* kWallName = "wall_s";
constexpr const char* kRssName = "peak_rss_mib";
constexpr const char* kInterval = "95 % t-interval of the mean log-ratio of the pairs";
constexpr size_t kMaxCommands = 26;  // they are named by letters

struct CompareArgs {
  std::vector<std::string> commands;
  std::vector<std::string> keys;
  bool wall = false, rss = false;
  int n_round = 5, n_warmup = 0;
  uint64_t seed = 1;
  OutputFormat format;
};

/// 'A' for the first command.
char name_of(size_t command) { return static_cast<char>('A' + command); }

/// What is compared: a number of the commands' JSON, or one that is taken from outside, with a
/// value of each command a round.
struct Series {
  enum class Source : uint8_t { kJson, kWall, kRss } source = Source::kJson;
  std::string key;
  std::vector<std::vector<double>> values;  ///< [command][round]
};

struct Outcome {
  std::string out;
  double seconds = 0.0;
  /// Of the largest process that the command started and waited for. Never less than this program's
  /// own peak: the kernel hands it on at fork.
  double peak_rss_mib = 0.0;
};

/// Starts `sh -c command` with its stdout in a pipe; gives the process and the pipe's other end.
Result<std::pair<pid_t, int>> start(const std::string& command, char which) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0)
    return make_error(ErrorCode::kIo, "command {} '{}': {}", which, command, std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[1], STDOUT_FILENO);
  std::string text = command;
  char shell[] = "sh", flag[] = "-c";
  char* argv[] = {shell, flag, text.data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, "/bin/sh", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[1]);
  if (error == 0) return std::pair(pid, pipe_ends[0]);
  close(pipe_ends[0]);
  return make_error(ErrorCode::kIo, "command {} '{}': {}", which, command, std::strerror(error));
}

Result<Outcome> run_command(const std::string& command, char which) {
  const auto begin = std::chrono::steady_clock::now();
  INFER_ASSIGN(const auto child, start(command, which));
  const auto [pid, in] = child;
  Outcome outcome;
  char chunk[4096];
  ssize_t n = 0;
  while ((n = read(in, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
    if (n > 0) outcome.out.append(chunk, static_cast<size_t>(n));
  }
  close(in);
  int status = 0;
  rusage usage{};
  while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  outcome.peak_rss_mib = static_cast<double>(usage.ru_maxrss) / 1024.0;
  if (!WIFEXITED(status))
    return make_error(ErrorCode::kIo, "command {} '{}' was ended by a signal", which, command);
  if (WEXITSTATUS(status) != 0)
    return make_error(ErrorCode::kIo, "command {} '{}' failed with exit code {}", which, command,
                      WEXITSTATUS(status));
  return outcome;
}

bool is_tree(const nlohmann::json& json) { return json.is_object() || json.is_array(); }

/// The output as JSON; or its last line that is an object; or what begins with a line's first
/// character and goes on to the end. null when there is none of it.
nlohmann::json find_json(const std::string& out) {
  const auto parse = [&](size_t begin, size_t end) {
    return nlohmann::json::parse(out.begin() + static_cast<ptrdiff_t>(begin),
                                 out.begin() + static_cast<ptrdiff_t>(end), nullptr, false);
  };
  if (nlohmann::json whole = parse(0, out.size()); is_tree(whole)) return whole;
  std::vector<size_t> lines;  // that may begin with JSON
  for (size_t begin = 0; begin < out.size(); begin = out.find('\n', begin)) {
    if (out[begin] == '\n') ++begin;
    if (begin < out.size() && (out[begin] == '{' || out[begin] == '[')) lines.push_back(begin);
  }
  for (auto begin = lines.rbegin(); begin != lines.rend(); ++begin) {
    nlohmann::json line = parse(*begin, std::min(out.find('\n', *begin), out.size()));
    if (line.is_object()) return line;
  }
  for (const size_t begin : lines) {
    if (nlohmann::json rest = parse(begin, out.size()); is_tree(rest)) return rest;
  }
  return nullptr;
}

/// The member of an object or, by its number from 0, of an array; nullptr when there is none.
const nlohmann::json* member(const nlohmann::json& of, const std::string& name) {
  if (of.is_object()) {
    const auto at = of.find(name);
    return at == of.end() ? nullptr : &*at;
  }
  size_t index = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data(), end, index);
  if (!of.is_array() || error != std::errc() || rest != end || index >= of.size()) return nullptr;
  return &of[index];
}

/// "tg.tok_s", "0.avg_ts": a number, or the median of an array of numbers.
Result<double> value_at(const nlohmann::json& json, const std::string& key, char which) {
  const nlohmann::json* at = &json;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t dot = std::min(key.find('.', begin), key.size());
    at = member(*at, key.substr(begin, dot - begin));
    if (at == nullptr)
      return make_error(ErrorCode::kNotFound, "--key {}: not in the output of command {}", key,
                        which);
    begin = dot + 1;
  }
  std::vector<double> values;
  for (const nlohmann::json& v : at->is_array() ? *at : nlohmann::json::array({*at})) {
    if (!v.is_number())
      return make_error(ErrorCode::kCorrupt, "--key {}: {} of command {} is no number", key,
                        v.dump(), which);
    values.push_back(v.get<double>());
  }
  if (values.empty())
    return make_error(ErrorCode::kCorrupt, "--key {}: no values in the output of command {}", key,
                      which);
  return eval::median(values);
}

/// "A=B=C": each command has a name of its own for it; the last is that of all that follow.
std::string key_of(const std::string& key, size_t command) {
  size_t begin = 0, same = key.find('=');
  for (; command > 0 && same != std::string::npos; --command) {
    begin = same + 1;
    same = key.find('=', begin);
  }
  return key.substr(begin, same - begin);
}

Result<void> measure(const CompareArgs& args, size_t which, std::vector<Series>* series) {
  const char name = name_of(which);
  INFER_ASSIGN(const Outcome outcome, run_command(args.commands[which], name));
  const nlohmann::json json = args.keys.empty() ? nlohmann::json() : find_json(outcome.out);
  if (!args.keys.empty() && !is_tree(json))
    return make_error(ErrorCode::kCorrupt, "command {} '{}' printed no JSON", name,
                      args.commands[which]);
  for (Series& s : *series) {
    double value = s.source == Series::Source::kWall ? outcome.seconds : outcome.peak_rss_mib;
    if (s.source == Series::Source::kJson) {
      INFER_ASSIGN(value, value_at(json, key_of(s.key, which), name));
    }
    s.values[which].push_back(value);
  }
  return {};
}

nlohmann::ordered_json to_json(const CompareArgs& args, const Series& s, size_t other,
                               const eval::PairedRatio& r) {
  const std::string letter(1, static_cast<char>('a' + other));
  nlohmann::ordered_json j;
  j["key"] = s.key;
  j["a"] = rounded(s.values[0]);
  j[letter] = rounded(s.values[other]);
  j["median_a"] = rounded(eval::median(s.values[0]));
  j["median_" + letter] = rounded(eval::median(s.values[other]));
  j["ratio"] = rounded(r.ratio);
  j["median_ratio"] = rounded(r.median);
  if (args.n_round > 1) {
    j["low"] = rounded(r.low);
    j["high"] = rounded(r.high);
  }
  return j;
}

/// A row for each number and each command but the first.
Result<void> report(const CompareArgs& args, const std::vector<Series>& series) {
  nlohmann::ordered_json j;
  std::string commands;
  for (size_t c = 0; c < args.commands.size(); ++c) {
    j[std::string(1, static_cast<char>('a' + c))] = args.commands[c];
    commands += fmt::format("{}: {}\n", name_of(c), args.commands[c]);
  }
  j["pairs"] = args.n_round;
  j["interval"] = kInterval;
  j["keys"] = nlohmann::json::array();
  Table table({{"value"},
               {"pair"},
               {"A (median)", true},
               {"other (median)", true},
               {"ratio", true},
               {"95 % interval", true},
               {"median of ratios", true}});
  for (const Series& s : series) {
    for (size_t other = 1; other < args.commands.size(); ++other) {
      INFER_ASSIGN(const eval::PairedRatio r, eval::paired_ratio(s.values[0], s.values[other]));
      j["keys"].push_back(to_json(args, s, other, r));
      table.add({s.key, fmt::format("A / {}", name_of(other)),
                 fmt::format("{:.6g}", eval::median(s.values[0])),
                 fmt::format("{:.6g}", eval::median(s.values[other])),
                 fmt::format("{:.3f}", r.ratio),
                 args.n_round > 1 ? fmt::format("{:.3f} .. {:.3f}", r.low, r.high) : "-",
                 fmt::format("{:.3f}", r.median)});
    }
  }
  if (args.format.json) return print(j);
  return print(fmt::format("{}{} rounds, each in random order; interval: {}\n\n{}", commands,
                           args.n_round, kInterval, table.text()));
}

Result<void> compare(const CompareArgs& args) {
  const size_t n_command = args.commands.size();
  const std::vector<std::vector<double>> none(n_command);
  std::vector<Series> series;
  for (const std::string& key : args.keys) series.push_back({Series::Source::kJson, key, none});
  if (args.wall) series.push_back({Series::Source::kWall, kWallName, none});
  if (args.rss) series.push_back({Series::Source::kRss, kRssName, none});
  if (series.empty())
    return make_error(ErrorCode::kInvalidArgument,
                      "compare: say what: --key KEY of the commands' JSON, --wall or --rss");
  for (int i = 0; i < args.n_warmup; ++i) {
    for (size_t c = 0; c < n_command; ++c) INFER_TRY(run_command(args.commands[c], name_of(c)));
  }
  std::mt19937_64 rng(args.seed);
  std::vector<size_t> order(n_command);
  std::iota(order.begin(), order.end(), size_t{0});
  for (int i = 0; i < args.n_round; ++i) {
    std::shuffle(order.begin(), order.end(), rng);
    for (const size_t which : order) INFER_TRY(measure(args, which, &series));
    std::fprintf(stderr, "round %d of %d:", i + 1, args.n_round);
    for (const Series& s : series) {
      std::fprintf(stderr, " %s", s.key.c_str());
      for (const auto& values : s.values) {
        std::fprintf(stderr, "%s%.6g", &values == s.values.data() ? " " : " : ", values.back());
      }
    }
    std::fprintf(stderr, "\n");
  }
  return report(args, series);
}

}  // namespace

Command add_compare(CLI::App& app) {
  auto args = std::make_shared<CompareArgs>();
  CLI::App* sub = app.add_subcommand(
      "compare",
      "commands in turn; ratios of a number that all print as JSON, or of times, first to others");
  sub->add_option("CMD", args->commands, "two or more shell commands")
      ->expected(2, kMaxCommands)
      ->required();
  sub->add_option(
         "-k,--key", args->keys,
         "where the number is: tg.tok_s, 0.avg_ts; of an array the median (several times); "
         "A=B[=C...] where the commands call it differently")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub->add_flag("--wall", args->wall, "compare the commands' wall time");
  sub->add_flag("--rss", args->rss, "compare the commands' peak resident memory");
  sub->add_option("-r,--repetitions", args->n_round, "rounds: each command once")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  sub->add_option("--warmup", args->n_warmup, "runs of each before that do not count")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  sub->add_option("-s,--seed", args->seed, "seed of the order within the rounds")
      ->capture_default_str();
  add_output_flags(*sub, &args->format);
  return {sub, [args] { return compare(*args); }};
}

}  // namespace infer::tools
