#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/lora.h"
#include "tests/support/model_fixture.h"
#include "tests/support/tiny_model.h"

/// infer-cli's flags for adapters, keys, memory and sessions.
namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int exit_code = -1;
  std::string out, err;
};

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class MemoryFlags : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "infer-mem-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    must(tiny_model("llama").write(path("tiny.gguf")));
    must(make_lora(tiny_model("llama"), {.sigma = 0.5f, .seed = 3}).write(path("a.gguf")));
    must(make_lora(tiny_model("llama"), {.sigma = 0.5f, .seed = 4}).write(path("b.gguf")));
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  Outcome run(std::vector<std::string> args, const std::string& model = "tiny.gguf") const {
    args.insert(args.begin(), {"-m", path(model), "-p", "a the", "-n", "12", "--temp", "0",
                               "--ignore-eos", "--precise", "-c", "64"});
    return raw(args);
  }
  Outcome raw(const std::vector<std::string>& args) const {
    std::string command = "'" INFER_CLI_PROGRAM "'";
    for (const std::string& a : args) command += " '" + a + "'";
    command += " >" + path("stdout") + " 2>" + path("stderr") + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(path("stdout")),
            slurp(path("stderr"))};
  }
  std::string text(const std::vector<std::string>& args,
                   const std::string& model = "tiny.gguf") const {
    const Outcome r = run(args, model);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r.out;
  }
  void expect_error(const std::vector<std::string>& args, int exit_code,
                    const std::string& word) const {
    const Outcome r = run(args);
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_EQ(r.out, "");
    EXPECT_THAT(r.err, HasSubstr("infer-cli: error: "));
    EXPECT_THAT(r.err, HasSubstr(word));
  }
  fs::path folder_;
};

TEST_F(MemoryFlags, Lora) {
  const GgufImage base = tiny_model("llama");
  const GgufImage a = make_lora(base, {.sigma = 0.5f, .seed = 3});
  const GgufImage b = make_lora(base, {.sigma = 0.5f, .seed = 4});
  must(merged(base, a, 1.0f).write(path("with_a.gguf")));
  must(merged(merged(base, a, 1.0f), b, -0.5f).write(path("with_both.gguf")));
  const std::string plain = text({});
  const std::string with_a = text({}, "with_a.gguf");
  const std::string with_both = text({}, "with_both.gguf");
  EXPECT_NE(plain, with_a);
  EXPECT_NE(with_a, with_both);
  EXPECT_EQ(text({"--lora", path("a.gguf")}), with_a);
  EXPECT_EQ(text({"--lora-scaled", path("a.gguf"), "1"}), with_a);
  EXPECT_EQ(text({"--lora", path("a.gguf"), "--lora-scaled", path("b.gguf"), "-0.5"}), with_both);
  EXPECT_EQ(text({"--lora-scaled", path("b.gguf"), "-0.5", "--lora-scaled", path("a.gguf"), "1"}),
            with_both);
  EXPECT_EQ(text({"--lora-scaled", path("a.gguf"), "0"}), plain);
  expect_error({"--lora", path("none.gguf")}, 1, "none.gguf");
  expect_error({"--lora", path("tiny.gguf")}, 1, "general.type");
  expect_error({"--lora-scaled", path("a.gguf"), "nan"}, 2, "--lora-scaled");
  expect_error({"--lora-scaled", path("a.gguf")}, 2, "--lora-scaled");
}

TEST_F(MemoryFlags, OverrideKv) {
  GgufImage image = tiny_model("llama");
  image.set("llama.rope.freq_base", 10.0f);
  image.set("llama.rope.scaling.type", std::string("none"));
  must(image.write(path("set.gguf")));
  const std::string want = text({}, "set.gguf");
  EXPECT_NE(want, text({}));
  EXPECT_EQ(want, text({"--override-kv", "llama.rope.freq_base=float:10", "--override-kv",
                        "llama.rope.scaling.type=str:none"}));
  EXPECT_EQ(want, text({"--rope-freq-base", "10", "--rope-scaling", "none"}));
  EXPECT_EQ(text({}), text({"--rope-freq-scale", "0.5"}));  // as the file says
  EXPECT_EQ(text({}), text({"--rope-scale", "2"}));
  EXPECT_NE(text({}), text({"--rope-freq-scale", "0.01"}));
  expect_error({"--override-kv", "llama.rope.freq_base"}, 2, "--override-kv");
  expect_error({"--override-kv", "llama.rope.freq_base=int:3"}, 2, "--override-kv");
  expect_error({"--override-kv", "llama.block_count=int:7"}, 1, "--override-kv llama.block_count");
  expect_error({"--rope-freq-base", "0"}, 2, "--rope-freq-base");
  expect_error({"--rope-scaling", "ntk"}, 2, "--rope-scaling");
  expect_error({"--rope-scale", "2", "--rope-freq-scale", "2"}, 2, "--rope-");
}

