#include "tests/support/stories260k.h"

#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "tests/support/json_file.h"
#include "tests/support/sentencepiece.h"

namespace infer::test {
namespace {

struct Header {
  int32_t n_embd, n_ff, n_layer, n_head, n_kv_head, n_vocab, n_ctx;
};

/// Cuts the float data into arrays, front to back.
class Cutter {
 public:
  Cutter(std::span<const std::byte> data, GgufImage& out) : rest_(data), out_(out) {}

  /// One tensor a layer: array [n_layer][shape].
  void layers(const char* name, int32_t n_layer, std::vector<int64_t> shape) {
    for (int32_t il = 0; il < n_layer; ++il)
      one("blk." + std::to_string(il) + "." + name + ".weight", shape);
  }
  void one(std::string name, std::vector<int64_t> shape) {
    size_t n_bytes = sizeof(float);
    for (const int64_t d : shape) n_bytes *= static_cast<size_t>(d);
    if (n_bytes > rest_.size()) {
      ok_ = false;
      return;
    }
    const auto bytes = rest_.first(n_bytes);
    out_.tensors.push_back(
        {std::move(name), DType::kF32, std::move(shape), {bytes.begin(), bytes.end()}});
    rest_ = rest_.subspan(n_bytes);
  }
  bool ok() const { return ok_; }
  size_t rest_bytes() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
  GgufImage& out_;
  bool ok_ = true;
};

void write_keys(const Header& h, GgufImage& out) {
  const auto u32 = [](int32_t v) { return static_cast<uint32_t>(v); };
  out.set("general.architecture", std::string("llama"));
  out.set("general.name", std::string("stories260K"));
  out.set("llama.block_count", u32(h.n_layer));
  out.set("llama.context_length", u32(h.n_ctx));
  out.set("llama.embedding_length", u32(h.n_embd));
  out.set("llama.feed_forward_length", u32(h.n_ff));
  out.set("llama.attention.head_count", u32(h.n_head));
  out.set("llama.attention.head_count_kv", u32(h.n_kv_head));
  out.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  out.set("llama.rope.dimension_count", u32(h.n_embd / h.n_head));
  out.set("llama.rope.freq_base", 10000.0f);
  out.set("general.file_type", uint32_t{0});
}

}  // namespace

Result<GgufImage> convert_stories260k(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "stories260K.bin";
  INFER_ASSIGN(const std::vector<std::byte> bytes, read_file(path));
  Header h{};
  if (bytes.size() < sizeof(h))
    return make_error(ErrorCode::kCorrupt, "{}: no header", path.string());
  std::memcpy(&h, bytes.data(), sizeof(h));
  constexpr int32_t kTop = 1 << 16;
  for (const int32_t v : {h.n_embd, h.n_ff, h.n_layer, h.n_head, h.n_kv_head, h.n_vocab, h.n_ctx}) {
    if (v < 1 || v > kTop)
      return make_error(ErrorCode::kCorrupt, "{}: {} in the header", path.string(), v);
  }
  const int64_t n_embd = h.n_embd;
  const int64_t n_ff = h.n_ff;
  const int64_t kv_dim = n_embd / h.n_head * h.n_kv_head;

  GgufImage out;
  write_keys(h, out);
  INFER_ASSIGN(SentencePieces pieces, read_sentencepiece(folder / "tok512.model"));
  write_sentencepiece(std::move(pieces), h.n_vocab, out);
  out.set("tokenizer.ggml.bos_token_id", uint32_t{1});
  out.set("tokenizer.ggml.eos_token_id", uint32_t{2});

  Cutter cut(std::span<const std::byte>(bytes).subspan(sizeof(h)), out);
  cut.one("token_embd.weight", {n_embd, h.n_vocab});
  cut.layers("attn_norm", h.n_layer, {n_embd});
  cut.layers("attn_q", h.n_layer, {n_embd, n_embd});
  cut.layers("attn_k", h.n_layer, {n_embd, kv_dim});
  cut.layers("attn_v", h.n_layer, {n_embd, kv_dim});
  cut.layers("attn_output", h.n_layer, {n_embd, n_embd});
  cut.layers("ffn_norm", h.n_layer, {n_embd});
  cut.layers("ffn_gate", h.n_layer, {n_embd, n_ff});
  cut.layers("ffn_down", h.n_layer, {n_ff, n_embd});
  cut.layers("ffn_up", h.n_layer, {n_embd, n_ff});
  cut.one("output_norm.weight", {n_embd});
  const size_t rope_bytes =
      static_cast<size_t>(h.n_ctx) * static_cast<size_t>(n_embd / h.n_head) * sizeof(float);
  if (!cut.ok() || cut.rest_bytes() != rope_bytes) {
    return make_error(ErrorCode::kCorrupt, "{}: {} bytes do not fit its header", path.string(),
                      bytes.size());
  }
  return out;
}

}  // namespace infer::test
