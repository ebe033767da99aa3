#include "core/base/output_file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace infer::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class OutputFiles : public TempFolder {
 protected:
  mode_t mode_of(const std::string& file) const {
    struct stat s {};
    EXPECT_EQ(::stat(file.c_str(), &s), 0);
    return s.st_mode & 07777;
  }
};

TEST_F(OutputFiles, HasItsNameWhenItIsComplete) {
  const std::string name = path("a.txt");
  for (const char* text : {"new", "newer"}) {  // a free name, and one that is taken
    const std::string before = fs::exists(name) ? slurp(name) : "";
    auto out = OutputFile::create(name);
    ASSERT_TRUE(out.ok());
    ASSERT_TRUE(out->write(text).ok());
    EXPECT_EQ(fs::exists(name) ? slurp(name) : "", before);
    ASSERT_TRUE(out->finish().ok());
    EXPECT_EQ(slurp(name), text);
    EXPECT_EQ(n_files(), 1);
  }
}

TEST_F(OutputFiles, NothingIsLeftWithoutFinish) {
  const std::string name = write("a.txt", "old");
  {
    auto out = OutputFile::create(name);
    ASSERT_TRUE(out.ok());
    ASSERT_TRUE(out->write("half of it").ok());
  }
  EXPECT_EQ(slurp(name), "old");
  EXPECT_EQ(n_files(), 1);
}

TEST_F(OutputFiles, AKilledProcessLeavesNothing) {
  const std::string name = write("a.txt", "old");
  const pid_t child = fork();
  if (child == 0) {
    auto out = OutputFile::create(name);
    if (!out.ok() || !out->write("half of it").ok()) _exit(1);
    if (n_files() > 1) _exit(2);  // this file system knows no files without a name
    (void)std::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
    GTEST_SKIP() << "no O_TMPFILE on the file system of " << folder_;
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(slurp(name), "old");
  EXPECT_EQ(n_files(), 1);
}

TEST_F(OutputFiles, ReplacesWhatIsBehindALinkAndKeepsItsPermissions) {
  const std::string name = write("a.txt", "old");
  fs::permissions(name, fs::perms(0640));
  fs::create_symlink(name, path("link"));
  auto out = OutputFile::create(path("link"));
  ASSERT_TRUE(out.ok());
  ASSERT_TRUE(out->write("new").ok());
  ASSERT_TRUE(out->finish().ok());
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(slurp(name), "new");
  EXPECT_EQ(mode_of(name), 0640u);
}

TEST_F(OutputFiles, AnywhereInTheFile) {
  auto out = OutputFile::create(path("a.txt"));
  ASSERT_TRUE(out.ok());
  ASSERT_TRUE(out->reserve(6).ok());
  ASSERT_TRUE(out->write_at(4, std::as_bytes(std::span("ef", 2))).ok());
  ASSERT_TRUE(out->write_at(0, std::as_bytes(std::span("ab", 2))).ok());
  ASSERT_TRUE(out->finish().ok());
  EXPECT_EQ(slurp(path("a.txt")), std::string("ab\0\0ef", 6));
}

TEST_F(OutputFiles, ErrorsNameTheFile) {
  for (const std::string& bad : {path("none/a.txt"), folder_.string(), std::string("/dev/null")}) {
    const auto out = OutputFile::create(bad);
    ASSERT_FALSE(out.ok()) << bad;
    EXPECT_EQ(out.error().code, ErrorCode::kIo);
    EXPECT_THAT(out.error().message, HasSubstr(bad));
  }
  auto out = OutputFile::create(path("a.txt"));
  ASSERT_TRUE(out.ok());
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto reserved = out->reserve(5);
  const auto written = out->write("12345");
  const auto written_at = out->write_at(4, std::as_bytes(std::span("5", 1)));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  (void)std::signal(SIGXFSZ, handler);
  for (const auto& r : {reserved, written, written_at}) {
    ASSERT_FALSE(r.ok());
    EXPECT_THAT(r.error().message, HasSubstr("a.txt: cannot "));
    EXPECT_THAT(r.error().message, HasSubstr("File too large"));
  }
}

}  // namespace
}  // namespace infer::test
