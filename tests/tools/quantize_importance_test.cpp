#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/reader.h"
#include "quantize/codec.h"
#include "quantize/imatrix.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/quantize_input.h"
#include "tests/support/temp_folder.h"

/// `quantize --imatrix`: both forms of the file change the result for the better, leave their keys,
/// and are refused where they do not fit.
namespace infer::test {
namespace {

using quantize::Imatrix;
using quantize::ImatrixEntry;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr int32_t kTok = 16;
constexpr int32_t kCalls = 2;  ///< chunks of 8 tokens

class QuantizeImportance : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    in_ = write("in.gguf", quantize_input(DType::kF32));
    out_ = path("out.gguf");
    const auto model = open(in_);
    ASSERT_NE(model, nullptr);
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    for (const gguf::TensorInfo& t : model->tensors()) {
      if (!t.name.starts_with("blk.") || t.n_dims < 2) continue;
      std::vector<float>& means = means_[std::string(t.name)];
      for (int64_t i = 0; i < t.view.ne[0]; ++i) means.push_back(std::exp(1.5f * normal(rng)));
    }
    ASSERT_EQ(means_.size(), 2u * 5u);
  }
  static std::shared_ptr<const gguf::Reader> open(const std::string& path) {
    const auto file = gguf::Reader::open(path);
    EXPECT_TRUE(file.ok()) << file.error().message;
    return file.ok() ? *file : nullptr;
  }
  Outcome run(const std::string& type, std::vector<std::string> more) const {
    more.insert(more.begin(), {in_, out_, type});
    return run_program(QUANTIZE_PROGRAM, more);
  }
  /// The GGUF form of the means.
  std::string write_gguf(const std::string& name) const {
    Imatrix m;
    m.chunk_tok = kTok / kCalls;
    m.n_chunk = kCalls;
    m.datasets = {"wiki.txt", "more.txt"};
    for (const auto& [tensor, means] : means_) {
      ImatrixEntry e;
      e.n_k = std::ssize(means);
      e.n_tok = {kTok};
      for (const float mean : means) e.sum_sq.push_back(mean * kTok);
      EXPECT_TRUE(m.add(tensor, e).ok());
    }
    EXPECT_TRUE(m.write(path(name)).ok());
    return path(name);
  }
  /// The legacy form.
  std::string write_dat(const std::string& name) const {
    Bytes b;
    const auto put_string = [&](const std::string& text) {
      put(b, static_cast<int32_t>(text.size()));
      put_text(b, text);
    };
    put(b, static_cast<int32_t>(means_.size()));
    for (const auto& [tensor, means] : means_) {
      put_string(tensor);
      put(b, kCalls);
      put(b, static_cast<int32_t>(means.size()));
      for (const float mean : means) put(b, mean * kCalls);
    }
    put(b, kCalls);
    put_string("wiki.txt");
    return write(name, {reinterpret_cast<const char*>(b.data()), b.size()});
  }
  /// Sum of mean square times squared error over all matrices that have means.
  double weighted_error() const {
    const auto in = open(in_), out = open(out_);
    if (in == nullptr || out == nullptr) return std::nan("");
    const auto codec = quantize::select_codec("");
    double sum = 0.0;
    for (const auto& [tensor, means] : means_) {
      const TensorView& from = in->find_tensor(tensor)->view;
      const TensorView& to = out->find_tensor(tensor)->view;
      std::vector<float> back(static_cast<size_t>(from.n_elem()));
      codec->kernels.decode_row[static_cast<size_t>(to.type)](to.data, from.n_elem(), back.data());
      for (size_t i = 0; i < back.size(); ++i) {
        float x = 0.0f;
        std::memcpy(&x, from.data + i * sizeof(float), sizeof(float));
        const double error = static_cast<double>(back[i]) - x;
        sum += static_cast<double>(means[i % means.size()]) * error * error;
      }
    }
    return sum;
  }
  static std::string tensor_bytes(const std::string& file) {
    std::string all;
    if (const auto model = open(file)) {
      for (const gguf::TensorInfo& t : model->tensors())
        all.append(reinterpret_cast<const char*>(t.view.data), static_cast<size_t>(t.view.n_bytes));
    }
    return all;
  }
  /// One line, the old output as it was.
  void expect_refused(const Outcome& r, int exit_code, const std::string& words) const {
    EXPECT_EQ(r.exit_code, exit_code) << r.err;
    EXPECT_THAT(r.err, AllOf(StartsWith("quantize: error: "), HasSubstr(words)));
    EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
    EXPECT_EQ(slurp(out_), "old");
  }

  std::string in_, out_;
  std::map<std::string, std::vector<float>> means_;  // of each matrix
};

TEST_F(QuantizeImportance, LowersTheWeightedError) {
  const std::string importance = write_gguf("i.gguf");
  for (const char* type : kWrittenTypes) {
    SCOPED_TRACE(type);
    ASSERT_EQ(run(type, {}).exit_code, 0);
    const double without = weighted_error();
    const std::string bytes = tensor_bytes(out_);
    const Outcome r = run(type, {"--imatrix", importance});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    EXPECT_THAT(r.err, testing::Not(HasSubstr("knows nothing")));
    const std::string name = type;
    if (name == "F32" || name == "F16" || name == "BF16" || name == "Q8_0") {
      EXPECT_TRUE(tensor_bytes(out_) == bytes);  // rounded to the nearest, whatever matters
      continue;
    }
    const double with = weighted_error();
    EXPECT_TRUE(with < 0.95 * without) << with << " with, " << without << " without";
    std::printf("%-6s %.3f of the weighted error\n", type, with / without);
  }
}

