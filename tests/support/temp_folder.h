#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

/// Tests with files, and tests of programs.
namespace infer::test {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// What a program left behind.
struct Outcome {
  int exit_code = -1;  ///< -1: ended by a signal
  std::string out, err;
};

/// A folder of its own for each test, removed afterwards.
class TempFolder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "infer-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  /// Gives the path.
  std::string write(const std::string& name, std::string_view text) const {
    std::ofstream out(folder_ / name, std::ios::binary);
    out << text << std::flush;
    EXPECT_TRUE(out.good()) << name;
    return path(name);
  }
  int64_t n_files() const {
    return std::distance(std::filesystem::directory_iterator(folder_),
                         std::filesystem::directory_iterator());
  }

  /// Runs `before` PROGRAM ARGS `after` in a shell; `after` may redirect. Arguments are of our own
  /// making: no single quotes in them.
  Outcome run_program(const std::string& program, const std::vector<std::string>& args,
                      const std::string& before = "", const std::string& after = "") const {
    std::string command = before + " '" + program + "'";
    for (const std::string& a : args) command += " '" + a + "'";
    command += " >" + path("stdout") + " 2>" + path("stderr") + " " + after;
    const int status = std::system(command.c_str());
    Outcome r{WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(path("stdout")),
              slurp(path("stderr"))};
    std::filesystem::remove(path("stdout"));
    std::filesystem::remove(path("stderr"));
    return r;
  }

  std::filesystem::path folder_;
};

}  // namespace infer::test
