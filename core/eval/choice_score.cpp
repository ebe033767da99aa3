#include "core/eval/choice_score.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <utility>

#include "core/base/error.h"

namespace infer::eval {
namespace {

/// Tokens that all texts begin with.
int64_t shared_tokens(const std::vector<std::vector<TokenId>>& texts) {
  size_t n = texts.front().size();
  for (const std::vector<TokenId>& t : texts) {
    const auto end = std::ranges::mismatch(texts.front(), t).in1;
    n = std::min(n, static_cast<size_t>(end - texts.front().begin()));
  }
  return static_cast<int64_t>(n);
}

/// Sequences of a task: what its texts share, and each of them.
int64_t places(const Alternatives& a) { return std::ssize(a.texts) + 1; }

/// Tokens of a task; what its texts share is in the cache once.
int64_t tokens_in_work(const Alternatives& a) {
  const int64_t n_shared = shared_tokens(a.texts);
  int64_t n = n_shared;
  for (const std::vector<TokenId>& text : a.texts) n += std::ssize(text) - n_shared;
  return n;
}

/// A task whose texts the engine has.
struct Open {
  RequestId id = 0;
  Alternatives what;
  int64_t n_shared = 0;
  int64_t n_tok = 0;
  std::string skipped;  ///< there is no request then
};

Open prepare(Alternatives what, int64_t n_ctx, Request* request) {
  Open o;
  // Nothing of what counts may be among the shared tokens.
  o.n_shared = std::min(shared_tokens(what.texts), *std::ranges::min_element(what.begin));
  if (o.n_shared < 1) o.skipped = "its texts share no token, not even a beginning of text";
  for (const std::vector<TokenId>& text : what.texts) {
    if (std::ssize(text) - 1 > n_ctx)
      o.skipped = fmt::format("{} tokens are more than the context of {}", text.size(), n_ctx);
  }
  o.what = std::move(what);
  if (!o.skipped.empty()) return o;
  const std::vector<std::vector<TokenId>>& texts = o.what.texts;
  request->prompt.assign(texts.front().begin(), texts.front().begin() + o.n_shared);
  request->max_tokens = 0;
  o.n_tok = o.n_shared;
  for (size_t i = 0; i < texts.size(); ++i) {
    request->branches.emplace_back(texts[i].begin() + o.n_shared, texts[i].begin() + o.what.end[i]);
    o.n_tok += std::ssize(request->branches.back()) - 1;
  }
  return o;
}

Scored scores_of(const Open& o, const Response& response) {
  Scored s;
  s.n_tok = o.n_tok;
  for (size_t i = 0; i < o.what.texts.size(); ++i) {
    double sum = 0.0;
    for (int64_t t = o.what.begin[i]; t < o.what.end[i]; ++t)
      sum += static_cast<double>(response.branch_logprobs[i][static_cast<size_t>(t - o.n_shared)]);
    s.scores.push_back(sum / static_cast<double>(o.what.end[i] - o.what.begin[i]));
  }
  return s;
}

class Scoring {
 public:
  Scoring(Engine& engine, int64_t n_task, const ScoreOptions& options, const MakeAlternatives& make)
      : engine_(engine), n_task_(n_task), options_(options), make_(make) {}
  ~Scoring() {
    for (const Open& o : open_) {
      if (o.skipped.empty()) engine_.cancel(o.id);
    }
    for (const Open& o : open_) {
      if (o.skipped.empty()) (void)engine_.wait(o.id);
    }
  }

  Result<void> run(const TaskDone& done) {
    for (int64_t task = 0; task < n_task_; ++task) {
      INFER_TRY(submit_more());
      INFER_ASSIGN(const Scored scored, finish_first());
      INFER_TRY(done(task, scored));
    }
    return {};
  }

 private:
  /// Keeps as many tasks in work as there are places and tokens for, and one always.
  Result<void> submit_more() {
    while (true) {
      if (!held_ && next_ < n_task_) {
        INFER_ASSIGN(held_, make_(next_++));
      }
      if (!held_) return {};
      const int64_t n_seq = places(*held_), n_tok = tokens_in_work(*held_);
      // Tasks that are skipped take no place, but are not piled up either.
      const bool fits = std::ssize(open_) < options_.max_seqs &&
                        n_seq_ + n_seq <= options_.max_seqs && n_tok_ + n_tok <= options_.max_tok;
      if (!open_.empty() && !fits) return {};
      Request request;
      Open o = prepare(*std::exchange(held_, std::nullopt), engine_.n_ctx(), &request);
      if (o.skipped.empty()) {
        INFER_ASSIGN(o.id, engine_.submit(std::move(request)));
        n_seq_ += n_seq;
        n_tok_ += n_tok;
      } else {
        o.what = {};
      }
      open_.push_back(std::move(o));
    }
  }

