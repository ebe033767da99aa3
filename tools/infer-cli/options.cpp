#include "tools/infer-cli/options.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>

#include "core/base/error.h"
#include "tools/common/escapes.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";

Result<std::string> read_stream(std::FILE* file, const std::string& name) {
  std::string text;
  char chunk[65536];
  while (const size_t n = std::fread(chunk, 1, sizeof(chunk), file)) text.append(chunk, n);
  if (std::ferror(file) != 0)
    return make_error(ErrorCode::kIo, "{}: {}", name, std::strerror(errno));
  return text;
}

Result<std::string> read_file(const std::string& path) {
  if (path == "-") return read_stream(stdin, "standard input");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (file == nullptr) return make_error(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  return read_stream(file.get(), path);
}

Result<std::vector<TokenId>> parse_ids(const std::string& list, int32_t n_vocab) {
  std::vector<TokenId> ids;
  const char* p = list.data();
  const char* end = p + list.size();
  while (true) {
    TokenId id = 0;
    const auto [next, error] = std::from_chars(p, end, id);
    if (error != std::errc() || id < 0 || id >= n_vocab || (next != end && *next != ',')) {
      return make_error(ErrorCode::kInvalidArgument,
                        "--prompt-ids: '{}' is not a token id below {}",
                        std::string(p, static_cast<size_t>(end - p)).substr(0, 20), n_vocab);
    }
    ids.push_back(id);
    if (next == end) return ids;
    p = next + 1;
  }
}

}  // namespace

int parse_cli(int argc, char** argv, CliOptions* o) {
  CLI::App app(
      "Completes a text with a local model.\nThe model's text goes to stdout, everything else to "
      "stderr.",
      kProgram);
  add_model_options(app, &o->model);
  add_session_options(app, &o->session);
  auto* prompt = app.add_option("-p,--prompt", o->prompt,
                                "the text to complete (\\n, \\t, \\\\ are read as escapes)");
  auto* file =
      app.add_option("-f,--file", o->prompt_file, "a file with the text; -: standard input");
  auto* ids = app.add_option("--prompt-ids", o->prompt_ids, "the prompt as token ids: 1,2,3");
  prompt->excludes(file)->excludes(ids);
  file->excludes(ids);
  app.add_option("-n,--predict,--n-predict", o->n_predict,
                 "tokens to generate; -1: until the end or a full context")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 30))
      ->capture_default_str();
  add_sampling_options(app, &o->sampling);
  app.add_option("--stop,-r,--reverse-prompt", o->stop,
                 "end before this text (may be given several times)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--ignore-eos", o->ignore_eos, "do not end at end-of-generation tokens");
  app.add_flag("--no-special", o->no_special, "special tokens in the prompt are plain text");
  app.add_flag("--no-escape", o->no_escape, "take -p as it is");
  app.add_flag("--json", o->json, "print one JSON object instead of the text");
  app.add_option("--logprobs", o->n_logprobs,
                 "with --json: the N likeliest tokens at each generated position")
      ->check(CLI::Range(0, 1000));
  app.add_option("--prompt-logprobs", o->n_prompt_logprobs,
                 "with --json: the same at each prompt position")
      ->check(CLI::Range(0, 1000));
  app.add_flag("--no-cnv", o->no_cnv,
               "complete the text, no conversation (the default; also -no-cnv)");
  app.add_flag("--dump-plan", o->dump_plan,
               "print every op with shapes, types, bytes and place, and leave");
  app.add_flag("-v,--verbose", o->verbose, "more about what is done, on stderr");
  std::vector<Alias> aliases = model_aliases();
  aliases.push_back({"-no-cnv", "--no-cnv"});
  if (const int code = parse_args(app, normalise_args(argc, argv, aliases)); code >= 0) return code;
  if ((o->n_logprobs > 0 || o->n_prompt_logprobs > 0) && !o->json) {
    return report_error(
        kProgram, {ErrorCode::kInvalidArgument, "--logprobs and --prompt-logprobs need --json"});
  }
  if (const Result<void> valid = text::validate(o->sampling.params); !valid.ok())
    return report_error(kProgram, valid.error());
  return -1;
}

Result<std::vector<TokenId>> read_prompt(const CliOptions& o, const text::Tokenizer& tokenizer) {
  if (o.prompt_ids) return parse_ids(*o.prompt_ids, tokenizer.n_vocab());
  std::string text;
  if (o.prompt) {
    text = o.no_escape ? *o.prompt : unescape(*o.prompt);
  } else {
    if (!o.prompt_file && isatty(STDIN_FILENO) != 0) {
      if (!o.session.path.empty()) return std::vector<TokenId>();
      return make_error(
          ErrorCode::kInvalidArgument,
          "no prompt: give -p TEXT, -f FILE, --prompt-ids, or text on standard input");
    }
    INFER_ASSIGN(text, read_file(o.prompt_file.value_or("-")));
    if (text.empty() && !o.session.path.empty()) return std::vector<TokenId>();
  }
  INFER_ASSIGN(std::vector<TokenId> ids,
               tokenizer.encode(text, {.add_special = true, .parse_special = !o.no_special}));
  if (ids.empty())
    return make_error(ErrorCode::kInvalidArgument,
                      "the prompt is empty, and this model has no beginning-of-text token");
  return ids;
}

}  // namespace infer::tools
