#include "tools/infer-cli/complete.h"

#include <unistd.h>

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tools/common/session_options.h"
#include "tools/infer-cli/report.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";

void print_json(const CliOptions& o, const std::vector<TokenId>& prompt, const Response& response,
                Output* out) {
  nlohmann::ordered_json j;
  add_samples_json(response, {.ids = true, .logprobs = o.n_logprobs > 0}, &j);
  j["prompt_ids"] = prompt;
  j["timings"] = timings_json(response.timings);
  if (o.n_prompt_logprobs > 0) j["prompt_logprobs"] = logprobs_json(response.prompt_logprobs);
  out->write(j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void print_samples(const Response& response, Output* out) {
  const size_t n = response.samples.size();
  for (size_t i = 0; i < n; ++i) {
    if (!out->at_line_start()) out->write("\n");
    out->write(fmt::format("----- {} of {} -----\n", i + 1, n));
    out->write(response.samples[i].text);
  }
  if (!out->at_line_start()) out->write("\n");
}

int exit_code(const Response& response) {
  for (const Completion& c : response.samples) {
    if (c.stop_reason == StopReason::kCancelled) return kExitInterrupted;
  }
  return kExitOk;
}

}  // namespace

int complete(const CliOptions& o, Engine& engine, std::vector<TokenId> prompt,
             Interrupts& interrupts) {
  Output out;
  Request request = make_request(o);
  request.prompt = std::move(prompt);
  if (const Result<void> used = use_session(kProgram, o.session, engine, &request); !used.ok())
    return report_error(kProgram, used.error());
  const std::vector<TokenId> whole_prompt = request.prompt;
  const std::shared_ptr<const Session> session = request.session;
  const bool streams = !o.json && o.n_parallel == 1;
  if (streams) request.on_event = [&out](const Event& event) { out.write(event.text); };
  const Result<RequestId> submitted = engine.submit(std::move(request));
  if (!submitted.ok()) return report_error(kProgram, submitted.error());
  const InterruptScope scope(interrupts, [&, first = true](int) mutable {
    if (!first) _exit(kExitInterrupted);
    first = false;
    engine.cancel(*submitted);
  });
  const Result<Response> response = engine.wait(*submitted);
  if (!response.ok()) return report_error(kProgram, response.error());
  if (o.json)
    print_json(o, whole_prompt, *response, &out);
  else if (!streams)
    print_samples(*response, &out);
  else if (isatty(STDOUT_FILENO) != 0 && !out.at_line_start())
    out.write("\n");
  print_report(out, timings_line(*response));
  if (const Result<void> saved = save_session(o.session, engine, session, *response); !saved.ok())
    return report_error(kProgram, saved.error());
  if (const Result<void> written = out.status(); !written.ok())
    return report_error(kProgram, written.error());
  return exit_code(*response);
}

int print_prompt(const CliOptions& o, const std::string& text, const std::vector<TokenId>& ids) {
  Output out;
  if (o.json) {
    nlohmann::ordered_json j;
    j["text"] = text;
    j["ids"] = ids;
    out.write(j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } else {
    out.write(text);
    if (!out.at_line_start()) out.write("\n");
    out.write(fmt::format("{}\n", fmt::join(ids, ",")));
  }
  const Result<void> written = out.status();
  return written.ok() ? kExitOk : report_error(kProgram, written.error());
}

}  // namespace infer::tools
