#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"
#include "core/engine.h"
#include "core/eval/choice_task.h"

/// How likely a model finds each of several texts: what multiple-choice tests are scored by.
namespace infer::eval {

/// The texts of one task. Tokens [begin[i], end[i]) of a text count, the ones before them are
/// given.
struct Alternatives {
  std::vector<std::vector<TokenId>> texts;
  std::vector<int64_t> begin, end;  ///< [texts.size()]; 0 < begin < end <= tokens
};

/// question + " " + answer for each answer; all behind the tokens that the texts share count.
Result<Alternatives> answer_texts(const ChoiceTask& task, const text::Tokenizer& tokenizer);

/// The form of leaderboards: a heading, `shots` solved tasks, the question, its answers under A, B,
/// ..., "Answer:"; the letter counts. Source: MMLU's own evaluation (arXiv:2009.03300).
Result<Alternatives> letter_texts(const ChoiceTask& task, std::span<const ChoiceTask* const> shots,
                                  const text::Tokenizer& tokenizer);

/// The sentence with either word; what follows the gap counts, but for its last token where there
/// is more than one. With three tokens or fewer behind the shared ones the word counts as well. As
/// llama-perplexity --winogrande scores, but for a mistake there: where the word counts, it takes
/// the first token of the second text from a row of the first.
Result<Alternatives> gap_texts(const Winogrande& task, const text::Tokenizer& tokenizer);

/// What came of one task.
struct Scored {
  std::vector<double>
      scores;           ///< mean log p of the tokens that count, of each text; empty: skipped
  int64_t n_tok = 0;    ///< tokens computed, those that texts share once
  std::string skipped;  ///< why

  /// False for a model that computes nonsense.
  bool finite() const;
  /// Of the highest score, the first of equals. Needs: scores.
  int choice() const;
};

struct ScoreOptions {
  int max_seqs = 8;        ///< EngineOptions::max_seqs of the engine
  int64_t max_tok = 4096;  ///< tokens in work at the same time; one task may have more
  std::stop_token stop{};
};

using MakeAlternatives = std::function<Result<Alternatives>(int64_t task)>;
using TaskDone = std::function<Result<void>(int64_t task, const Scored& scored)>;

/// Scores tasks 0 .. n_task - 1, many at a time: what the texts of a task share is computed once,
/// and only rows that predict a token that counts reach the output matrix. `done` sees them in
/// order, on the caller's thread. Texts longer than the engine's context are skipped. Errors: those
/// of the engine, `make` and `done`; kCancelled.
Result<void> score_tasks(Engine& engine, int64_t n_task, const ScoreOptions& options,
                         const MakeAlternatives& make, const TaskDone& done);

}  // namespace infer::eval
