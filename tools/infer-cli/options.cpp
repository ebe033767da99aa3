#include "tools/infer-cli/options.h"

#include <unistd.h>

#include <charconv>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "tools/common/escapes.h"
#include "tools/infer-cli/text_input.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";

void add_conversation_options(CLI::App& app, CliOptions* o) {
  auto* on = app.add_flag("--conversation,--cnv", o->cnv,
                          "hold a conversation (also -cnv; by itself on a terminal, without a "
                          "prompt, when the model has a chat template); -p is the first message");
  app.add_flag("--no-conversation,--no-cnv", o->no_cnv,
               "complete the text, no conversation (also -no-cnv)")
      ->excludes(on);
  app.add_flag("--single-turn", o->single_turn,
               "one message, one answer, with the chat template (also -st)");
  auto* system = app.add_option("--system,--system-prompt", o->system,
                                "the conversation's system prompt (also -sys)");
  app.add_option("--system-prompt-file", o->system_file, "a file with it (also -sysf)")
      ->excludes(system);
  auto* source =
      app.add_option("--chat-template", o->chat_template,
                     "a chat template instead of the model's: a built-in name or a file");
  app.add_option("--chat-template-file", o->chat_template_file, "a file with a chat template")
      ->excludes(source);
  app.add_flag("--print-prompt", o->print_prompt,
               "print the exact text that the model would see and its ids, and leave");
}

void add_batch_options(CLI::App& app, CliOptions* o) {
  auto* batch = app.add_option(
      "--batch", o->batch,
      "answer many prompts: a file of JSON lines {id, prompt | prompt_ids | messages, max_tokens, "
      "temperature, top_k, top_p, min_p, seed, stop, ignore_eos}; -: standard input");
  app.add_option("--out", o->out, "where a batch's results go, as JSON lines; -: standard output")
      ->type_name("FILE")
      ->needs(batch);
  app.add_option("--max-seqs", o->max_seqs,
                 "sequences computed at the same time; 0: 8 for a batch, else up to 8 of -np")
      ->check(CLI::Range(0, 1024));
  app.add_option("--parallel", o->n_parallel,
                 "samples of each prompt; sample i has seed + i (also -np)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  for (const char* other : {"--prompt", "--file", "--prompt-ids", "--conversation", "--single-turn",
                            "--system", "--system-prompt-file", "--print-prompt"}) {
    batch->excludes(app.get_option(other));
  }
}

Result<void> check(const CliOptions& o) {
  const auto invalid = [](const char* message) {
    return Error{ErrorCode::kInvalidArgument, message};
  };
  if ((o.n_logprobs > 0 || o.n_prompt_logprobs > 0) && !o.json)
    return invalid("--logprobs and --prompt-logprobs need --json");
  if (o.no_cnv && o.asks_conversation())
    return invalid("-no-cnv excludes -cnv, --single-turn and --system");
  if (o.prompt_ids && o.asks_conversation())
    return invalid("a conversation takes text: -p or -f instead of --prompt-ids");
  if (!o.session.path.empty() && (o.batch || (o.asks_conversation() && !o.single_turn)))
    return invalid("--prompt-cache needs one prompt: no --batch, no conversation of many turns");
  const bool chats = o.asks_conversation() && !o.print_prompt && !(o.single_turn && o.has_prompt());
  if (chats && (o.json || o.n_parallel > 1))
    return invalid("--json and --parallel need --single-turn and -p or -f in a conversation");
  if ((o.batch && o.batch->empty()) || o.out.empty())
    return invalid("--batch and --out need a file's name, or - for standard input and output");
  return text::validate(o.sampling.params);
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
  add_conversation_options(app, o);
  add_batch_options(app, o);
  app.add_flag("--dump-plan", o->dump_plan,
               "print every op with shapes, types, bytes and place, and leave");
  app.add_flag("-v,--verbose", o->verbose, "more about what is done, on stderr");
  std::vector<Alias> aliases = model_aliases();
  aliases.insert(aliases.end(), {{"-cnv", "--conversation"},
                                 {"-no-cnv", "--no-conversation"},
                                 {"-st", "--single-turn"},
                                 {"-sys", "--system"},
                                 {"-sysf", "--system-prompt-file"},
                                 {"-np", "--parallel"}});
  if (const int code = parse_args(app, normalise_args(argc, argv, aliases)); code >= 0) return code;
  if (const Result<void> valid = check(*o); !valid.ok())
    return report_error(kProgram, valid.error());
  return -1;
}

Result<std::vector<TokenId>> parse_prompt_ids(const std::string& list, int32_t n_vocab) {
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

Result<std::string> read_prompt_text(const CliOptions& o) {
  if (o.prompt) return o.no_escape ? *o.prompt : unescape(*o.prompt);
  if (!o.prompt_file && isatty(STDIN_FILENO) != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "no prompt: give -p TEXT, -f FILE, --prompt-ids, or text on standard input");
  }
  return read_file(o.prompt_file.value_or("-"));
}

Result<std::vector<TokenId>> encode_prompt(const CliOptions& o, const text::Tokenizer& tokenizer,
                                           const std::string& text) {
  INFER_ASSIGN(std::vector<TokenId> ids,
               tokenizer.encode(text, {.add_special = true, .parse_special = !o.no_special}));
  if (ids.empty())
    return make_error(ErrorCode::kInvalidArgument,
                      "the prompt is empty, and this model has no beginning-of-text token");
  return ids;
}

Request make_request(const CliOptions& o) {
  Request request;
  request.max_tokens = o.n_predict;
  request.sampling = o.sampling.with_seed();
  request.stop = o.stop;
  request.ignore_eos = o.ignore_eos;
  request.n_samples = o.n_parallel;
  request.n_logprobs = o.n_logprobs;
  request.n_prompt_logprobs = o.n_prompt_logprobs;
  return request;
}

}  // namespace infer::tools
