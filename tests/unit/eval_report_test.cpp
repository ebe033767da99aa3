#include <cmath>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/eval/choice_report.h"
#include "core/eval/kl_base.h"
#include "core/eval/kl_divergence.h"
#include "core/eval/log_prob_rows.h"
#include "tests/support/temp_folder.h"

/// What runs leave: lines, sums, comparisons, log-probabilities.
namespace infer::eval {
namespace {

using testing::HasSubstr;

TaskResult result(int64_t task, int choice, int answer, std::string subject = "s") {
  return {.task = task,
          .subject = std::move(subject),
          .scores = {-1.5, -2.25, -3.0, -4.0},
          .choice = choice,
          .answer = answer,
          .skipped = {}};
}

TEST(EvalReport, LinesComeBack) {
  TaskResult r = result(7, 1, 2, "a \"b\"");
  EXPECT_EQ(
      result_line(result(3, 0, 0)),
      R"({"task":3,"subject":"s","scores":[-1.5,-2.25,-3.0,-4.0],"choice":0,"answer":0,"correct":true})");
  const auto back = parse_result_line(result_line(r));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(result_line(*back), result_line(r));
  EXPECT_FALSE(back->correct());
  r.also_right = {1, 3};
  const auto several = parse_result_line(result_line(r));
  ASSERT_TRUE(several.ok()) << several.error().message;
  EXPECT_TRUE(several->correct());
  EXPECT_EQ(result_line(*several), result_line(r));
  r.scores.clear();
  r.skipped = "too long";
  EXPECT_EQ(parse_result_line(result_line(r))->skipped, "too long");
  for (const char* bad : {"", "[]", "{}", R"({"task":-1,"scores":[1],"choice":0,"answer":0})",
                          R"({"task":1,"scores":[],"choice":0,"answer":0})",
                          R"({"task":1,"scores":[1],"choice":0,"answer":0,"also_right":[1]})",
                          R"({"task":1,"scores":[1],"choice":0,"answer":0,"also_right":"x"})",
                          R"({"task":1,"scores":["x"],"choice":0,"answer":0})",
                          R"({"task":1,"scores":[1],"choice":1,"answer":0})",
                          R"({"task":1,"scores":[1],"choice":0,"answer":-1})"})
    EXPECT_FALSE(parse_result_line(bad).ok()) << bad;
}

/// 49 of 200: llama.cpp's own lines for these numbers (shared/golden/mmlu-200.json).
TEST(EvalReport, FinalLinesAreThePeers) {
  ChoiceSummary summary;
  for (int i = 0; i < 200; ++i) summary.add(result(i, i < 49 ? 0 : 1, 0, ""));
  EXPECT_EQ(summary_text(summary),
            "Final result: 24.5000 +/- 3.0488\nRandom chance: 25.0000 +/- 3.0695\n");
}

/// 75 of 150 and 28 of 120 as llama-perplexity prints them.
TEST(EvalReport, FinalLinesOfOtherKindsAreThePeers) {
  ChoiceSummary gaps, endings;
  for (int i = 0; i < 150; ++i) gaps.add(result(i, i < 75 ? 0 : 1, 0, ""));
  for (int i = 0; i < 120; ++i) endings.add(result(i, i < 28 ? 0 : 1, 0, ""));
  EXPECT_THAT(summary_text(gaps, "winogrande"),
              testing::StartsWith("Final Winogrande score(150 tasks): 50.0000 +/- 4.0962\n"));
  EXPECT_THAT(summary_text(endings, "hellaswag"),
              testing::StartsWith("120\t23.33333333%\t[16.6656%, 31.6554%]\nFinal result: "));
}

TEST(EvalReport, SubjectsAndSkippedTasks) {
  ChoiceSummary summary;
  summary.add(result(0, 1, 1, "anatomy"));
  summary.add(result(1, 0, 1, "law"));
  TaskResult skipped = result(2, 0, 0);
  skipped.skipped = "600 tokens";
  summary.add(skipped);
  const std::string text = summary_text(summary);
  EXPECT_THAT(text, HasSubstr("anatomy      1      1  100.00  [ 20.65, 100.00]\n"));
  EXPECT_THAT(text, HasSubstr("law          1      0   0.00  [  0.00,  79.35]\n"));
  EXPECT_EQ(summary.n_skipped(), 1);
  EXPECT_EQ(summary.first_skipped().task, 2);
  EXPECT_THAT(summary_json(summary, R"({"run":{}})"), HasSubstr(R"("skipped":1,)"));
  ChoiceSummary unknown;
  unknown.add(result(0, 1, 1, ""));
  EXPECT_THAT(summary_json(unknown, R"({"run":{}})"), HasSubstr(R"("subjects":{})"));
}

TEST(EvalReport, TwoRuns) {
  RunFile a, b;
  for (int i = 0; i < 12; ++i) a.results.push_back(result(i, i < 10 ? 1 : 0, 1, "law"));
  for (int i = 0; i < 12; ++i) b.results.push_back(result(i, i < 10 ? 0 : 1, 1, "law"));
  const auto c = compare_runs(a, b);
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(c->n_a, 10);
  EXPECT_EQ(c->n_b, 2);
  EXPECT_NEAR(c->p, 0.03857421875, 1e-12);
  const std::string text = comparison_text(*c, "a", "b");
  EXPECT_THAT(text, HasSubstr("B - A: -66.6667 points, McNemar's exact p = 0.03857"));
  EXPECT_THAT(text, HasSubstr("law         12       10        2  -66.67  0.0386"));
  for (TaskResult& r : b.results) r.subject.clear();  // llama.cpp's form of tasks has none
  EXPECT_EQ(comparison_json(compare_runs(a, b).value()), comparison_json(*c));
  b.results[0].subject = "anatomy";
  EXPECT_FALSE(compare_runs(a, b).ok());
  b.results[0].subject.clear();
  b.results[0].answer = 3;
  EXPECT_FALSE(compare_runs(a, b).ok());
  b.results.clear();
  EXPECT_FALSE(compare_runs(a, b).ok());
}

TEST(EvalReport, TheChartIsMarkup) {
  ChoiceSummary one, two;
  one.add(result(0, 1, 1, "<law>"));
  two.add(result(0, 0, 1, "other"));
  const std::string svg = accuracy_chart({{"a&b", &one}, {"c", &two}});
  EXPECT_THAT(svg, HasSubstr("&lt;law&gt;"));
  EXPECT_THAT(svg, HasSubstr("a&amp;b: 100.00 % of 1 tasks"));
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

using EvalFiles = test::TempFolder;

TEST_F(EvalFiles, ARunMayEndInTheMiddleOfALine) {
  const std::string lines =
      "{\"run\":{}}\n" + result_line(result(0, 1, 1)) + "\n" + result_line(result(1, 1, 1)) + "\n";
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{20}}) {
    const std::string path = write("run.jsonl", lines.substr(0, lines.size() - cut));
    const auto run = read_run(path);
    ASSERT_TRUE(run.ok()) << run.error().message;
    EXPECT_EQ(run->results.size(), cut == 0 ? 2u : 1u);
    EXPECT_EQ(run->header, "{\"run\":{}}");
  }
  EXPECT_THAT(read_run(write("x", "{}\n")).error().message, HasSubstr("line 1 has no key 'run'"));
  EXPECT_THAT(read_run(write("x", "{\"run\":{}}\n{}\n")).error().message, HasSubstr("line 2: key"));
}

LogitsRow row_of(const std::vector<float>& x) {
  LogitsRow row{.pos = 0, .logits = x};
  row.argmax = static_cast<TokenId>(std::ranges::max_element(x) - x.begin());
  row.max = x[static_cast<size_t>(row.argmax)];
  for (const float v : x) row.sum_exp += std::exp(static_cast<double>(v) - row.max);
  return row;
}

std::vector<float> logits(int n, int seed) {
  std::vector<float> x;
  for (int i = 0; i < n; ++i) x.push_back(static_cast<float>((i * 37 + seed * 11) % 101) / 10.0f);
  return x;
}

TEST(EvalLogProbs, DivergenceIsTheDefinitions) {
  const std::vector<float> p = logits(301, 1), q = logits(301, 2);
  std::vector<uint16_t> base(static_cast<size_t>(log_prob_row_len(301)));
  EXPECT_EQ(base.size(), 306u);
  const LogitsRow row_p = row_of(p), row_q = row_of(q);
  const double nll = pack_log_probs(row_p, 17, base);
  const RowDivergence d = compare_log_probs(row_q, 17, base);
  double kld = 0.0;
  const auto log_p = [](const LogitsRow& r, size_t i) {
    return r.logits[i] - r.max - std::log(r.sum_exp);
  };
  for (size_t i = 0; i < p.size(); ++i)
    kld += std::exp(log_p(row_p, i)) * (log_p(row_p, i) - log_p(row_q, i));
  EXPECT_TRUE(std::fabs(nll + log_p(row_p, 17)) <= 1e-5);
  EXPECT_TRUE(std::fabs(d.kld - kld) <= 1e-3 * kld) << d.kld << " " << kld;
  EXPECT_TRUE(std::fabs(d.nll + log_p(row_q, 17)) <= 1e-5);
  EXPECT_TRUE(std::fabs(d.nll_base - nll) <= 2e-4);
  EXPECT_FALSE(d.same_top);
  const RowDivergence self = compare_log_probs(row_p, 17, base);
  EXPECT_TRUE(std::fabs(self.kld) <= 1e-4) << self.kld;
  EXPECT_TRUE(self.same_top);
}

TokenChunks some_chunks() {
  TokenChunks c;
  for (int i = 0; i < 33; ++i) c.tokens.push_back(i % 7);
  c.n_ctx = c.stride = 8;
  c.n_chunk = 4;
  c.n_context = 4;
  return c;
}

TEST_F(EvalFiles, BaseFilesComeBackAndHostileOnesAreNamed) {
  const TokenChunks c = some_chunks();
  std::vector<uint16_t> rows(static_cast<size_t>(3 * log_prob_row_len(7)), 0);
  {
    auto out = KlBaseWriter::create(path("base"), c, 7);
    ASSERT_TRUE(out.ok());
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(out->append(rows).ok());
    ASSERT_TRUE(out->finish().ok());
  }
  const auto in = KlBaseReader::open(path("base"));
  ASSERT_TRUE(in.ok()) << in.error().message;
  EXPECT_EQ((*in)->n_vocab(), 7);
  EXPECT_EQ((*in)->chunks().n_chunk, 4);
  EXPECT_TRUE(
      std::equal((*in)->chunks().tokens.begin(), (*in)->chunks().tokens.end(), c.tokens.begin()));
  ASSERT_TRUE((*in)->read(3, rows).ok());
  const std::string good = test::slurp(path("base"));
  EXPECT_EQ(good.size(), 20u + 4 * 32 + 4 * 3 * 12 * 2);
  for (size_t n = 0; n < good.size(); n += 7) {
    const auto cut = KlBaseReader::open(write("cut", good.substr(0, n)));
    ASSERT_FALSE(cut.ok()) << n;
    EXPECT_THAT(cut.error().message, HasSubstr("cut: "));
  }
  const auto with = [&](size_t at, char value) {
    std::string bytes = good;
    bytes.replace(at, 4, std::string(4, value));
    return KlBaseReader::open(write("bad", bytes)).error().message;
  };
  EXPECT_THAT(with(8, '\xff'), HasSubstr("n_ctx = 4294967295"));
  EXPECT_THAT(with(12, '\xff'), HasSubstr("n_vocab = -1"));
  EXPECT_THAT(with(16, '\x7f'), HasSubstr("too few for 2139062143 windows"));
  EXPECT_THAT(with(20, '\x7f'), HasSubstr("a token = 2139062143"));
  EXPECT_THAT(with(0, 'x'), HasSubstr("no '_logits_'"));
  for (const auto& [scale, least] : {std::pair{-1.0f, -3.0f},
                                     {std::nanf(""), -3.0f},
                                     {1.0f, -3.0f},
                                     {0.0f, 80.0f},
                                     {0.0f, -INFINITY}}) {
    std::string bytes = good;
    std::memcpy(bytes.data() + 20 + 4 * 32, &scale, sizeof(scale));
    std::memcpy(bytes.data() + 20 + 4 * 32 + 4, &least, sizeof(least));
    const auto read = KlBaseReader::open(write("bad", bytes));
    ASSERT_TRUE(read.ok());
    const auto row = (*read)->read(0, rows);
    ASSERT_FALSE(row.ok()) << scale << " " << least;
    EXPECT_THAT(row.error().message, HasSubstr("bad: window 1 row 0: scale"));
  }
}

TEST(EvalDivergence, Percentiles) {
  const std::vector<float> x = {1, 2, 3, 4};
  EXPECT_EQ(percentile(x, 0.0), 1.0f);
  EXPECT_EQ(percentile(x, 1.0), 4.0f);
  EXPECT_EQ(percentile(x, 0.5), 2.5f);
}

}  // namespace
}  // namespace infer::eval