  Result<Scored> finish_first() {
    const Open o = std::move(open_.front());
    open_.pop_front();
    if (options_.stop.stop_requested()) {
      if (o.skipped.empty()) {
        engine_.cancel(o.id);
        (void)engine_.wait(o.id);
      }
      return make_error(ErrorCode::kCancelled, "interrupted");
    }
    if (!o.skipped.empty()) return Scored{.scores = {}, .n_tok = 0, .skipped = o.skipped};
    auto response = [&] {
      const std::stop_callback on_stop(options_.stop, [&] { engine_.cancel(o.id); });
      return engine_.wait(o.id);
    }();
    if (options_.stop.stop_requested()) return make_error(ErrorCode::kCancelled, "interrupted");
    if (!response.ok()) return std::move(response).error();
    n_seq_ -= places(o.what);
    n_tok_ -= tokens_in_work(o.what);
    return scores_of(o, *response);
  }

  Engine& engine_;
  const int64_t n_task_;
  const ScoreOptions& options_;
  const MakeAlternatives& make_;
  std::deque<Open> open_;
  std::optional<Alternatives> held_;  // made, but there is no room yet
  int64_t next_ = 0;
  int64_t n_seq_ = 0, n_tok_ = 0;  // of open_
};

/// Tasks are text: what looks like a control token is none.
Result<std::vector<TokenId>> encode(const text::Tokenizer& tokenizer, const std::string& text) {
  return tokenizer.encode(text, {.add_special = true, .parse_special = false});
}

/// Where what counts begins: behind what the texts share, or before where a text ends there.
void count_behind_shared(Alternatives* a) {
  int64_t n = shared_tokens(a->texts);
  for (const std::vector<TokenId>& text : a->texts) n = std::min(n, std::ssize(text) - 1);
  for (const std::vector<TokenId>& text : a->texts) {
    a->begin.push_back(n);
    a->end.push_back(std::ssize(text));
  }
}

std::string words_of(std::string_view subject) {
  std::string words(subject);
  std::ranges::replace(words, '_', ' ');
  return words;
}

/// A question with its answers; with the right letter behind "Answer:" where `right` is one.
std::string letter_form(const ChoiceTask& task, int right) {
  std::string text = task.question;
  for (size_t i = 0; i < task.single.texts.size(); ++i) {
    text += '\n';
    text += static_cast<char>('A' + i);
    text += ". " + task.single.texts[i];
  }
  text += "\nAnswer:";
  if (right >= 0) {
    text += ' ';
    text += static_cast<char>('A' + right);
    text += "\n\n";
  }
  return text;
}

}  // namespace

Result<Alternatives> answer_texts(const ChoiceTask& task, const text::Tokenizer& tokenizer) {
  Alternatives a;
  for (const std::string& answer : task.single.texts) {
    INFER_ASSIGN(auto ids, encode(tokenizer, task.question + " " + answer));
    a.texts.push_back(std::move(ids));
  }
  count_behind_shared(&a);
  return a;
}

Result<Alternatives> letter_texts(const ChoiceTask& task, std::span<const ChoiceTask* const> shots,
                                  const text::Tokenizer& tokenizer) {
  constexpr size_t kLetters = 26;
  if (task.single.texts.size() > kLetters)
    return make_error(ErrorCode::kUnsupported, "{} answers have no letters",
                      task.single.texts.size());
  std::string prompt = "The following are multiple choice questions (with answers)";
  if (!task.subject.empty()) prompt += " about " + words_of(task.subject);
  prompt += ".\n\n";
  for (const ChoiceTask* shot : shots) prompt += letter_form(*shot, right_answer(*shot));
  prompt += letter_form(task, -1);
  Alternatives a;
  for (size_t i = 0; i < task.single.texts.size(); ++i) {
    INFER_ASSIGN(auto ids, encode(tokenizer, prompt + ' ' + static_cast<char>('A' + i)));
    a.texts.push_back(std::move(ids));
  }
  count_behind_shared(&a);
  return a;
}

Result<Alternatives> gap_texts(const Winogrande& task, const text::Tokenizer& tokenizer) {
  constexpr int64_t kMinTrailing = 3;
  Alternatives a;
  int64_t behind_word[2] = {};
  for (size_t i = 0; i < 2; ++i) {
    INFER_ASSIGN(auto ids, encode(tokenizer, task.before + task.words[i] + task.after));
    INFER_ASSIGN(const auto head, encode(tokenizer, task.before + task.words[i]));
    behind_word[i] = std::ssize(head);
    a.texts.push_back(std::move(ids));
  }
  const int64_t n_shared = shared_tokens(a.texts);
  const auto trails = [&](const auto& t) { return std::ssize(t) - n_shared > kMinTrailing; };
  const bool skip_word = std::ranges::all_of(a.texts, trails);
  for (size_t i = 0; i < 2; ++i) {
    const int64_t n = std::ssize(a.texts[i]);
    const int64_t first = std::max<int64_t>(skip_word ? behind_word[i] : n_shared, 1);
    const int64_t begin = std::min(first, n - 1);
    a.begin.push_back(begin);
    a.end.push_back(n - begin > 1 ? n - 1 : n);
  }
  return a;
}

bool Scored::finite() const {
  return std::ranges::all_of(scores, [](double s) { return std::isfinite(s); });
}

int Scored::choice() const {
  return static_cast<int>(std::ranges::max_element(scores) - scores.begin());
}

Result<void> score_tasks(Engine& engine, int64_t n_task, const ScoreOptions& options,
                         const MakeAlternatives& make, const TaskDone& done) {
  return Scoring(engine, n_task, options, make).run(done);
}

}  // namespace infer::eval