TEST_F(QuantizeImportance, BothFormsDoTheSameAndLeaveTheirKeys) {
  const std::string gguf_form = write_gguf("i.gguf"), legacy = write_dat("i.dat");
  for (const char* type : {"Q4_0", "Q4_K_M"}) {
    ASSERT_EQ(run(type, {"--imatrix", gguf_form}).exit_code, 0);
    const std::string bytes = tensor_bytes(out_);
    for (const std::string& file : {gguf_form, legacy}) {
      const Outcome r = run(type, {"--imatrix", file});
      ASSERT_EQ(r.exit_code, 0) << r.err;
      EXPECT_TRUE(tensor_bytes(out_) == bytes) << file;
      const auto model = open(out_);
      EXPECT_EQ(*model->get_string("quantize.imatrix.file"), file);
      EXPECT_EQ(*model->get_string("quantize.imatrix.dataset"), "wiki.txt");
      EXPECT_EQ(*model->get_int("quantize.imatrix.entries_count"), 10);
      EXPECT_EQ(*model->get_int("quantize.imatrix.chunks_count"), kCalls);
      for (const char* key : {"quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"})
        EXPECT_EQ(model->find(key)->type(), gguf::ValueType::kU32);
    }
  }
  // Of a model that had them already only the new ones stay.
  ASSERT_EQ(run("F16", {"--imatrix", gguf_form}).exit_code, 0);
  ASSERT_EQ(run_program(QUANTIZE_PROGRAM, {out_, path("again.gguf"), "Q4_0", "--imatrix", legacy})
                .exit_code,
            0);
  EXPECT_EQ(*open(path("again.gguf"))->get_string("quantize.imatrix.file"), legacy);
}

TEST_F(QuantizeImportance, OfAnotherModelIsRefused) {
  write("out.gguf", "old");
  const auto good = means_;
  means_["blk.0.attn_q.weight"].resize(512, 1.0f);
  for (const std::string& file : {write_gguf("wide.gguf"), write_dat("wide.dat")}) {
    expect_refused(run("Q4_K_M", {"--imatrix", file}), 2,
                   file +
                       ": tensor 'blk.0.attn_q.weight' has sums of 512 columns, the model's "
                       "tensor has 256 columns");
  }
  means_.clear();
  for (const auto& [tensor, means] : good) means_["blk.7" + tensor.substr(5)] = means;
  for (const std::string& file : {write_gguf("deep.gguf"), write_dat("deep.dat")}) {
    expect_refused(run("Q4_K_M", {"--imatrix", file}), 2,
                   file + ": is of another model: it knows none of the 10 tensors");
  }
  expect_refused(run("Q4_0", {"--imatrix", in_}), 1, in_ + ": ");
  expect_refused(run("Q4_0", {"--imatrix", path("none")}), 1, path("none"));
  expect_refused(run("Q4_0", {"--imatrix", write("text", "no matrix at all")}), 1,
                 "text: is no importance matrix");
}

TEST_F(QuantizeImportance, IsNoOutput) {
  const std::string importance = write_gguf("i.gguf");
  const std::string before = slurp(importance);
  std::filesystem::create_hard_link(importance, path("hard.gguf"));
  for (const std::string& out : {importance, path("hard.gguf")}) {
    out_ = out;
    const Outcome r = run("Q4_0", {"--imatrix", importance});
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_EQ(r.err, "quantize: error: " + out + ": is the importance matrix\n");
    EXPECT_TRUE(slurp(importance) == before);
  }
}

TEST_F(QuantizeImportance, WhatItLacksIsSaid) {
  means_.erase("blk.0.attn_k.weight");
  means_.erase("blk.1.ffn_down.weight");
  const Outcome r = run("Q4_0", {"--imatrix", write_gguf("i.gguf")});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_THAT(r.err, HasSubstr("quantize: warning: " + path("i.gguf") +
                               ": knows nothing of 2 tensors (the first: 'blk.0.attn_k.weight')"));
}

/// As in llama.cpp: Q2_K of this mix is of no use without.
TEST_F(QuantizeImportance, LowestMixNeedsEveryMatrix) {
  const std::string whole = write_gguf("whole.gguf");
  means_.erase("blk.1.attn_q.weight");
  const std::string partial = write_gguf("partial.gguf");
  write("out.gguf", "old");
  expect_refused(run("Q2_K_S", {}), 1,
                 "tensor 'blk.0.attn_q.weight' as q2_k in Q2_K_S needs an importance matrix");
  expect_refused(run("Q2_K_S", {"--imatrix", partial}), 2,
                 partial +
                     ": knows nothing of tensor 'blk.1.attn_q.weight', which cannot be q2_k "
                     "in Q2_K_S without");
  EXPECT_EQ(run("Q2_K_S", {"--imatrix", partial, "--tensor-type", "attn_q=q3_k"}).exit_code, 0);
  EXPECT_EQ(run("Q2_K", {"--imatrix", partial}).exit_code, 0);
  EXPECT_EQ(run("Q2_K_S", {"--imatrix", whole}).exit_code, 0);
}

}  // namespace
}  // namespace infer::test
