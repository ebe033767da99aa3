#include <chrono>
#include <csignal>
#include <filesystem>
#include <regex>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/model_fixture.h"
#include "tests/support/stories260k.h"
#include "tests/support/temp_folder.h"
#include "tests/support/terminal.h"
#include "tests/support/test_env.h"
#include "tests/support/tiny_model.h"

/// Conversations with infer-cli: on a terminal, by a script that types, and through pipes.
namespace infer::test {
namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

using Args = std::vector<std::string>;

constexpr const char* kTemplate =
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}";
constexpr std::string_view kLeft = "\033[D";
constexpr std::string_view kUp = "\033[A";
constexpr std::string_view kCtrlC = "\x03";
constexpr std::string_view kCtrlD = "\x04";

Args operator+(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class InferCliChat : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    GgufImage image = tiny_model("llama");
    image.set("tokenizer.chat_template", std::string(kTemplate));
    image.set("llama.context_length", uint32_t{1024});
    must(image.write(tiny()));
  }
  std::string tiny() const { return path("tiny.gguf"); }
  Args short_answers() const { return {"-m", tiny(), "-n", "4", "--temp", "0", "--ignore-eos"}; }
  static fs::path demo_model() { return models_dir() / "smollm2-135m-instruct-q4_1.gguf"; }

  /// Sends `input` through a pipe.
  Outcome pipe(const std::string& input, const Args& args) const {
    return run_program(INFER_CLI_PROGRAM, args, "", "<" + write("input.txt", input));
  }
  std::vector<std::string> contents(const std::string& name) const {
    std::vector<std::string> out;
    const json j = json::parse(slurp(path(name)), nullptr, false);
    EXPECT_TRUE(j.is_object()) << name;
    if (!j.is_object()) return out;
    for (const json& m : j["messages"]) out.push_back(m["content"].get<std::string>());
    return out;
  }
};

/// The last number of tokens that were cached, as /stats or -v tell it.
int64_t last_cached(const std::string& text) {
  const std::regex pattern(R"(\(([0-9]+) cached\))");
  int64_t n = -1;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), pattern);
       it != std::sregex_iterator(); ++it)
    n = std::stoll((*it)[1]);
  return n;
}

#define ASSERT_SHOWS(terminal, text) \
  ASSERT_TRUE((terminal).wait_for(text)) << "no '" << (text) << "' in\n" << (terminal).screen()

TEST_F(InferCliChat, AConversationOnATerminal) {
  if (!fs::exists(demo_model())) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  Terminal t(INFER_CLI_PROGRAM, {"-m", demo_model().string(), "--temp", "0", "-sys", "Be brief."},
             {"TERM=xterm"});
  ASSERT_TRUE(t.is_open());
  ASSERT_SHOWS(t, "/help");
  ASSERT_SHOWS(t, "> ");
  t.type("What is the capital of Frence?");
  for (int i = 0; i < 4; ++i) t.type(kLeft);
  t.type("\x7f");
  t.type("a\r");
  ASSERT_SHOWS(t, "Paris");
  ASSERT_SHOWS(t, "\n> ");
  t.type("And what is the capital of Italy?\r");
  ASSERT_SHOWS(t, "\n> ");
  t.type("Count from 1 to 1000. Do not stop.\r");
  ASSERT_SHOWS(t, "stop.\n");
  ASSERT_SHOWS(t, " ");
  t.type(kCtrlC);
  ASSERT_SHOWS(t, "(stopped");
  ASSERT_SHOWS(t, "\n> ");
  t.type("/stats\r");
  ASSERT_SHOWS(t, "7 messages");
  EXPECT_GT(last_cached(t.screen()), 0) << t.screen();
  t.type("/save " + path("chat.json") + "\r");
  ASSERT_SHOWS(t, "7 messages saved");
  t.type("/clear\r/regen\r");
  ASSERT_SHOWS(t, "no answer yet");
  t.type("/load " + path("chat.json") + "\r");
  ASSERT_SHOWS(t, "7 messages loaded");
  t.type("/regen\r");
  ASSERT_SHOWS(t, "/regen\n");
  ASSERT_SHOWS(t, " ");
  t.type(kCtrlC);
  ASSERT_SHOWS(t, "(stopped");
  t.type("/nonsense\r");
  ASSERT_SHOWS(t, "unknown command /nonsense");
  t.type("/exit\r");
  EXPECT_EQ(t.wait_exit(), 0) << t.screen();
  const std::vector<std::string> said = contents("chat.json");
  ASSERT_EQ(said.size(), 7u);
  EXPECT_EQ(said[1], "What is the capital of France?");
  EXPECT_THAT(said[2], HasSubstr("Paris"));
  EXPECT_EQ(said[5], "Count from 1 to 1000. Do not stop.");
  EXPECT_NE(said[6], "");
}

