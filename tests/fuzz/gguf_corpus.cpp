#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/base/quant_types.h"
#include "tests/support/gguf_builder.h"

/// Writes the seed corpus of gguf_fuzz into the folder named on the command line:
///   gguf_corpus tests/fuzz/corpus/gguf
namespace infer::test {
namespace {

GgufBuilder tokenizer_file() {
  GgufBuilder b;
  b.set_string("general.architecture", "llama").set_string("tokenizer.ggml.model", "llama");
  b.set_strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "<0x00>", "<0xFF>", "a", "ab"});
  b.set_array<int32_t>("tokenizer.ggml.token_type", {2, 3, 3, 6, 6, 1, 1});
  b.set_array<float>("tokenizer.ggml.scores", {0, 0, 0, 0, 0, -1, -2});
  b.set_strings("tokenizer.ggml.merges", {"a b", "ab a"})
      .set<uint32_t>("tokenizer.ggml.bos_token_id", 1);
  b.set<uint32_t>("tokenizer.ggml.eos_token_id", 2).set<bool>("tokenizer.ggml.add_bos_token", true);
  return b.add_tensor("token_embd.weight", DType::kF16, {4, 7});
}

GgufBuilder split_file() {
  GgufBuilder b;
  b.set<uint16_t>("split.no", 0)
      .set<uint16_t>("split.count", 2)
      .set<int32_t>("split.tensors.count", 2);
  return b.add_tensor("a", DType::kQ8_0, {32});
}

GgufBuilder all_types() {
  GgufBuilder b;
  b.alignment = 1;
  b.set<uint32_t>("general.alignment", 1);
  for (const QuantType& q : quant_types()) b.add_tensor(q.name, q.type, {q.block_len});
  return b;
}

bool write(const std::filesystem::path& path, const Bytes& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  return out.good();
}

int run(const std::filesystem::path& folder) {
  GgufBuilder v2 = good_gguf();
  v2.version = 2;
  GgufBuilder deep;
  Bytes nested;
  for (int i = 0; i < 3; ++i) {
    put<uint32_t>(nested, GgufBuilder::kArray);
    put<uint64_t>(nested, 1);
  }
  put<uint32_t>(nested, 8);
  put<uint64_t>(nested, 1);
  put_string(nested, "in");
  deep.set_raw("deep", GgufBuilder::kArray, nested);
  GgufBuilder lies = good_gguf();
  lies.n_kv = uint64_t{1} << 32;
  GgufBuilder duplicate = good_gguf();
  duplicate.kvs.push_back(duplicate.kvs.front());
  GgufBuilder overflow = good_gguf();
  overflow.tensors[0].shape = {int64_t{1} << 61, 4};
  const bool ok = write(folder / "good.gguf", good_gguf().bytes()) &&
                  write(folder / "good_v2.gguf", v2.bytes()) &&
                  write(folder / "header_only.gguf", good_gguf().header()) &&
                  write(folder / "empty.gguf", GgufBuilder().bytes()) &&
                  write(folder / "tokenizer.gguf", tokenizer_file().bytes()) &&
                  write(folder / "split.gguf", split_file().bytes()) &&
                  write(folder / "types.gguf", all_types().bytes()) &&
                  write(folder / "nested.gguf", deep.bytes()) &&
                  write(folder / "bad_count.gguf", lies.bytes()) &&
                  write(folder / "bad_duplicate.gguf", duplicate.bytes()) &&
                  write(folder / "bad_size.gguf", overflow.bytes());
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace infer::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: gguf_corpus FOLDER\n");
    return 2;
  }
  return infer::test::run(argv[1]);
}
