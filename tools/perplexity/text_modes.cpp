#include "tools/perplexity/text_modes.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/eval/kl_divergence.h"
#include "core/eval/perplexity.h"
#include "core/model/model.h"
#include "tools/common/text_file.h"
#include "tools/perplexity/progress.h"

namespace infer::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kProgram = "perplexity";

Result<LoadedModel> load(const PerplexityArgs& args, const std::string& path) {
  ModelOptions o = args.model;
  if (!path.empty()) o.model = path;
  o.no_prefix_cache = true;  // windows do not begin alike
  o.engine.max_seqs = static_cast<int>(std::max<int64_t>(1, o.engine.n_batch / o.engine.n_ctx) + 1);
  INFER_ASSIGN(LoadedModel loaded, load_model(kProgram, o));
  fmt::print(stderr, "{}\n", loaded.engine->summary());
  const int64_t n_trained = loaded.engine->model().hparams().n_ctx_train;
  if (n_trained > 0 && o.engine.n_ctx > n_trained)
    fmt::print(stderr, "{}: warning: -c {}: the model was trained on {} tokens\n", kProgram,
               o.engine.n_ctx, n_trained);
  return loaded;
}

Result<eval::TokenChunks> read_chunks(const PerplexityArgs& args, const Engine& engine) {
  if (engine.n_ctx() < args.model.engine.n_ctx)
    return make_error(ErrorCode::kInvalidArgument, "-c {}: this model's sequences have {} tokens",
                      args.model.engine.n_ctx, engine.n_ctx());
  INFER_ASSIGN(const std::string text, read_text_file(args.text));
  auto chunks =
      eval::cut_text(text, engine.tokenizer(), {args.model.engine.n_ctx, args.stride, args.chunks});
  if (chunks.ok()) return chunks;
  return make_error(chunks.error().code, "{}: {}", args.text, chunks.error().message);
}

/// Shows the estimate after each window: on a terminal with rate and time left, else as
/// "[1]28.6,[2]27.9,", which peers print too.
class Estimates {
 public:
  Estimates(int64_t n_chunk, int64_t n_ctx) : progress_("window", n_chunk), n_ctx_(n_ctx) {}
  ~Estimates() {
    if (!progress_.is_terminal() && any_) fmt::print(stderr, "\n");
  }
  void show(int64_t done, double value, double error) {
    progress_.show(done, done * n_ctx_, fmt::format("PPL {:.4f} +/- {:.4f}", value, error));
    if (progress_.is_terminal()) return;
    any_ = true;
    fmt::print(stderr, "[{}]{:.4f},", done, value);
    std::fflush(stderr);
  }
  double seconds() const { return progress_.seconds(); }

 private:
  Progress progress_;
  int64_t n_ctx_;
  bool any_ = false;
};

Json number(const eval::MeanError& m) { return {{"mean", m.mean()}, {"error", m.error()}}; }

void print_perplexity(const PerplexityArgs& args, const eval::TokenChunks& chunks,
                      const eval::Perplexity& ppl, double seconds) {
  const double tok_s = static_cast<double>(chunks.n_chunk * chunks.n_ctx) / seconds;
  if (args.json) {
    fmt::print("{}\n", Json{{"perplexity", ppl.value()},
                            {"error", ppl.error()},
                            {"nll", number(ppl.nll)},
                            {"tokens", ppl.nll.n()},
                            {"windows", chunks.n_chunk},
                            {"n_ctx", chunks.n_ctx}}
                           .dump());
  } else {
    fmt::print("Final estimate: PPL = {:.4f} +/- {:.5f}\n", ppl.value(), ppl.error());
  }
  fmt::print(stderr, "{}: {} windows of {} tokens in {:.1f} s, {:.0f} tok/s\n", kProgram,
             chunks.n_chunk, chunks.n_ctx, seconds, tok_s);
}

struct Percentile {
  const char* name;
  double share;
};