TEST_F(InferCliChat, EditingHistoryAndBlocks) {
  Terminal t(INFER_CLI_PROGRAM, short_answers(), {"TERM=xterm", "LC_ALL=C"});
  ASSERT_SHOWS(t, "> ");
  t.type("caf\xc3\xa9 \xed\x95\x9c\xea\xb8\x80!\x7f\r");  // beyond ASCII, whatever the locale says
  ASSERT_SHOWS(t, "\n> ");
  t.type(kUp);
  t.type("2\r");
  ASSERT_SHOWS(t, "\n> ");
  t.type("one\\\r");
  ASSERT_SHOWS(t, ". ");
  t.type("two\r");
  ASSERT_SHOWS(t, "\n> ");
  t.type("\"\"\"\r/exit\r\rlast\"\"\"\r");
  ASSERT_SHOWS(t, "last\"\"\"");
  ASSERT_SHOWS(t, "\n> ");
  t.type("thrown away");
  t.type(kCtrlC);
  ASSERT_SHOWS(t, "Not sent");
  t.type("/save " + path("chat.json") + "\r");
  ASSERT_SHOWS(t, "8 messages saved");
  t.type(kCtrlD);
  EXPECT_EQ(t.wait_exit(), 0) << t.screen();
  EXPECT_TRUE(t.is_cooked());
  const std::vector<std::string> said = contents("chat.json");
  ASSERT_EQ(said.size(), 8u);
  EXPECT_EQ(said[0], "caf\xc3\xa9 \xed\x95\x9c\xea\xb8\x80");
  EXPECT_EQ(said[2],
            "caf\xc3\xa9 \xed\x95\x9c\xea\xb8\x80"
            "2");
  EXPECT_EQ(said[4], "one\ntwo");
  EXPECT_EQ(said[6], "/exit\n\nlast");
}

TEST_F(InferCliChat, PastedLinesAreOneMessage) {
  Terminal t(INFER_CLI_PROGRAM, short_answers(), {"TERM=xterm"});
  ASSERT_SHOWS(t, "> ");
  t.type("say: \033[200~/one\r\tcaf\xc3\xa9\r\r/exit\r\033[201~");
  ASSERT_SHOWS(t, "/exit");
  t.type("!\r");
  ASSERT_SHOWS(t, "\n> ");
  t.type("\033[200~/two\r2\033[201~\r");
  ASSERT_SHOWS(t, "\n> ");
  t.type("/save " + path("chat.json") + "\r");
  ASSERT_SHOWS(t, "4 messages saved");
  t.type(kCtrlD);
  EXPECT_EQ(t.wait_exit(), 0) << t.screen();
  // The terminal marks pastes only while a line is edited.
  EXPECT_GT(t.raw().rfind("\033[?2004l"), t.raw().rfind("\033[?2004h"));
  const std::vector<std::string> said = contents("chat.json");
  ASSERT_EQ(said.size(), 4u);
  EXPECT_EQ(said[0], "say: /one\n\tcaf\xc3\xa9\n\n/exit!");
  EXPECT_EQ(said[2], "/two\n2");
}

