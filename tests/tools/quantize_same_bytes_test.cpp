#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/cpu_features.h"
#include "gguf/reader.h"
#include "quantize/imatrix.h"
#include "tests/support/quantize_input.h"
#include "tests/support/temp_folder.h"

/// What the program writes depends on neither the instruction set nor the number of threads: whole
/// files, every type, with and without --best and --imatrix. The encoders alone: ops_encode.
namespace infer::test {
namespace {

/// Levels of --isa that this CPU has; the first is what the others are compared with.
std::vector<std::string> isa_levels() {
  const CpuFeatures cpu = detect_cpu_features();
  std::vector<std::string> levels{"generic"};
  if (cpu.avx2 && cpu.fma && cpu.f16c) levels.emplace_back("avx2");
  if (cpu.avx512f && cpu.avx512bw && cpu.avx512vl && cpu.avx512dq) levels.emplace_back("avx512");
  return levels;
}

/// Sanitizers are slow: there each level has one number of threads only.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kAllThreads = false;
#else
constexpr bool kAllThreads = true;
#endif

class QuantizeSameBytes : public TempFolder, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    // The last matrix has rows for several panels.
    in_ = write("in.gguf", quantize_input(DType::kF32, /*n_ff_up=*/1500));
    importance_ = path("i.gguf");
    write_importance();
  }
  /// Columns of every matrix matter by factors of up to 20.
  void write_importance() const {
    const auto model = gguf::Reader::open(in_);
    ASSERT_TRUE(model.ok()) << model.error().message;
    quantize::Imatrix m;
    m.chunk_tok = 8;
    m.n_chunk = 2;
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    for (const gguf::TensorInfo& t : (*model)->tensors()) {
      if (t.n_dims < 2 || t.name == "token_embd.weight") continue;
      quantize::ImatrixEntry e;
      e.n_k = t.view.ne[0];
      e.n_tok = {16};
      for (int64_t i = 0; i < e.n_k; ++i) e.sum_sq.push_back(16.0f * std::exp(normal(rng)));
      ASSERT_TRUE(m.add(t.name, e).ok());
    }
    ASSERT_TRUE(m.write(importance_).ok());
  }
  std::string quantized(const std::string& isa, int n_threads,
                        const std::vector<std::string>& more) const {
    std::vector<std::string> args{
        in_, path("out.gguf"), GetParam(), std::to_string(n_threads), "--isa", isa};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome r = run_program(QUANTIZE_PROGRAM, args);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return slurp(path("out.gguf"));
  }

  std::string in_, importance_;
};

TEST_P(QuantizeSameBytes, AtEveryIsaAndThreadCount) {
  const std::vector<std::string> levels = isa_levels();
  const std::vector<std::vector<std::string>> ways = {
      {}, {"--best"}, {"--imatrix", importance_}, {"--best", "--imatrix", importance_}};
  for (size_t way = 0; way < ways.size(); way += kAllThreads ? 1 : 3) {
    const std::string first = quantized(levels.front(), 1, ways[way]);
    ASSERT_FALSE(first.empty());
    for (size_t level = 0; level < levels.size(); ++level) {
      // The plain way with all thread counts; the others with one a level, in turn.
      for (size_t i = 0; i < 4; ++i) {
        if ((way > 0 || !kAllThreads) && (way + level) % 4 != i) continue;
        constexpr int kThreads[] = {1, 2, 3, 7};
        const std::string bytes = quantized(levels[level], kThreads[i], ways[way]);
        EXPECT_TRUE(bytes == first)
            << levels[level] << ", " << kThreads[i] << " threads, way " << way;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizeSameBytes, testing::ValuesIn(kWrittenTypes),
                         [](const auto& name) { return std::string(name.param); });

TEST(QuantizeSameBytesLevels, AreAllThere) {
  for (const std::string level : {"avx2", "avx512"}) {
    const std::vector<std::string> levels = isa_levels();
    if (std::ranges::find(levels, level) == levels.end())
      GTEST_SKIP() << level << ": this CPU has it not; its bytes were not compared";
  }
}

}  // namespace
}  // namespace infer::test
