#include "tools/common/docs/command_doc.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>

#include <CLI/CLI.hpp>

namespace infer::tools {
namespace {

constexpr int kExitUsage = 2;

std::vector<std::string> split(std::string_view list, char separator) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const size_t end = list.find(separator);
    parts.emplace_back(list.substr(0, end));
    list.remove_prefix(end == std::string_view::npos ? list.size() : end + 1);
  }
  return parts;
}

/// CLI11 writes checks into the type: "INT:INT in [0 - 9]", "INT:{0,2}".
void read_type(std::string_view type, FlagDoc* flag) {
  flag->value = type.substr(0, type.find(':'));
  const auto between = [&](char open, char close) {
    const size_t begin = type.find(open), end = type.rfind(close);
    const bool both = begin != std::string_view::npos && end != std::string_view::npos;
    return both && begin < end ? type.substr(begin + 1, end - begin - 1) : std::string_view();
  };
  flag->choices = split(between('{', '}'), ',');
  flag->range = between('[', ']');
}

bool mentions_file(std::string_view help) {
  return help.find("file") != std::string_view::npos ||
         help.find("folder") != std::string_view::npos;
}

FlagDoc describe_option(const CLI::Option& option) {
  FlagDoc flag;
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  if (flag.names.empty()) flag.names.push_back(option.get_name(true));
  flag.help = option.get_description();
  flag.required = option.get_required();
  if (option.get_items_expected_max() == 0) return flag;  // a switch
  read_type(option.get_type_name(), &flag);
  flag.default_value = option.get_default_str();
  flag.repeats = option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
  flag.is_file = option.get_positional() || flag.value.starts_with("FILE") ||
                 (flag.value == "TEXT" && mentions_file(flag.help));
  return flag;
}

void add_options(const CLI::App& app, CommandDoc* command) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    auto& list = option->get_positional() ? command->positionals : command->flags;
    FlagDoc flag = describe_option(*option);
    const auto is_same = [&](const FlagDoc& other) { return other.names == flag.names; };
    if (std::ranges::none_of(list, is_same)) list.push_back(std::move(flag));  // groups: --help
  }
  for (const CLI::App* below : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (below->get_name().empty()) {
      add_options(*below, command);  // an option group
    } else {
      command->commands.push_back(describe(*below));
    }
  }
}

}  // namespace

CommandDoc describe(const CLI::App& app) {
  CommandDoc command;
  command.name = app.get_name();
  command.text = app.get_description();
  add_options(app, &command);
  return command;
}

int print_docs(const CLI::App& app, const std::vector<std::string>& args) {
  if (args.empty()) return -1;
  std::string text;
  if (args[0] == "--man-page") {
    text = man_page(describe(app));
  } else if (args[0] == "--completion") {
    const std::string shell = args.size() > 1 ? args[1] : "";
    if (shell == "bash") text = bash_completion(describe(app));
    if (shell == "zsh") text = zsh_completion(describe(app));
    if (shell == "fish") text = fish_completion(describe(app));
    if (text.empty()) {
      std::fprintf(stderr, "%s: error: --completion: '%s' is not bash, zsh or fish\n",
                   app.get_name().c_str(), shell.c_str());
      return kExitUsage;
    }
  } else {
    return -1;
  }
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  return written && std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace infer::tools
