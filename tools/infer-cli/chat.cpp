#include "tools/infer-cli/chat.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/model/model.h"
#include "tools/infer-cli/chat_commands.h"
#include "tools/infer-cli/chat_file.h"
#include "tools/infer-cli/chat_format.h"
#include "tools/infer-cli/conversation.h"
#include "tools/infer-cli/line_input.h"
#include "tools/infer-cli/report.h"
#include "tools/infer-cli/text_input.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";

/// The message of -p or -f; a file's last newline is not part of it.
Result<std::string> first_message(const CliOptions& o) {
  INFER_ASSIGN(std::string text, read_prompt_text(o));
  if (!o.prompt && text.ends_with('\n')) text.pop_back();
  return text;
}

/// The prompt sign, coloured where that can be seen (https://no-color.org).
Prompts make_prompts(bool is_terminal) {
  if (!is_terminal) return {};
  const char* no_color = std::getenv("NO_COLOR");
  if ((no_color != nullptr && *no_color != '\0') || is_dumb_terminal()) return {"> ", ". "};
  // \1 begins and ends what takes no room on the screen. libedit shows it together with the
  // character behind it: none may be the last.
  return {"\1\033[1;32m\1>\1\033[0m\1 ", "\1\033[32m\1.\1\033[0m\1 "};
}

/// Ctrl-C: the first stops the answer, a second one before the next message leaves.
class ChatInterrupt {
 public:
  ChatInterrupt(Engine& engine, LineInput& input, Interrupts& interrupts)
      : engine_(engine), input_(input), scope_(interrupts, [this](int s) { on_signal(s); }) {}

  /// Around an answer. begin() cancels at once where the signal came before the request.
  void arm() {
    stop_ = false;
    answering_ = true;
  }
  void begin(RequestId id) {
    request_ = id;
    if (stop_) engine_.cancel(id);
  }
  void end() {
    answering_ = false;
    request_ = 0;
  }
  bool stopped() const { return stop_; }
  /// Counts a Ctrl-C that came as a key; gives how many there were since reset().
  int count() { return ++n_; }
  void reset() { n_ = 0; }

 private:
  void on_signal(int signal) {
    if (signal != SIGINT || count() > 1 || (!answering_ && !input_.is_terminal())) {
      input_.restore_terminal();
      _exit(kExitInterrupted);
    }
    if (!answering_) std::fputs("\nCtrl-C again leaves.\n", stderr);
    stop_ = true;
    if (const RequestId id = request_; id != 0) engine_.cancel(id);
  }

  Engine& engine_;
  LineInput& input_;
  std::atomic<bool> answering_ = false, stop_ = false;
  std::atomic<RequestId> request_ = 0;
  std::atomic<int> n_ = 0;
  InterruptScope scope_;  ///< last: it uses the others
};

class Chat {
 public:
  Chat(const CliOptions& options, Engine& engine, const ChatFormat& format, Interrupts& interrupts)
      : options_(options),
        engine_(engine),
        base_(make_request(options)),
        input_(LineInput::open(isatty(STDOUT_FILENO) != 0 ? stdout : stderr)),
        interrupt_(engine, *input_, interrupts),
        conversation_(format, engine.tokenizer()),
        prompts_(make_prompts(input_->is_terminal())) {}

  int run();

 private:
  enum class Next { kGoOn, kLeave };
  Result<void> start();
  Result<Next> turn();
  Next on_interrupt(const Message& message);
  Next run_command(const ParsedCommand& command);
  void say(std::string text);
  Result<void> try_answer();
  void regenerate();
  void report_end(const Response& response, size_t n_prompt);
  void save(const std::string& path);
  void load(const std::string& path);
  void set_system(const std::string& text);
  void show_stats() const;
  void fail(const Error& error);

  const CliOptions& options_;
  Engine& engine_;
  const Request base_;
  std::unique_ptr<LineInput> input_;
  ChatInterrupt interrupt_;
  Conversation conversation_;
  const Prompts prompts_;
  Output out_;
  uint64_t n_regen_ = 0;  ///< each further answer has a seed of its own
  Timings last_, total_;
  size_t n_context_ = 0;  ///< tokens of the last prompt and its answer
  int exit_code_ = kExitOk;
};

void Chat::fail(const Error& error) {
  report_error(kProgram, error);
  if (!input_->is_terminal()) exit_code_ = kExitFailure;
}

