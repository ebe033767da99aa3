#include "tools/common/key_options.h"

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "gguf/overrides.h"

namespace infer::tools {

void add_key_options(CLI::App& app, ModelOptions* o) {
  app.add_option("--override-kv", o->override_kv,
                 "set a key of the model: KEY=TYPE:VALUE, TYPE int, float, bool or str (may be "
                 "given several times)")
      ->type_name("KEY=TYPE:VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--rope-freq-base", o->rope_freq_base, "base of the rotary embedding")
      ->check(CLI::Range(1.0, 1e12));
  auto* freq = app.add_option("--rope-freq-scale", o->rope_freq_scale,
                              "rotary frequencies times this: 0.5 for twice the context")
                   ->check(CLI::Range(1e-6, 1e3));
  auto* factor = app.add_option("--rope-scale", o->rope_scale, "the same as 1 / --rope-freq-scale")
                     ->check(CLI::Range(1e-3, 1e6));
  freq->excludes(factor);
  app.add_option("--rope-scaling", o->rope_scaling, "how: none, linear, yarn")
      ->check(CLI::IsMember({"none", "linear", "yarn"}));
  app.add_option("--yarn-orig-ctx", o->yarn_orig_ctx, "YaRN: context the model was trained with")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app.add_option("--yarn-ext-factor", o->yarn_ext_factor, "YaRN: share of extrapolation, 0 to 1")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--yarn-attn-factor", o->yarn_attn_factor, "YaRN: scale of the attention")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--yarn-beta-slow", o->yarn_beta_slow, "YaRN: turns below which all is scaled")
      ->check(CLI::Range(1e-3, 1e6));
  app.add_option("--yarn-beta-fast", o->yarn_beta_fast, "YaRN: turns above which nothing is scaled")
      ->check(CLI::Range(1e-3, 1e6));
}

Result<std::vector<gguf::KeyOverride>> key_overrides(const ModelOptions& o) {
  std::vector<gguf::KeyOverride> all;
  for (const std::string& text : o.override_kv) {
    INFER_ASSIGN(gguf::KeyOverride one, gguf::parse_override(text, "--override-kv"));
    all.push_back(std::move(one));
  }
  const auto set = [&](const char* flag, const char* key, const auto& value) {
    if (value) all.push_back({key, *value, flag, false});
  };
  set("--rope-freq-base", ".rope.freq_base", o.rope_freq_base);
  set("--rope-scaling", ".rope.scaling.type", o.rope_scaling);
  std::optional<double> factor = o.rope_scale;
  if (o.rope_freq_scale) factor = 1.0 / *o.rope_freq_scale;
  const char* flag = o.rope_scale ? "--rope-scale" : "--rope-freq-scale";
  set(flag, ".rope.scaling.factor", factor);
  // As llama.cpp: scaling is linear unless file or flags say what it is.
  if (factor) all.push_back({".rope.scaling.type", std::string("linear"), flag, true});
  set("--yarn-orig-ctx", ".rope.scaling.original_context_length", o.yarn_orig_ctx);
  set("--yarn-ext-factor", ".rope.scaling.yarn_ext_factor", o.yarn_ext_factor);
  set("--yarn-attn-factor", ".rope.scaling.yarn_attn_factor", o.yarn_attn_factor);
  set("--yarn-beta-slow", ".rope.scaling.yarn_beta_slow", o.yarn_beta_slow);
  set("--yarn-beta-fast", ".rope.scaling.yarn_beta_fast", o.yarn_beta_fast);
  return all;
}

}  // namespace infer::tools