TEST_F(InferCliChat, ColoursEndWithThePrompt) {
  const auto prompts_of = [&](const std::vector<std::string>& env) {
    Terminal t(INFER_CLI_PROGRAM, short_answers(), env);
    EXPECT_TRUE(t.wait_for("> ")) << t.screen();
    t.type("a\r");
    EXPECT_TRUE(t.wait_for("\n> ")) << t.screen();
    t.type(kCtrlD);
    EXPECT_EQ(t.wait_exit(), 0) << t.screen();
    return t.raw();
  };
  const std::string colours = prompts_of({"TERM=xterm", "NO_COLOR="});
  const size_t sign = colours.find("\033[1;32m>");
  ASSERT_NE(sign, std::string::npos) << colours;
  EXPECT_LT(colours.find("\033[0m", sign), colours.find("a\r", sign)) << colours;
  EXPECT_GT(colours.rfind("\033[0m"), colours.rfind("\033[1;32m")) << colours;
  EXPECT_THAT(prompts_of({"TERM=xterm", "NO_COLOR=1"}), Not(HasSubstr("32m")));
  EXPECT_THAT(prompts_of({"TERM=dumb", "NO_COLOR="}), Not(HasSubstr("\033[")));
}

TEST_F(InferCliChat, KeysDuringAnAnswerWaitForTheNextLine) {
  if (!fs::exists(demo_model())) GTEST_SKIP() << "no demo model (INFER_MODELS)";
  Terminal t(INFER_CLI_PROGRAM, {"-m", demo_model().string(), "--temp", "0", "-n", "30"},
             {"TERM=xterm"});
  ASSERT_SHOWS(t, "> ");
  t.type("Count from 1 to 1000. Do not stop.\r");
  ASSERT_SHOWS(t, "stop.\n");
  ASSERT_SHOWS(t, " ");  // the answer has begun
  t.type("/typed ahead\r");
  ASSERT_SHOWS(t, "\n> /typed ahead");
  ASSERT_SHOWS(t, "unknown command /typed");
  const std::string shown = t.screen();
  EXPECT_EQ(shown.find("/typed ahead"), shown.rfind("/typed ahead")) << shown;
  t.type(kCtrlD);
  EXPECT_EQ(t.wait_exit(), 0) << t.screen();
  EXPECT_TRUE(t.is_cooked());
}

TEST_F(InferCliChat, CtrlCTwiceLeaves) {
  const Args endless = {"-m", tiny(), "--temp", "0", "--ignore-eos", "-c", "0"};
  {
    Terminal t(INFER_CLI_PROGRAM, short_answers(), {"TERM=xterm"});
    ASSERT_SHOWS(t, "> ");
    for (const char* typed : {"one", "two"}) {  // a line that is given up does not leave
      t.type(typed);
      ASSERT_SHOWS(t, typed);
      t.type(kCtrlC);
      ASSERT_SHOWS(t, "Not sent. Ctrl-C again");
      ASSERT_SHOWS(t, "\n> ");
    }
    t.type(kCtrlC);
    EXPECT_EQ(t.wait_exit(), 130) << t.screen();
    EXPECT_TRUE(t.is_cooked());
  }
  {  // killed while a line is edited: the terminal is as it was
    Terminal t(INFER_CLI_PROGRAM, short_answers(), {"TERM=dumb"});
    ASSERT_SHOWS(t, "> ");
    t.type("half a l");
    ASSERT_SHOWS(t, "half a l");
    EXPECT_FALSE(t.is_cooked());
    t.signal(SIGTERM);
    EXPECT_EQ(t.wait_exit(), 130) << t.screen();
    EXPECT_TRUE(t.is_cooked());
  }
}

TEST_F(InferCliChat, OpensByItselfOnlyWhereAPersonIs) {
  {
    Terminal t(INFER_CLI_PROGRAM, short_answers() + Args{"-p", "a"}, {"TERM=xterm"});
    EXPECT_EQ(t.wait_exit(), 0) << t.screen();
    EXPECT_THAT(t.screen(), Not(HasSubstr("/help")));
  }
  {
    Terminal t(INFER_CLI_PROGRAM, short_answers() + Args{"-no-cnv"}, {"TERM=xterm"});
    EXPECT_EQ(t.wait_exit(), 2) << t.screen();
    EXPECT_THAT(t.screen(), HasSubstr("no prompt"));
  }
  must(tiny_model("llama").write(path("plain.gguf")));
  {
    Terminal t(INFER_CLI_PROGRAM, {"-m", path("plain.gguf")}, {"TERM=xterm"});
    EXPECT_EQ(t.wait_exit(), 2) << t.screen();
  }
  const Outcome forced = pipe("a\n", {"-m", path("plain.gguf"), "-cnv"});
  EXPECT_EQ(forced.exit_code, 2);
  EXPECT_THAT(forced.err, HasSubstr("no chat template"));
  const Outcome completed = pipe("a the", short_answers());
  EXPECT_EQ(completed.out, pipe("", short_answers() + Args{"-p", "a the"}).out);
}