Json divergence_json(const eval::Divergence& d, std::span<const float> klds,
                     std::span<const float> p_diffs) {
  Json out{{"tokens", d.n()},
           {"perplexity", std::exp(d.nll.mean())},
           {"perplexity_error", std::exp(d.nll.mean()) * d.nll.error()},
           {"perplexity_base", std::exp(d.nll_base.mean())},
           {"perplexity_base_error", std::exp(d.nll_base.mean()) * d.nll_base.error()},
           {"log_ratio", {{"mean", d.log_ratio()}, {"error", d.log_ratio_error()}}},
           {"kld", number(d.kld)},
           {"p_diff", number(d.p_diff)},
           {"rms_p_diff", {{"mean", d.rms_p_diff()}, {"error", d.rms_p_diff_error()}}},
           {"same_top", eval::proportion(d.n_same_top, d.n()).p},
           {"same_top_error", eval::proportion(d.n_same_top, d.n()).error}};
  for (const Percentile& p : {Percentile{"max", 1.0},
                              {"99.9", 0.999},
                              {"99", 0.99},
                              {"95", 0.95},
                              {"90", 0.9},
                              {"median", 0.5},
                              {"10", 0.1},
                              {"min", 0.0}}) {
    out["kld_percentiles"][p.name] = eval::percentile(klds, p.share);
    out["p_diff_percentiles"][p.name] = eval::percentile(p_diffs, p.share);
  }
  return out;
}

void print_perplexities(const eval::Divergence& d) {
  const double ppl = std::exp(d.nll.mean()), base = std::exp(d.nll_base.mean());
  const double error = ppl * d.nll.error(), base_error = base * d.nll_base.error();
  const double covariance = d.covariance();
  const double ratio = std::exp(d.log_ratio());
  const double spread = d.nll.error() * d.nll_base.error();
  fmt::print("====== Perplexity statistics ======\n");
  fmt::print("Mean PPL(Q)                   : {:10.6f} \u00b1 {:10.6f}\n", ppl, error);
  fmt::print("Mean PPL(base)                : {:10.6f} \u00b1 {:10.6f}\n", base, base_error);
  if (spread > 0.0)
    fmt::print("Cor(ln(PPL(Q)), ln(PPL(base))): {:6.2f}%\n", 100.0 * covariance / spread);
  fmt::print("Mean ln(PPL(Q)/PPL(base))     : {:10.6f} \u00b1 {:10.6f}\n", d.log_ratio(),
             d.log_ratio_error());
  fmt::print("Mean PPL(Q)/PPL(base)         : {:10.6f} \u00b1 {:10.6f}\n", ratio,
             ratio * d.log_ratio_error());
  const double variance = error * error + base_error * base_error - 2.0 * ppl * base * covariance;
  fmt::print("Mean PPL(Q)-PPL(base)         : {:10.6f} \u00b1 {:10.6f}\n", ppl - base,
             std::sqrt(std::max(0.0, variance)));
}

void print_divergence(const eval::Divergence& d, std::span<const float> klds,
                      std::span<const float> p_diffs) {
  print_perplexities(d);
  fmt::print("\n====== KL divergence statistics ======\n");
  fmt::print("Mean    KLD: {:10.6f} \u00b1 {:10.6f}\n", d.kld.mean(), d.kld.error());
  for (const Percentile& p : {Percentile{"Maximum KLD", 1.0},
                              {"99.9%   KLD", 0.999},
                              {"99.0%   KLD", 0.99},
                              {"95.0%   KLD", 0.95},
                              {"90.0%   KLD", 0.9},
                              {"Median  KLD", 0.5},
                              {"10.0%   KLD", 0.1},
                              {" 5.0%   KLD", 0.05},
                              {" 1.0%   KLD", 0.01},
                              {" 0.1%   KLD", 0.001},
                              {"Minimum KLD", 0.0}})
    fmt::print("{}: {:10.6f}\n", p.name, eval::percentile(klds, p.share));
  fmt::print("\n====== Token probability statistics ======\n");
  fmt::print("Mean    \u0394p: {:6.3f} \u00b1 {:5.3f} %\n", 100.0 * d.p_diff.mean(),
             100.0 * d.p_diff.error());
  for (const Percentile& p : {Percentile{"Maximum \u0394p", 1.0},
                              {"99.9%   \u0394p", 0.999},
                              {"99.0%   \u0394p", 0.99},
                              {"95.0%   \u0394p", 0.95},
                              {"90.0%   \u0394p", 0.9},
                              {"75.0%   \u0394p", 0.75},
                              {"Median  \u0394p", 0.5},
                              {"25.0%   \u0394p", 0.25},
                              {"10.0%   \u0394p", 0.1},
                              {" 5.0%   \u0394p", 0.05},
                              {" 1.0%   \u0394p", 0.01},
                              {" 0.1%   \u0394p", 0.001},
                              {"Minimum \u0394p", 0.0}})
    fmt::print("{}: {:6.3f}%\n", p.name, 100.0f * eval::percentile(p_diffs, p.share));
  fmt::print("RMS \u0394p    : {:6.3f} \u00b1 {:5.3f} %\n", 100.0 * d.rms_p_diff(),
             100.0 * d.rms_p_diff_error());
  const eval::Proportion same = eval::proportion(d.n_same_top, d.n());
  fmt::print("Same top p: {:6.3f} \u00b1 {:5.3f} %\n", 100.0 * same.p, 100.0 * same.error);
}