TEST_F(MemoryFlags, Pages) {
  const std::string want = text({});
  for (const std::vector<std::string>& flags :
       {std::vector<std::string>{"--no-hugepages"}, std::vector<std::string>{"--mlock"},
        std::vector<std::string>{"--numa", "distribute"},
        std::vector<std::string>{"--numa", "isolate"},
        std::vector<std::string>{"--numa", "numactl"}}) {
    EXPECT_EQ(text(flags), want) << flags[0];
  }
  expect_error({"--numa", "mirror"}, 2, "--numa");
  const Outcome locked = run({"--mlock"});
  // Either it is locked, or the warning says what to do.
  EXPECT_TRUE(locked.err.find("locked ") != std::string::npos ||
              locked.err.find("ulimit -l ") != std::string::npos)
      << locked.err;
  // Pools of 2 MiB and more may be on huge pages.
  const std::vector<std::string> large = {"-m",
                                          path("tiny.gguf"),
                                          "-p",
                                          "a",
                                          "-n",
                                          "1",
                                          "-c",
                                          "100000",
                                          "--override-kv",
                                          "llama.attention.sliding_window=int:0"};
  EXPECT_THAT(raw(large).err, HasSubstr("huge pages for "));
  std::vector<std::string> without = large;
  without.emplace_back("--no-hugepages");
  EXPECT_THAT(raw(without).err, Not(HasSubstr("huge pages")));
}

TEST_F(MemoryFlags, PromptCache) {
  const std::string file = path("x.session");
  const std::vector<std::string> cache = {"--prompt-cache", file};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), cache.begin(), cache.end());
    return more;
  };
  const std::string want = text({});
  expect_error(with({"--prompt-cache-ro"}), 1, "x.session");
  EXPECT_EQ(text(cache), want);
  ASSERT_TRUE(fs::exists(file));
  const std::string first = slurp(file);
  const Outcome again = run(cache);
  EXPECT_EQ(again.out, want);
  EXPECT_THAT(again.err, HasSubstr("session " + file));
  EXPECT_EQ(slurp(file), first);

  EXPECT_EQ(text(with({"--prompt-cache-all"})), want);
  const std::string all = slurp(file);
  EXPECT_GT(all.size(), first.size());
  EXPECT_EQ(text(with({"--prompt-cache-ro"})), want);
  EXPECT_EQ(slurp(file), all);

  // Without a prompt the session's tokens are the prompt, and the answer goes on.
  const Outcome longer = raw({"-m", path("tiny.gguf"), "-p", "a the", "-n", "20", "--temp", "0",
                              "--ignore-eos", "--precise", "-c", "64"});
  const Outcome rest =
      raw({"-m", path("tiny.gguf"), "-f", "/dev/null", "-n", "9", "--temp", "0", "--ignore-eos",
           "--precise", "-c", "64", "--prompt-cache", file, "--prompt-cache-ro"});
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_TRUE(longer.out.ends_with(rest.out)) << longer.out << "|" << rest.out;
  EXPECT_NE(rest.out, "");

  // Another model, type, adapter; a spoilt file.
  GgufImage other = tiny_model("llama");
  other.set("general.name", std::string("other"));
  must(other.write(path("other.gguf")));
  const Outcome strange = run(with({"--prompt-cache-ro"}), "other.gguf");
  EXPECT_EQ(strange.exit_code, 2) << strange.err;
  EXPECT_THAT(strange.err, HasSubstr("another model"));
  expect_error(with({"--lora", path("a.gguf")}), 2, "adapters");
  std::string spoilt = all;
  spoilt[spoilt.size() / 2] ^= 1;
  std::ofstream(file, std::ios::binary) << spoilt;
  expect_error(cache, 1, "checksum");
  std::ofstream(file, std::ios::binary) << all.substr(0, 100);
  expect_error(cache, 1, "x.session");
  expect_error({"--prompt-cache-all"}, 2, "--prompt-cache");

  // What is no file is never replaced by one, and nothing is computed for it.
  expect_error({"--prompt-cache", folder_.string()}, 1, "is no regular file");
  expect_error({"--prompt-cache", path("no/folder/x")}, 1, "no/folder/x");
  fs::create_symlink("/dev/null", path("device"));
  expect_error({"--prompt-cache", path("device")}, 1, "is no regular file");
  EXPECT_TRUE(fs::is_symlink(path("device")));
}

}  // namespace
}  // namespace infer::test