TEST_F(InferCliChat, APipeGetsTextOnly) {
  const Args chat = short_answers() + Args{"-cnv", "-sys", "be nice"};
  const Outcome all = pipe("a\r\n\n/stats\nthe\n//a\n/system\n/help", chat);
  EXPECT_EQ(all.exit_code, 0) << all.err;
  EXPECT_THAT(all.err, HasSubstr("4 tokens"));
  EXPECT_THAT(all.err, HasSubstr("be nice"));
  EXPECT_THAT(all.err, HasSubstr("/regen"));
  const Outcome first = pipe("", short_answers() + Args{"-sys", "be nice", "-st", "-p", "a"});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  std::string want = first.out;
  if (!want.ends_with('\n')) want += '\n';
  ASSERT_TRUE(all.out.starts_with(want)) << all.out;
  EXPECT_EQ(pipe("a\n", chat + Args{"-st"}).out, want);
  EXPECT_EQ(pipe("a\nthe\n//a\n", chat).out, all.out);
  EXPECT_EQ(pipe("the\n//a\n", chat + Args{"-p", "a"}).out, all.out) << "-p is the first message";

  const Outcome bad = pipe("/what\n/load " + path("none.json") + "\n/save\n/regen\na\n", chat);
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_EQ(bad.out, want);
  for (const char* word : {"/what", "none.json", "no file named", "no answer yet"})
    EXPECT_THAT(bad.err, HasSubstr(word));
  for (const Args& wrong :
       {Args{"-no-cnv"}, Args{"--json"}, Args{"--prompt-ids", "1"}, Args{"-np", "2"}})
    EXPECT_EQ(pipe("a\n", chat + wrong).exit_code, 2) << wrong[0];
  const Outcome full = run_program(INFER_CLI_PROGRAM, chat, "printf '%s\\n' a a |", ">/dev/full");
  EXPECT_EQ(full.exit_code, 1);
}

TEST_F(InferCliChat, SavedConversationsGoOn) {
  const Args chat = short_answers() + Args{"-cnv"};
  const std::string file = path("chat.json");
  const Outcome whole = pipe("/system be nice\na\nthe\n", chat);
  EXPECT_EQ(pipe("/system be nice\na\n/save " + file + "\n", chat).exit_code, 0);
  const Outcome rest = pipe("/load " + file + "\nthe\n", chat);
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.err, Not(HasSubstr("warning")));
  EXPECT_TRUE(!rest.out.empty() && whole.out.ends_with(rest.out)) << whole.out << rest.out;

  const json good = json::parse(slurp(file));
  EXPECT_EQ(good["messages"].size(), 3u);
  EXPECT_EQ(good["messages"][0]["role"], "system");
  const auto refused = [&](const std::string& name, const std::string& text, const char* word) {
    const Outcome r = pipe("/load " + write(name, text) + "\n", chat);
    EXPECT_EQ(r.exit_code, 1) << name;
    const size_t line = r.err.find("infer-cli: error: ");
    ASSERT_NE(line, std::string::npos) << r.err;
    EXPECT_EQ(r.err.find('\n', line), r.err.size() - 1) << r.err;
    EXPECT_THAT(r.err.substr(line), testing::AllOf(HasSubstr(name), HasSubstr(word)));
  };
  refused("empty.json", "", "not a saved conversation");
  refused("cut.json", good.dump().substr(0, 40), "not a saved conversation");
  refused("other.json", "{\"messages\": []}", "not a saved conversation");
  json bad = good;
  bad["version"] = 2;
  refused("later.json", bad.dump(), "version");
  bad = good;
  bad["messages"][1]["content"] = 5;
  refused("content.json", bad.dump(), "messages[1]");
  bad = good;
  bad["messages"][1]["role"] = "system";
  refused("role.json", bad.dump(), "messages[1]");
  const int64_t n = n_files();
  EXPECT_EQ(pipe("/save " + path("no/folder.json") + "\n", chat).exit_code, 1);
  EXPECT_EQ(n_files(), n);
}