int Chat::run() {
  if (input_->is_terminal())
    std::fprintf(stderr, "/help shows the commands; Ctrl-C stops an answer, Ctrl-D leaves.\n");
  if (const Result<void> started = start(); !started.ok())
    return report_error(kProgram, started.error());
  while (true) {
    const Result<Next> next = turn();
    if (!next.ok()) return report_error(kProgram, next.error());
    if (const Result<void> written = out_.status(); !written.ok())
      return report_error(kProgram, written.error());
    if (*next == Next::kLeave) break;
  }
  return exit_code_;
}

Result<void> Chat::start() {
  INFER_ASSIGN(std::string system, read_system_prompt(options_));
  conversation_.set_system(std::move(system));
  if (!options_.has_prompt()) return {};
  INFER_ASSIGN(std::string text, first_message(options_));
  if (input_->is_terminal()) std::fprintf(stderr, "> %s\n", text.c_str());
  say(std::move(text));
  return out_.status();
}

/// Reads one message and answers it.
Result<Chat::Next> Chat::turn() {
  INFER_ASSIGN(Message message, read_message(*input_, prompts_));
  if (message.line.kind == Line::Kind::kInterrupt) return on_interrupt(message);
  if (message.line.kind == Line::Kind::kEnd) {
    if (input_->is_terminal()) std::fputc('\n', stderr);
    return Next::kLeave;
  }
  interrupt_.reset();
  std::string text = std::move(message.line.text);
  if (!message.is_block) {
    if (const auto command = parse_command(text)) return run_command(*command);
  }
  if (text.find_first_not_of(" \t\n") == std::string::npos) return Next::kGoOn;
  say(std::move(text));
  if (exit_code_ == kExitInterrupted) return Next::kLeave;
  return options_.single_turn ? Next::kLeave : Next::kGoOn;
}

Chat::Next Chat::on_interrupt(const Message& message) {
  std::fputs("^C\n", stderr);
  const bool was_typing = message.is_block || !message.line.text.empty();
  if (was_typing) interrupt_.reset();
  if (interrupt_.count() > 1) {
    exit_code_ = kExitInterrupted;
    return Next::kLeave;
  }
  std::fprintf(stderr, "%sCtrl-C again, or Ctrl-D, leaves.\n", was_typing ? "Not sent. " : "");
  return Next::kGoOn;
}

Chat::Next Chat::run_command(const ParsedCommand& c) {
  switch (c.command) {
    case ChatCommand::kHelp:
      std::fputs(command_help().c_str(), stderr);
      break;
    case ChatCommand::kExit:
      return Next::kLeave;
    case ChatCommand::kRegen:
      regenerate();
      break;
    case ChatCommand::kClear:
      conversation_.clear();
      n_context_ = 0;
      break;
    case ChatCommand::kSystem:
      set_system(c.argument);
      break;
    case ChatCommand::kSave:
      save(c.argument);
      break;
    case ChatCommand::kLoad:
      load(c.argument);
      break;
    case ChatCommand::kStats:
      show_stats();
      break;
    case ChatCommand::kUnknown:
      fail(make_error(ErrorCode::kInvalidArgument,
                      "unknown command {} (/help lists them; // begins a message with a slash)",
                      c.name));
      break;
  }
  return exit_code_ == kExitInterrupted ? Next::kLeave : Next::kGoOn;
}

void Chat::say(std::string text) {
  conversation_.add_user(std::move(text));
  const Result<void> answered = try_answer();
  if (answered.ok()) return;
  conversation_.drop_user();
  fail(answered.error());
}

void Chat::regenerate() {
  const std::vector<ChatMessage> before = conversation_.messages();
  if (!conversation_.drop_answer()) {
    fail({ErrorCode::kInvalidArgument, "/regen: there is no answer yet"});
    return;
  }
  ++n_regen_;
  if (const Result<void> answered = try_answer(); !answered.ok()) {
    conversation_.set_messages(before);
    fail(answered.error());
  }
}

/// Lets the model answer what the conversation ends in; the answer, even one that was stopped,
/// becomes part of it.
Result<void> Chat::try_answer() {
  INFER_ASSIGN(ChatPrompt prompt, conversation_.prompt());
  const size_t n_prompt = prompt.ids.size();
  if (static_cast<int64_t>(n_prompt) >= engine_.n_ctx())
    return make_error(ErrorCode::kUnsupported,
                      "context full: the conversation has {} tokens, the context {}; /clear begins "
                      "anew, -c N makes it larger",
                      n_prompt, engine_.n_ctx());
  Request request = base_;
  request.prompt = prompt.ids;
  request.sampling.seed += n_regen_;
  request.on_event = [this](const Event& event) { out_.write(event.text); };
  interrupt_.arm();
  const Result<RequestId> id = engine_.submit(std::move(request));
  if (id.ok()) interrupt_.begin(*id);
  const Result<Response> response = id.ok() ? engine_.wait(*id) : Result<Response>(id.error());
  interrupt_.end();
  if (!out_.at_line_start()) out_.write("\n");
  if (!response.ok()) return response.error();
  const Completion& answer = response->samples[0];
  conversation_.add_answer(std::move(prompt), answer.ids, answer.text);
  report_end(*response, n_prompt);
  return {};
}

