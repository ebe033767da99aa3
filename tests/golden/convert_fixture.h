#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "quantize/convert/hf_source.h"
#include "quantize/convert/safetensors.h"
#include "tests/support/json_file.h"
#include "tests/support/model_fixture.h"
#include "tests/support/safetensors_builder.h"
#include "tests/support/source_image.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_env.h"

/// Golden Hugging Face checkpoints to be changed, written to a folder and opened there.
namespace infer::test {

using Json = nlohmann::json;
using quantize::SafeTensors;
using quantize::Source;

struct Entry {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

/// A checkpoint in memory, to be changed and written somewhere.
struct Checkpoint {
  std::filesystem::path origin;
  Json config;
  std::vector<Entry> entries;

  explicit Checkpoint(const std::string& name) : origin(shared_dir() / "golden/hf" / name) {
    config = must(read_json(origin / "config.json"));
    const SafeTensors file = must(SafeTensors::open_file((origin / "model.safetensors").string()));
    for (const auto& t : file.tensors()) {
      entries.push_back({t.name,
                         std::string(quantize::name_of(t.type)),
                         t.shape,
                         {t.data.begin(), t.data.end()}});
    }
  }
  Entry& entry(const std::string& name) {
    const auto it = std::find_if(entries.begin(), entries.end(),
                                 [&](const Entry& e) { return e.name == name; });
    if (it == entries.end()) throw std::runtime_error("no tensor " + name);
    return *it;
  }
  void erase(const std::string& name) {
    std::erase_if(entries, [&](const Entry& e) { return e.name == name; });
  }
  /// Tensors i, i + n_file, ... go to file i.
  void write(const std::filesystem::path& to, size_t n_file = 1) const {
    std::filesystem::create_directories(to);
    for (const auto& file : std::filesystem::directory_iterator(origin)) {
      const std::string name = file.path().filename().string();
      if (name.starts_with("tokenizer") || name.starts_with("generation"))
        std::filesystem::copy_file(file.path(), to / name);
    }
    std::ofstream(to / "config.json") << config.dump();
    Json map = Json::object();
    for (size_t i = 0; i < n_file; ++i) {
      const std::string name = n_file == 1
                                   ? "model.safetensors"
                                   : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, n_file);
      SafetensorsBuilder b;
      for (size_t j = i; j < entries.size(); j += n_file) {
        b.add(entries[j].name, entries[j].dtype, entries[j].shape, entries[j].bytes);
        map[entries[j].name] = name;
      }
      const auto bytes = b.bytes();
      std::ofstream(to / name, std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    }
    if (n_file > 1)
      std::ofstream(to / "model.safetensors.index.json") << Json{{"weight_map", map}}.dump();
  }
};

/// Equal tensors, whatever their order.
inline void expect_same_tensors(GgufImage a, GgufImage b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const GgufTensor& t : a.tensors) {
    const GgufTensor* other = b.find_tensor(t.name);
    ASSERT_NE(other, nullptr) << t.name;
    EXPECT_EQ(t.shape, other->shape) << t.name;
    EXPECT_EQ(t.bytes, other->bytes) << t.name;
  }
}

/// Rows in panels of any size, and bytes where there are some, are those of the whole tensor.
/// Counts the panels that had bytes.
inline void expect_panels(const Source& source, int64_t& n_stored) {
  const auto tensors = source.header().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& view = tensors[i].view;
    const int64_t n_k = view.ne[0];
    const int64_t n_row = view.n_elem() / n_k;
    std::vector<float> whole(static_cast<size_t>(view.n_elem()));
    must(source.read_rows(i, 0, n_row, whole));
    for (const int64_t panel : {int64_t{1}, int64_t{7}, n_row}) {
      for (int64_t row = 0; row < n_row; row += panel) {
        const int64_t n = std::min(panel, n_row - row);
        std::vector<float> part(static_cast<size_t>(n * n_k));
        must(source.read_rows(i, row, n, part));
        ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + row * n_k))
            << tensors[i].name << " row " << row << " panel " << panel;
        const auto stored = source.stored_rows(i, row, n);
        source.release_rows(i, row, n);
        if (stored.empty()) continue;
        ++n_stored;
        ASSERT_EQ(stored.size(), part.size() * (view.type == DType::kF32 ? 4U : 2U));
        for (size_t j = 0; j < part.size(); ++j) {
          uint32_t bits = 0;
          if (view.type == DType::kF32) {
            std::memcpy(&bits, stored.data() + 4 * j, 4);
          } else {
            ASSERT_EQ(view.type, DType::kBF16);
            std::memcpy(reinterpret_cast<std::byte*>(&bits) + 2, stored.data() + 2 * j, 2);
          }
          ASSERT_EQ(std::bit_cast<float>(bits), part[j]) << tensors[i].name;
        }
      }
    }
  }
}

class Convert : public TempFolder {
 protected:
  void SetUp() override {
    TempFolder::SetUp();
    if (!has_shared()) GTEST_SKIP() << "no shared data (INFER_SHARED)";
  }
  static GgufImage golden(const std::string& name) {
    return must(convert_hf(shared_dir() / "golden/hf" / name));
  }
  std::filesystem::path next() { return folder_ / fmt::format("m{}", n_++); }
  GgufImage converted(const Checkpoint& c, size_t n_file = 1) {
    const auto to = next();
    c.write(to, n_file);
    return must(convert_hf(to));
  }
  /// The refusal of a checkpoint that `spoil` changed.
  std::string refusal(const std::string& name, const std::function<void(Checkpoint&)>& spoil) {
    Checkpoint c(name);
    spoil(c);
    const auto to = next();
    c.write(to);
    const auto source = quantize::open_hf(to.string(), {});
    if (source.ok()) return "accepted";
    EXPECT_EQ(source.error().message.rfind(to.string(), 0), 0U) << source.error().message;
    EXPECT_EQ(source.error().message.find('\n'), std::string::npos);
    return source.error().message.substr(to.string().size());
  }
  int n_ = 0;
};

}  // namespace infer::test