TEST_F(InferCliChat, AFullContextIsALine) {
  const Args chat = {"-m", tiny(), "-cnv", "--temp", "0", "--ignore-eos", "-c", "64", "-n", "200"};
  const Outcome r = pipe("a\nthe\n/clear\nthe\n", chat);
  EXPECT_EQ(r.exit_code, 1) << r.err;
  EXPECT_THAT(r.err, HasSubstr("the answer is cut off"));
  EXPECT_THAT(r.err, HasSubstr("context full: the conversation has"));
  EXPECT_EQ(pipe("/clear\nthe\n", chat).exit_code, 0);
}

TEST_F(InferCliChat, TheCacheHoldsWhatTheModelSaid) {
  if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  GgufImage image = must(convert_stories260k(shared_dir() / "data/models/stories260K"));
  image.set("tokenizer.chat_template", std::string(kTemplate));
  must(image.write(path("stories.gguf")));
  // Far from greedy: the tokenizer would cut this text into other tokens than the model did.
  const Args chat = {"-m",   path("stories.gguf"),
                     "-cnv", "--temp",
                     "2",    "--top-k",
                     "0",    "--top-p",
                     "1",    "--min-p",
                     "0",    "-s",
                     "1",    "-n",
                     "90",   "-v"};
  const Outcome r = pipe("Once\nthen\n", chat + Args{"--ignore-eos"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  // The second prompt begins with the first and its 90 tokens; whole blocks of 32 are shared.
  EXPECT_GE(last_cached(r.err), 96) << r.err;
  const Outcome again =
      pipe("Once upon a time there was a little fox who had a red ball and a blue hat\n/regen\n",
           chat + Args{"--ignore-eos"});
  EXPECT_GT(last_cached(again.err), 0) << again.err;
  EXPECT_NE(again.out.substr(0, again.out.size() / 3), again.out.substr(again.out.size() / 2));
}

TEST_F(InferCliChat, PromptsCanBeShown) {
  const Args show = {"-m", tiny(), "--print-prompt"};
  const Outcome chat = pipe("", show + Args{"-cnv", "-sys", "be", "-p", "a"});
  EXPECT_EQ(chat.exit_code, 0) << chat.err;
  const std::string text = "[system] be\n[user] a\n[assistant] ";
  ASSERT_TRUE(chat.out.starts_with(text + "\n")) << chat.out;
  std::string ids = chat.out.substr(text.size() + 1);
  ids.pop_back();
  const Args rest = {"-n", "4", "--temp", "0", "--ignore-eos"};
  EXPECT_EQ(pipe("", Args{"-m", tiny(), "--prompt-ids", ids} + rest).out,
            pipe("", Args{"-m", tiny(), "-st", "-sys", "be", "-p", "a"} + rest).out);
  const json j = json::parse(pipe("", show + Args{"-p", "a the", "--json"}).out, nullptr, false);
  EXPECT_EQ(j["text"], "a the");
  EXPECT_FALSE(j["ids"].empty());

  const std::string other = write("other.jinja", "{{ messages[0]['content'] }}!");
  for (const char* flag : {"--chat-template", "--chat-template-file"}) {
    const Outcome r = pipe("", show + Args{"-cnv", flag, other, "-p", "a"});
    EXPECT_TRUE(r.out.starts_with("a!\n")) << r.out << r.err;
  }
  EXPECT_EQ(
      pipe("", show + Args{"-cnv", "--chat-template-file", path("none"), "-p", "a"}).exit_code, 1);
}

}  // namespace
}  // namespace infer::test