void Chat::report_end(const Response& response, size_t n_prompt) {
  last_ = response.timings;
  total_.prompt_tok += last_.prompt_tok;
  total_.cached_tok += last_.cached_tok;
  total_.predicted_tok += last_.predicted_tok;
  const Completion& answer = response.samples[0];
  n_context_ = n_prompt + answer.ids.size();
  if (answer.stop_reason == StopReason::kCancelled) {
    if (input_->is_terminal())
      std::fprintf(stderr, "(stopped; what there is stays in the conversation)\n");
    else
      exit_code_ = kExitInterrupted;
  }
  if (answer.stop_reason == StopReason::kLength &&
      static_cast<int64_t>(n_context_) >= engine_.n_ctx()) {
    std::fprintf(stderr,
                 "%s: context full (%lld tokens), the answer is cut off; /clear begins anew, -c N "
                 "makes it larger\n",
                 kProgram, static_cast<long long>(engine_.n_ctx()));
  }
  if (options_.verbose) print_report(out_, timings_line(response));
}

void Chat::set_system(const std::string& text) {
  if (text.empty()) {
    const std::string system = conversation_.system();
    std::fprintf(stderr, "%s\n", system.empty() ? "(no system prompt)" : system.c_str());
    return;
  }
  conversation_.set_system(text == "-" ? std::string() : text);
}

void Chat::save(const std::string& path) {
  if (path.empty()) return fail({ErrorCode::kInvalidArgument, "/save FILE: no file named"});
  const text::SamplingParams& s = base_.sampling;
  const ChatFile file{.model = engine_.model().description(),
                      .settings = {{"temperature", s.temp},
                                   {"top_k", s.top_k},
                                   {"top_p", s.top_p},
                                   {"min_p", s.min_p},
                                   {"seed", s.seed},
                                   {"max_tokens", base_.max_tokens},
                                   {"n_ctx", engine_.n_ctx()}},
                      .messages = conversation_.messages()};
  const Result<void> saved = save_chat(path, file);
  if (!saved.ok()) return fail(saved.error());
  std::fprintf(stderr, "%zu messages saved to %s\n", file.messages.size(), path.c_str());
}

void Chat::load(const std::string& path) {
  if (path.empty()) return fail({ErrorCode::kInvalidArgument, "/load FILE: no file named"});
  Result<ChatFile> file = load_chat(path);
  if (!file.ok()) return fail(file.error());
  if (const std::string model = engine_.model().description(); file->model != model) {
    std::fprintf(stderr, "%s: warning: %s was saved with another model: %s\n", kProgram,
                 path.c_str(), file->model.c_str());
  }
  const size_t n = file->messages.size();
  conversation_.set_messages(std::move(file->messages));
  n_context_ = 0;
  std::fprintf(stderr, "%zu messages loaded from %s\n", n, path.c_str());
}

void Chat::show_stats() const {
  const auto line = [](const char* name, const Timings& t) {
    return fmt::format("{}: prompt {} tokens ({} cached), generated {} tokens", name, t.prompt_tok,
                       t.cached_tok, t.predicted_tok);
  };
  std::fprintf(stderr, "%s; prompt %.1f tok/s, answer %.1f tok/s\n%s\n%s\n",
               line("last answer", last_).c_str(),
               per_second(last_.prompt_tok - last_.cached_tok, last_.prompt_us),
               per_second(std::max<int64_t>(last_.predicted_tok - 1, 0), last_.predicted_us),
               line("all answers", total_).c_str(),
               fmt::format("conversation: {} messages, {} of {} tokens of context",
                           conversation_.messages().size(), n_context_, engine_.n_ctx())
                   .c_str());
}

}  // namespace

int run_chat(const CliOptions& options, Engine& engine, const ChatFormat& format,
             Interrupts& interrupts) {
  return Chat(options, engine, format, interrupts).run();
}

Result<ChatPrompt> single_turn_prompt(const CliOptions& options, const Engine& engine,
                                      const ChatFormat& format) {
  Conversation conversation(format, engine.tokenizer());
  INFER_ASSIGN(std::string system, read_system_prompt(options));
  conversation.set_system(std::move(system));
  INFER_ASSIGN(std::string text, first_message(options));
  conversation.add_user(std::move(text));
  return conversation.prompt();
}

}  // namespace infer::tools
