#include "tools/common/sampling_options.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "tools/common/escapes.h"

namespace infer::tools {
namespace {

constexpr float kMost = std::numeric_limits<float>::max();
constexpr int32_t kMostTokens = std::numeric_limits<int32_t>::max();

/// CLI::Range lets NaN pass.
class Number : public CLI::Validator {
 public:
  Number(float least, float most) : CLI::Validator("") {
    func_ = [least, most](const std::string& text) {
      float value = 0.0f;
      if (CLI::detail::lexical_cast(text, value) && value >= least && value <= most)
        return std::string();
      const auto spell = [](float x) { return CLI::detail::to_string(x); };
      if (least == -kMost && most == kMost) return "'" + text + "' is not a finite number";
      if (most == kMost) return "'" + text + "' is not a number >= " + spell(least);
      return "'" + text + "' is not in " + spell(least) + ".." + spell(most);
    };
  }
};

CLI::Option* add_number(CLI::App& app, const char* flags, float* value, const char* help,
                        float least = -kMost, float most = kMost) {
  return app.add_option(flags, *value, help)->check(Number(least, most))->capture_default_str();
}

CLI::Option* add_window(CLI::App& app, const char* flags, int32_t* value, const char* help) {
  return app.add_option(flags, *value, help)
      ->check(CLI::Range(-1, kMostTokens))
      ->capture_default_str();
}

/// The value of a parser's result; its error names the flag.
template <class T>
T value_or_throw(const char* flag, Result<T> result) {
  if (!result.ok()) throw CLI::ValidationError(flag, result.error().message);
  return std::move(result).value();
}

void add_order_options(CLI::App& app, text::SamplingParams* p) {
  std::string names;
  for (text::SamplerKind kind : p->order)
    names += (names.empty() ? "" : ";") + std::string(text::name_of(kind));
  app.add_option_function<std::string>(
         "--samplers",
         [p](const std::string& list) {
           p->order = value_or_throw("--samplers", text::parse_sampler_names(list));
         },
         "the stages that are used, in their order")
      ->default_str(names);
  app.add_option_function<std::string>(
         "--sampling-seq,--sampler-seq",
         [p](const std::string& letters) {
           p->order = value_or_throw("--sampling-seq", text::parse_sampler_letters(letters));
         },
         "the same, a letter a stage")
      ->default_str("edskypmxt");
}

void add_cut_options(CLI::App& app, text::SamplingParams* p) {
  app.add_option("--top-k", p->top_k, "only the k likeliest tokens; 0: all")->capture_default_str();
  add_number(app, "--top-p", &p->top_p,
             "only the likeliest tokens that make up this probability; 1: all", 0.0f);
  add_number(app, "--min-p", &p->min_p,
             "only tokens at least this likely, relative to the likeliest; 0: all", -kMost, 1.0f);
  add_number(app, "--typical,--typical-p", &p->typical_p,
             "only the most typical tokens that make up this probability; 1: all", 0.0f);
  add_number(app, "--top-n-sigma,--top-nsigma", &p->top_n_sigma,
             "only logits this many standard deviations below the best; <= 0: all");
  add_number(app, "--xtc-probability", &p->xtc_probability,
             "how often the top choices are excluded; 0: never", 0.0f, 1.0f);
  add_number(app, "--xtc-threshold", &p->xtc_threshold,
             "how likely a top choice is; above 0.5: never", 0.0f, 1.0f);
}

void add_penalty_options(CLI::App& app, text::SamplingParams* p) {
  add_window(app, "--repeat-last-n", &p->penalty_last_n,
             "tokens that the penalties look back; 0: off, -1: all");
  add_number(app, "--repeat-penalty", &p->penalty_repeat,
             "logits of tokens seen are divided by this; 1: off", 0.001f);
  add_number(app, "--presence-penalty", &p->penalty_present,
             "taken off the logits of tokens seen; 0: off");
  add_number(app, "--frequency-penalty", &p->penalty_freq,
             "taken off the logits of tokens seen, each time; 0: off");
  add_number(app, "--dry-multiplier", &p->dry_multiplier,
             "DRY: taken off the logit of a token that continues a repetition; 0: off", 0.0f);
  add_number(app, "--dry-base", &p->dry_base,
             "DRY: times this for each token that it is longer than allowed", 1.0f);
  app.add_option("--dry-allowed-length", p->dry_allowed_length,
                 "DRY: the longest repetition that costs nothing more")
      ->check(CLI::Range(0, kMostTokens))
      ->capture_default_str();
  add_window(app, "--dry-penalty-last-n", &p->dry_penalty_last_n,
             "DRY: tokens to look back; 0: off, -1: all");
  app.add_option_function<std::vector<std::string>>(
         "--dry-sequence-breaker",
         [p](const std::vector<std::string>& texts) {
           p->dry_breakers.clear();
           for (const std::string& text : texts) {
             if (text.empty() || text.size() > 1024)
               throw CLI::ValidationError("--dry-sequence-breaker", "not 1..1024 bytes of text");
             if (text != "none") p->dry_breakers.push_back(unescape(text));
           }
         },
         "DRY: no repetition reaches across this text (may be given several times; none: no such "
         "text)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->default_str("\\n : \" *");
}

void add_mirostat_options(CLI::App& app, text::SamplingParams* p) {
  app.add_option("--mirostat", p->mirostat,
                 "2: hold the surprise at --mirostat-ent; top-k, top-p and the like are not used; "
                 "0: off")
      ->check(CLI::IsMember({0, 2}))
      ->capture_default_str();
  add_number(app, "--mirostat-ent", &p->mirostat_tau, "mirostat: surprise aimed at, in bits", 0.0f);
  add_number(app, "--mirostat-lr", &p->mirostat_eta, "mirostat: learning rate", 0.0f);
}

}  // namespace

text::SamplingParams SamplingOptions::with_seed() const {
  text::SamplingParams p = params;
  p.seed = seed >= 0 ? static_cast<uint64_t>(seed) : std::random_device{}();
  return p;
}

void add_sampling_options(CLI::App& app, SamplingOptions* o) {
  text::SamplingParams* p = &o->params;
  app.add_option("-s,--seed", o->seed, "seed of the sampler; -1: a new one each run")
      ->check(CLI::Range(int64_t{-1}, INT64_MAX))
      ->capture_default_str();
  add_number(app, "--temp,--temperature", &p->temp, "temperature; 0: always the likeliest token");
  add_number(app, "--dynatemp-range", &p->dynatemp_range,
             "the temperature follows the entropy within --temp +- this; 0: off", 0.0f);
  add_number(app, "--dynatemp-exp", &p->dynatemp_exponent, "exponent of that", 0.0f);
  add_cut_options(app, p);
  add_penalty_options(app, p);
  add_mirostat_options(app, p);
  app.add_option_function<std::vector<std::string>>(
         "-l,--logit-bias",
         [p](const std::vector<std::string>& texts) {
           p->logit_bias.clear();
           for (const std::string& text : texts)
             p->logit_bias.push_back(value_or_throw("--logit-bias", text::parse_logit_bias(text)));
         },
         "ID+1.5, ID-1.5, ID-inf: added to the logit of a token (may be given several times)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add_order_options(app, p);
}

}  // namespace infer::tools
