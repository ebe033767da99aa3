#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/engine.h"
#include "core/model/model.h"
#include "tests/support/model_fixture.h"

/// Random schedules: the same requests under different company, chunking, threads, caches and pools
/// must give the same bits.
namespace infer::test {

/// A request, and what it gives when it runs alone on one thread with n_batch 512 and no prefix
/// cache.
struct Probe {
  std::vector<TokenId> prompt;
  text::SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<uint64_t> row_hash;   ///< [prompt.size()] of each row of logits
  std::vector<Completion> samples;  ///< sample i was run alone with seed + i
};

struct ScheduleConfig {
  std::string label;
  std::shared_ptr<const model::Model> model;
  std::string isa;
  EngineOptions options;  ///< types and modes; what a schedule varies is overwritten
  int n_logprobs = 0;     ///< of generated tokens; n_vocab compares whole rows
};

/// What the schedules did, so that a test can tell that they reached what they are for.
struct ScheduleStats {
  int64_t n_request = 0, n_forked = 0, n_cancelled = 0, n_preempted = 0, n_cached_tok = 0,
          n_row_compared = 0;
  ScheduleStats& operator+=(const ScheduleStats& o);
};

class ScheduleRunner {
 public:
  /// Computes the references. Prompts are given; sampling and lengths are drawn.
  ScheduleRunner(ScheduleConfig config, const std::vector<std::vector<TokenId>>& prompts,
                 uint64_t seed);

  /// One schedule; every difference is a GoogleTest failure that names config and seed.
  ScheduleStats run(uint64_t seed) const;

 private:
  struct Ticket;
  EngineOptions draw_options(std::mt19937_64& rng) const;
  Request draw_request(std::mt19937_64& rng, int64_t n_ctx, Ticket& ticket) const;
  void compare(const Ticket& ticket, const Response& response, ScheduleStats& stats) const;

  ScheduleConfig config_;
  std::vector<Probe> probes_;
};

/// Prompts that share beginnings of lengths around the block size, and two that are longer than a
/// span of attention.
std::vector<std::vector<TokenId>> family_prompts(int32_t n_vocab, uint64_t seed);

uint64_t hash_of(std::span<const float> row);

}  // namespace infer::test
