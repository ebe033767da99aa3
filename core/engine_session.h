#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"

/// Sessions: tokens with their keys and values, so that a later run need not compute them again.
/// Public; Request::keep, Request::session, Engine::read_session and write_session use it.
namespace infer {

/// What keys and values depend on besides the tokens: a session serves only an engine whose binding
/// is equal. (Neither ISA level nor device is part of it: a session made elsewhere gives the bits
/// of where it was made.)
struct SessionBinding {
  uint64_t model_hash = 0;  ///< gguf::content_hash
  bool precise = false;
  bool long_rope = false;  ///< model::Hparams::long_ropes are in use
  DType type_k = DType::kF16, type_v = DType::kF16;
  struct Layer {
    int64_t n_kv_head = 0, head_dim = 0, head_dim_v = 0;
    int64_t window = 0;  ///< tokens a row sees, its own included; 0: all
    bool operator==(const Layer&) const = default;
  };
  std::vector<Layer> layers;  ///< graph::Graph::cache_layers
  int64_t n_vocab = 0;
  bool operator==(const SessionBinding&) const = default;
};

/// A sequence's tokens and, for each cache layer, K and V of tokens [first, tokens.size()), those
/// that a later token can see.
struct Session {
  uint64_t adapter_hash = 0;  ///< of the mix of adapters; 0: none
  std::vector<int32_t> tokens;
  struct Layer {
    int64_t first = 0;
    /// Rows [n_kv_head][head_dim], roped, of the cache's type; q8_0 and q4_0 as ggml's blocks along
    /// head_dim.
    std::vector<std::byte> k, v;
  };
  std::vector<Layer> layers;
};

/// Bytes of one token's K or V rows; 0 for a type or a size that cannot be cached.
int64_t session_row_bytes(DType type, int64_t n_kv_head, int64_t head_dim);
/// Writes through a temporary file beside it and a rename. Errors: kIo naming the file.
///
/// Format, little endian, no padding: magic "INFERSES", u32 version = 1, u32 flags (1: precise, 2:
/// rotary factors of long contexts), u64 model hash, u64 adapter hash, u32 type_k, u32 type_v
/// (GGUF's type ids), u32 layers, u32 0, u64 tokens; i32 per token; per layer u32 n_kv_head,
/// head_dim, head_dim_v, first token, then rows of K, then rows of V; u32 CRC-32C of everything
/// before it.
Result<void> write_session(const std::string& path, const SessionBinding& binding,
                           const Session& session);

/// Every count is checked against the file's size before anything is allocated. Errors: kNotFound,
/// kIo; kUnsupported for another version; kInvalidArgument for a session of another binding (what
/// differs is named); kCorrupt. One line naming the file.
Result<Session> read_session(const std::string& path, const SessionBinding& binding);
/// The same from memory (tests, fuzzing).
Result<Session> parse_session(std::span<const std::byte> bytes, const std::string& name,
                              const SessionBinding& binding);

}  // namespace infer
