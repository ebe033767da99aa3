#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/model/model.h"
#include "tools/infer-cli/batch.h"
#include "tools/infer-cli/chat.h"
#include "tools/infer-cli/chat_format.h"
#include "tools/infer-cli/complete.h"
#include "tools/infer-cli/interrupts.h"
#include "tools/infer-cli/options.h"
#include "tools/infer-cli/report.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";

int dump_plan(const Engine& engine) {
  Output out;
  out.write(engine.dump_plan());
  const Result<void> written = out.status();
  return written.ok() ? kExitOk : report_error(kProgram, written.error());
}

int run_completion(const CliOptions& o, Engine& engine, Interrupts& interrupts) {
  std::string text;
  std::vector<TokenId> ids;
  const auto read = [&]() -> Result<void> {
    if (o.prompt_ids) {
      INFER_ASSIGN(ids, parse_prompt_ids(*o.prompt_ids, engine.tokenizer().n_vocab()));
      text = engine.tokenizer().decode(ids, /*special=*/true);
      return {};
    }
    INFER_ASSIGN(text, read_prompt_text(o));
    if (text.empty() && has_session(o.session)) return {};  // goes on where the session ends
    INFER_ASSIGN(ids, encode_prompt(o, engine.tokenizer(), text));
    return {};
  };
  if (const Result<void> ok = read(); !ok.ok()) return report_error(kProgram, ok.error());
  if (o.print_prompt) return print_prompt(o, text, ids);
  if (o.verbose)
    std::fprintf(stderr, "prompt: %zu tokens; context: %lld tokens\n", ids.size(),
                 static_cast<long long>(engine.n_ctx()));
  return complete(o, engine, std::move(ids), interrupts);
}

int run_conversation(const CliOptions& o, Engine& engine, Interrupts& interrupts) {
  const Result<ChatFormat> format = load_chat_format(o, engine);
  if (!format.ok()) return report_error(kProgram, format.error());
  const bool is_one_prompt = o.print_prompt || (o.single_turn && o.has_prompt());
  if (!is_one_prompt) return run_chat(o, engine, *format, interrupts);
  Result<ChatPrompt> prompt = single_turn_prompt(o, engine, *format);
  if (!prompt.ok()) return report_error(kProgram, prompt.error());
  if (o.print_prompt) return print_prompt(o, prompt->text, prompt->ids);
  return complete(o, engine, std::move(prompt->ids), interrupts);
}

/// A conversation was asked for, or a person sits there who has given nothing to complete.
bool wants_conversation(const CliOptions& o, const Engine& engine) {
  if (o.asks_conversation()) return true;
  if (o.no_cnv || o.has_prompt() || o.json || o.print_prompt || !o.session.path.empty())
    return false;
  return isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0 && has_chat_template(o, engine);
}

int run(const CliOptions& o) {
  if (const Result<void> session = check_session(o.session); !session.ok())
    return report_error(kProgram, session.error());
  Interrupts interrupts;
  const Result<LoadedModel> loaded = load_model(kProgram, o.model);
  if (!loaded.ok()) return report_error(kProgram, loaded.error());
  Engine& engine = *loaded->engine;
  if (o.dump_plan) return dump_plan(engine);
  std::fprintf(stderr, "%s\n", engine.summary().c_str());
  if (o.batch) return run_batch(o, engine, interrupts);
  if (wants_conversation(o, engine)) return run_conversation(o, engine, interrupts);
  return run_completion(o, engine, interrupts);
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  constexpr int kMaxSeqs = 8;
  infer::tools::CliOptions o;
  if (const int code = infer::tools::parse_cli(argc, argv, &o); code >= 0) return code;
  const int by_default = o.batch ? kMaxSeqs : std::min(o.n_parallel, kMaxSeqs);
  o.model.engine.max_seqs = o.max_seqs > 0 ? o.max_seqs : by_default;
  return infer::tools::run(o);
}
