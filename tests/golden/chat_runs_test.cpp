#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/json_file.h"
#include "tests/support/model_fixture.h"
#include "tests/support/test_env.h"

/// The demo question in the model's chat form, 100 times: no broken text, no loops, and nearly all
/// end by themselves.
namespace infer::test {
namespace {

/// Strict UTF-8 (no overlong forms, surrogates or numbers past U+10FFFF) without U+FFFD.
bool is_clean_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const auto lead = static_cast<uint8_t>(s[i]);
    const size_t n = lead < 0x80                   ? 1
                     : lead >= 0xc2 && lead < 0xe0 ? 2
                     : lead >= 0xe0 && lead < 0xf0 ? 3
                     : lead >= 0xf0 && lead < 0xf5 ? 4
                                                   : 0;
    if (n == 0 || i + n > s.size()) return false;
    uint32_t cp = n == 1 ? lead : lead & (0x7fu >> n);
    for (size_t j = 1; j < n; ++j) {
      const auto c = static_cast<uint8_t>(s[i + j]);
      if ((c & 0xc0) != 0x80) return false;
      cp = cp << 6 | (c & 0x3f);
    }
    if ((n == 3 && cp < 0x800) || (n == 4 && (cp < 0x10000 || cp > 0x10ffff)) ||
        (cp >= 0xd800 && cp < 0xe000))
      return false;
    if (cp == 0xfffd) return false;
    i += n;
  }
  return true;
}

int longest_run(const std::vector<TokenId>& ids) {
  int longest = 0;
  int run = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    run = i > 0 && ids[i] == ids[i - 1] ? run + 1 : 1;
    longest = std::max(longest, run);
  }
  return longest;
}

TEST(ChatRuns, CleanUtf8IsStrict) {
  EXPECT_TRUE(is_clean_utf8("plain, \xc3\xa9, \xe2\x82\xac, \xf0\x9f\x98\x80"));
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "a\xef\xbf\xbd"}) {
    EXPECT_FALSE(is_clean_utf8(bad));
  }
}

TEST(ChatRuns, HundredSeeds) {
  const auto path = models_dir() / "smollm2-135m-instruct-q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  const auto model = model_of(path);
  const auto prompts = must(read_json(shared_dir() / "golden/smollm2/prompts.json"));
  const auto ids = must(model->tokenizer().encode(prompts.at(3).get<std::string>()));

  EngineOptions options;
  options.n_ctx = 512;
  options.max_seqs = 25;
  options.manual = true;
  const EngineBox engine = must(EngineBox::create(model, options, {.isa = "", .n_threads = 2}));
  const int n_run = scaled(100, 4);
  std::vector<RequestId> requests;
  for (int seed = 1; seed <= n_run; ++seed) {
    Request request = make_request(ids, 400, {});
    request.sampling.temp = 0.7f;
    request.sampling.seed = static_cast<uint64_t>(seed);
    requests.push_back(must(engine->submit(std::move(request))));
  }
  run_to_end(*engine);
  int n_eos = 0;
  int64_t n_tok = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Completion got = must(engine->wait(requests[i])).samples.at(0);
    EXPECT_TRUE(is_clean_utf8(got.text)) << "seed " << i + 1 << ": " << got.text;
    EXPECT_LT(longest_run(got.ids), 20) << "seed " << i + 1 << ": " << got.text;
    EXPECT_FALSE(got.text.empty()) << "seed " << i + 1;
    n_eos += got.stop_reason == StopReason::kEos;
    n_tok += static_cast<int64_t>(got.ids.size());
    if (i == 0) fmt::print("[ measured ] seed 1: {}\n", got.text);
  }
  fmt::print("[ measured ] {} of {} runs ended with eos, {} tokens\n", n_eos, n_run, n_tok);
  EXPECT_GE(n_eos * 100, n_run * 95);
}

}  // namespace
}  // namespace infer::test
