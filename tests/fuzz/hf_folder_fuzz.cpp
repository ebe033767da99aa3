#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "quantize/convert/hf_source.h"

/// Any bytes as a Hugging Face folder: an error of one line, or a source whose rows can all be
/// read, whole and in parts. The input is four lengths of 16 bits (config.json, header of
/// model.safetensors, tokenizer.json, data), the three texts and the beginning of the data; the
/// rest of the data is zeros. Built for libFuzzer (INFER_FUZZ) and for replay_main.cpp.
namespace {

namespace fs = std::filesystem;

/// A folder of this process.
struct Folder {
  std::string path = (fs::temp_directory_path() / "infer-fuzz-XXXXXX").string();
  Folder() {
    if (mkdtemp(path.data()) == nullptr) __builtin_trap();
  }
  ~Folder() {
    std::error_code ec;
    fs::remove_all(path, ec);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void write(const char* name, std::string_view bytes) const {
    std::FILE* f = std::fopen((path + "/" + name).c_str(), "wb");
    if (f == nullptr) __builtin_trap();
    if (std::fwrite(bytes.data(), 1, bytes.size(), f) != bytes.size()) __builtin_trap();
    std::fclose(f);
  }
};

std::string_view take(std::string_view& rest, size_t n) {
  const std::string_view part = rest.substr(0, n);
  rest.remove_prefix(part.size());
  return part;
}
size_t take_length(std::string_view& rest) {
  size_t n = 0;
  for (const char c : take(rest, 2)) n = n << 8 | static_cast<uint8_t>(c);
  return n;
}

void check_line(std::string_view message) {
  if (message.empty() || message.find('\n') != std::string_view::npos) __builtin_trap();
}

void write_folder(const Folder& folder, std::string_view rest) {
  size_t n[4];
  for (size_t& length : n) length = take_length(rest);
  folder.write("config.json", take(rest, n[0]));
  const std::string_view header = take(rest, n[1]);
  const std::string_view tokenizer = take(rest, n[2]);
  std::string weights;
  for (int i = 0; i < 8; ++i)
    weights += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  weights += header;
  weights += take(rest, n[3]);
  weights.resize(8 + header.size() + n[3]);
  folder.write("model.safetensors", weights);
  folder.write("tokenizer.json", tokenizer);
}

void read_all(const infer::quantize::Source& source) {
  const auto tensors = source.header().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const infer::TensorView& view = tensors[i].view;
    const int64_t n_k = view.ne[0];
    const int64_t n_row = view.n_elem() / n_k;
    std::vector<float> whole(static_cast<size_t>(view.n_elem()));
    const auto done = source.read_rows(i, 0, n_row, whole);
    if (!done.ok()) check_line(done.error().message);
    std::vector<float> row(static_cast<size_t>(n_k));
    for (int64_t r = 0; r < n_row && done.ok(); ++r) {
      if (!source.read_rows(i, r, 1, row).ok()) __builtin_trap();
      const auto same = [](float a, float b) { return a == b || (a != a && b != b); };
      if (!std::equal(row.begin(), row.end(), whole.begin() + r * n_k, same)) __builtin_trap();
      const auto stored = source.stored_rows(i, r, 1);
      if (!stored.empty() &&
          stored.size() != row.size() * (view.type == infer::DType::kF32 ? 4 : 2))
        __builtin_trap();
      source.release_rows(i, r, 1);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  write_folder(folder, {reinterpret_cast<const char*>(data), size});
  const auto source = infer::quantize::open_hf(folder.path, {.name = "m", .log = check_line});
  if (!source.ok()) {
    check_line(source.error().message);
    return 0;
  }
  read_all(**source);
  return 0;
}