void report_divergence(const PerplexityArgs& args, eval::Divergence d) {
  std::ranges::sort(d.klds);
  std::ranges::sort(d.p_diffs);
  if (args.json) {
    fmt::print("{}\n", divergence_json(d, d.klds, d.p_diffs).dump());
  } else {
    print_divergence(d, d.klds, d.p_diffs);
  }
}

eval::DivergenceOptions divergence_options(const PerplexityArgs& args, const std::stop_token& stop,
                                           Progress* progress, int64_t n_ctx) {
  eval::DivergenceOptions o;
  o.n_batch = args.model.engine.n_batch;
  o.max_chunks = args.chunks;
  o.stop = stop;
  o.on_chunk = [progress, n_ctx](int64_t done, const eval::Divergence& d) -> Result<void> {
    progress->show(done, done * n_ctx,
                   fmt::format("PPL {:.4f}, KLD {:.5f} +/- {:.5f}", std::exp(d.nll.mean()),
                               d.kld.mean(), d.kld.error()));
    return {};
  };
  return o;
}

}  // namespace

Result<void> run_perplexity(const PerplexityArgs& args, const std::stop_token& stop) {
  INFER_ASSIGN(const LoadedModel loaded, load(args, {}));
  Engine& engine = *loaded.engine;
  INFER_ASSIGN(const eval::TokenChunks chunks, read_chunks(args, engine));
  std::optional<eval::KlBaseWriter> base;
  if (!args.kl_base.empty()) {
    INFER_ASSIGN(auto out, eval::KlBaseWriter::create(args.kl_base, chunks,
                                                      engine.model().hparams().n_vocab));
    base.emplace(std::move(out));
  }
  eval::Perplexity ppl;
  double seconds = 0.0;
  {
    Estimates estimates(chunks.n_chunk, chunks.n_ctx);
    const int64_t n_batch = args.model.engine.n_batch;
    if (base) {
      const auto on_chunk = [&](int64_t done, const eval::MeanError& nll) -> Result<void> {
        const eval::Perplexity so_far{nll};
        estimates.show(done, so_far.value(), so_far.error());
        return {};
      };
      INFER_ASSIGN(ppl.nll, eval::write_base(engine, chunks, n_batch, stop, &*base, on_chunk));
    } else {
      const auto on_chunk = [&](int64_t done, const eval::Perplexity& so_far) -> Result<void> {
        estimates.show(done, so_far.value(), so_far.error());
        return {};
      };
      INFER_ASSIGN(ppl, eval::measure_perplexity(engine, chunks, {n_batch, stop, on_chunk}));
    }
    seconds = estimates.seconds();
  }
  if (base) INFER_TRY(base->finish());
  print_perplexity(args, chunks, ppl, seconds);
  return {};
}

Result<void> run_divergence(const PerplexityArgs& args, const std::stop_token& stop) {
  if (!args.against.empty()) {
    INFER_ASSIGN(const LoadedModel model, load(args, {}));
    INFER_ASSIGN(const LoadedModel base, load(args, args.against));
    INFER_ASSIGN(const eval::TokenChunks chunks, read_chunks(args, *model.engine));
    Progress progress("window", chunks.n_chunk);
    INFER_ASSIGN(eval::Divergence d,
                 eval::measure_divergence(*model.engine, *base.engine, chunks,
                                          divergence_options(args, stop, &progress, chunks.n_ctx)));
    progress.clear();
    report_divergence(args, std::move(d));
    return {};
  }
  INFER_ASSIGN(const auto base, eval::KlBaseReader::open(args.kl_base));
  if (!args.text.empty())
    fmt::print(stderr, "{}: -f is not read: {} has its text\n", kProgram, args.kl_base);
  PerplexityArgs with_its_context = args;
  const int64_t n_ctx = base->chunks().n_ctx;
  with_its_context.model.engine.n_ctx = std::max(args.model.engine.n_ctx, n_ctx);
  INFER_ASSIGN(const LoadedModel model, load(with_its_context, {}));
  const int64_t n_all = base->chunks().n_chunk;
  Progress progress("window", args.chunks >= 0 ? std::min(args.chunks, n_all) : n_all);
  INFER_ASSIGN(eval::Divergence d,
               eval::measure_divergence(*model.engine, *base,
                                        divergence_options(args, stop, &progress, n_ctx)));
  progress.clear();
  report_divergence(args, std::move(d));
  return {};
}

}  // namespace infer::tools
