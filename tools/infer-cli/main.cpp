#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/model/model.h"
#include "tools/common/interrupt.h"
#include "tools/infer-cli/options.h"

namespace infer::tools {
namespace {

constexpr const char* kProgram = "infer-cli";

nlohmann::json logprobs_json(const std::vector<TopLogprobs>& rows) {
  auto all = nlohmann::json::array();
  for (const TopLogprobs& row : rows) {
    auto entry = nlohmann::json::array();
    for (const TokenLogprob& t : row) entry.push_back({{"id", t.id}, {"logprob", t.logprob}});
    all.push_back(std::move(entry));
  }
  return all;
}

nlohmann::json timings_json(const Timings& t) {
  return {{"prompt_tok", t.prompt_tok},       {"cached_tok", t.cached_tok},
          {"predicted_tok", t.predicted_tok}, {"queue_us", t.queue_us},
          {"prompt_us", t.prompt_us},         {"predicted_us", t.predicted_us}};
}

nlohmann::ordered_json response_json(const CliOptions& o, const std::vector<TokenId>& prompt,
                                     const Response& r) {
  const Completion& c = r.samples[0];
  nlohmann::ordered_json j;
  j["text"] = c.text;
  j["prompt_ids"] = prompt;
  j["ids"] = c.ids;
  j["stop_reason"] = std::string(name_of(c.stop_reason));
  j["timings"] = timings_json(r.timings);
  if (o.n_logprobs > 0) j["logprobs"] = logprobs_json(c.logprobs);
  if (o.n_prompt_logprobs > 0) j["prompt_logprobs"] = logprobs_json(r.prompt_logprobs);
  return j;
}

double per_second(int64_t n, double us) { return us > 0 ? static_cast<double>(n) * 1e6 / us : 0.0; }

void print_timings(const Response& r) {
  const Timings& t = r.timings;
  std::fprintf(stderr,
               "prompt: %lld tokens (%lld cached), %.1f tok/s; generated: %lld tokens, %.1f tok/s; "
               "ended by: %s\n",
               static_cast<long long>(t.prompt_tok), static_cast<long long>(t.cached_tok),
               per_second(t.prompt_tok - t.cached_tok, t.prompt_us),
               static_cast<long long>(t.predicted_tok), per_second(t.predicted_tok, t.predicted_us),
               std::string(name_of(r.samples[0].stop_reason)).c_str());
}

/// Remembers the first failed write: a full disk must not look like a short answer.
class Output {
 public:
  void write(std::string_view text) {
    if (error_ != 0 || text.empty()) return;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      error_ = errno;
  }
  Result<void> status() const {
    if (error_ == 0) return {};
    return Error{ErrorCode::kIo, std::string("standard output: ") + std::strerror(error_)};
  }

 private:
  int error_ = 0;
};

Request make_request(const CliOptions& o, std::vector<TokenId> prompt, Output* out) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = o.n_predict;
  request.sampling = o.sampling.with_seed();
  request.stop = o.stop;
  request.ignore_eos = o.ignore_eos;
  request.n_logprobs = o.n_logprobs;
  request.n_prompt_logprobs = o.n_prompt_logprobs;
  if (!o.json) request.on_event = [out](const Event& event) { out->write(event.text); };
  return request;
}

int run(const CliOptions& o) {
  // Ctrl-C before the request exists leaves at once; after that it ends the request.
  std::atomic<Engine*> engine = nullptr;
  std::atomic<RequestId> id = 0;
  const InterruptWatcher watcher([&] {
    if (Engine* e = engine.load()) {
      e->cancel(id.load());
    } else {
      _exit(kExitInterrupted);
    }
  });
  Result<LoadedModel> loaded = load_model(kProgram, o.model);
  if (!loaded.ok()) return report_error(kProgram, loaded.error());
  Engine& e = *loaded->engine;
  if (o.dump_plan) {
    Output plan;
    plan.write(e.dump_plan());
    return plan.status().ok() ? kExitOk : report_error(kProgram, plan.status().error());
  }
  std::fprintf(stderr, "%s\n", e.summary().c_str());

  Result<std::vector<TokenId>> given = read_prompt(o, e.tokenizer());
  if (!given.ok()) return report_error(kProgram, given.error());
  Output out;
  Request request = make_request(o, std::move(given).value(), &out);
  if (const Result<void> used = use_session(kProgram, o.session, e, &request); !used.ok())
    return report_error(kProgram, used.error());
  const std::vector<TokenId> prompt = request.prompt;
  const std::shared_ptr<const Session> session = request.session;
  if (o.verbose)
    std::fprintf(stderr, "prompt: %zu tokens; context: %lld tokens\n", prompt.size(),
                 static_cast<long long>(e.n_ctx()));
  const Result<RequestId> submitted = e.submit(std::move(request));
  if (!submitted.ok()) return report_error(kProgram, submitted.error());
  id = *submitted;
  engine = &e;
  const Result<Response> response = e.wait(*submitted);
  engine = nullptr;
  if (!response.ok()) return report_error(kProgram, response.error());
  if (o.json) {
    out.write(response_json(o, prompt, *response).dump() + "\n");
  } else if (isatty(STDOUT_FILENO) != 0 && !response->samples[0].text.ends_with('\n')) {
    out.write("\n");
  }
  print_timings(*response);
  if (const Result<void> saved = save_session(o.session, e, session, *response); !saved.ok())
    return report_error(kProgram, saved.error());
  if (const Result<void> written = out.status(); !written.ok())
    return report_error(kProgram, written.error());
  return response->samples[0].stop_reason == StopReason::kCancelled ? kExitInterrupted : kExitOk;
}

}  // namespace
}  // namespace infer::tools

int main(int argc, char** argv) {
  infer::tools::CliOptions options;
  if (const int code = infer::tools::parse_cli(argc, argv, &options); code >= 0) return code;
  options.model.engine.max_seqs = 1;
  return infer::tools::run(options);
}
