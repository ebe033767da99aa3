#include "core/engine_session.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "core/base/checked.h"
#include "core/base/crc32c.h"
#include "core/base/error.h"
#include "core/base/input_file.h"
#include "core/base/output_file.h"
#include "core/base/quant_types.h"
#include "core/runtime/kv_cache.h"

namespace infer {
namespace {

constexpr char kMagic[8] = {'I', 'N', 'F', 'E', 'R', 'S', 'E', 'S'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kPrecise = 1;
constexpr uint32_t kLongRope = 2;
constexpr uint64_t kMaxTokens = uint64_t{1} << 24;

struct Header {
  char magic[8];
  uint32_t version, flags;
  uint64_t model_hash, adapter_hash;
  uint32_t type_k, type_v, n_layer, zero;
  uint64_t n_tok;
};
static_assert(sizeof(Header) == 56 && std::is_trivially_copyable_v<Header>);

struct LayerHeader {
  uint32_t n_kv_head, head_dim, head_dim_v, first;
};
static_assert(sizeof(LayerHeader) == 16 && std::is_trivially_copyable_v<LayerHeader>);

template <class T>
std::span<const std::byte> bytes_of(const T& v) {
  return std::as_bytes(std::span(&v, 1));
}

/// A file that ends with the checksum of what was written.
class Output {
 public:
  static Result<Output> create(const std::string& path) {
    INFER_ASSIGN(OutputFile file, OutputFile::create(path));
    return Output(std::move(file));
  }
  Result<void> write(std::span<const std::byte> bytes) {
    crc_ = crc32c(crc_, bytes);
    return file_.write(bytes);
  }
  Result<void> finish() {
    INFER_TRY(file_.write(bytes_of(crc_)));
    return file_.finish();
  }

 private:
  explicit Output(OutputFile file) : file_(std::move(file)) {}
  OutputFile file_;
  uint32_t crc_ = 0;
};

/// Bytes from a file or from memory, one after the other, with their checksum.
class Input {
 public:
  using ReadAt = std::function<Result<void>(int64_t offset, std::span<std::byte> out)>;
  Input(std::string name, int64_t size, ReadAt read)
      : name_(std::move(name)), size_(size), read_(std::move(read)) {}

  const std::string& name() const { return name_; }
  int64_t size() const { return size_; }
  uint32_t crc() const { return crc_; }
  /// Needs: so many bytes are there.
  Result<void> take(std::span<std::byte> out) {
    INFER_TRY(read_(at_, out));
    at_ += static_cast<int64_t>(out.size());
    crc_ = crc32c(crc_, out);
    return {};
  }
  template <class T>
  Result<T> take() {
    T v{};
    INFER_TRY(take(std::as_writable_bytes(std::span(&v, 1))));
    return v;
  }
  int64_t left() const { return size_ - at_; }

  template <class... Args>
  Error bad(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) const {
    return make_error(code, "{}: {}", name_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  std::string name_;
  int64_t size_ = 0, at_ = 0;
  ReadAt read_;
  uint32_t crc_ = 0;
};

/// Slots that hold no finite number would spoil whoever gets their block next.
bool all_finite(DType type, std::span<const std::byte> rows) {
  const auto& q = quant_type(type);
  const auto step = static_cast<size_t>(q.block_bytes);  // one element, or a block and its scale
  const bool wide = type == DType::kF32;
  const uint32_t exponent = type == DType::kBF16 ? 0x7f80u : 0x7c00u;
  for (size_t i = 0; i + step <= rows.size(); i += step) {
    if (wide) {
      uint32_t v = 0;
      std::memcpy(&v, rows.data() + i, 4);
      if ((v & 0x7f800000u) == 0x7f800000u) return false;
    } else {
      uint16_t v = 0;
      std::memcpy(&v, rows.data() + i, 2);
      if ((v & exponent) == exponent) return false;
    }
  }
  return true;
}

Result<void> check_header(const Input& in, const Header& h, const SessionBinding& b) {
  constexpr ErrorCode kOther = ErrorCode::kInvalidArgument;
  if (std::memcmp(h.magic, kMagic, sizeof(kMagic)) != 0)
    return in.bad(ErrorCode::kCorrupt, "is no session file");
  if (h.version != kVersion) {
    return in.bad(ErrorCode::kUnsupported, "session of version {}, known is {}", h.version,
                  kVersion);
  }
  if (h.model_hash != b.model_hash) {
    return in.bad(kOther, "session of another model (hash {:016x}, this one's is {:016x})",
                  h.model_hash, b.model_hash);
  }
  if ((h.flags & ~(kPrecise | kLongRope)) != 0 || h.zero != 0)
    return in.bad(ErrorCode::kCorrupt, "session with flags {:x}, {:x}", h.flags, h.zero);
  if (((h.flags & kPrecise) != 0) != b.precise) {
    return in.bad(kOther, "session of a run {} --precise", b.precise ? "without" : "with");
  }
  if (((h.flags & kLongRope) != 0) != b.long_rope) {
    return in.bad(kOther, "session of a run with {} context: other rotary factors",
                  b.long_rope ? "less" : "more");
  }
  const auto check_type = [&](const char* what, uint32_t id, DType want) -> Result<void> {
    const auto type = dtype_from_gguf_id(id);
    if (type == want) return {};
    return in.bad(kOther, "session with {} of type {}, this run's is {}", what,
                  type ? name_of(*type) : "unknown", name_of(want));
  };
  INFER_TRY(check_type("K", h.type_k, b.type_k));
  INFER_TRY(check_type("V", h.type_v, b.type_v));
  if (h.n_layer != b.layers.size()) {
    return in.bad(ErrorCode::kCorrupt, "session with {} layers, expected {}", h.n_layer,
                  b.layers.size());
  }
  if (h.n_tok > kMaxTokens || static_cast<int64_t>(h.n_tok) > in.left() / 4)
    return in.bad(ErrorCode::kCorrupt, "session of {} tokens in {} bytes", h.n_tok, in.size());
  return {};
}

Result<void> read_tokens(Input& in, const SessionBinding& b, size_t n_tok, Session* out) {
  out->tokens.resize(n_tok);
  INFER_TRY(in.take(std::as_writable_bytes(std::span(out->tokens))));
  for (size_t i = 0; i < n_tok; ++i) {
    if (out->tokens[i] < 0 || out->tokens[i] >= b.n_vocab) {
      return in.bad(ErrorCode::kCorrupt, "token {} = {} is not in a vocabulary of {}", i,
                    out->tokens[i], b.n_vocab);
    }
  }
  return {};
}

Result<void> read_rows(Input& in, const char* what, DType type, int64_t n_bytes, size_t il,
                       std::vector<std::byte>* out) {
  if (n_bytes > in.left())
    return in.bad(ErrorCode::kCorrupt, "ends inside {} of layer {}", what, il);
  out->resize(static_cast<size_t>(n_bytes));
  INFER_TRY(in.take(*out));
  if (!all_finite(type, *out))
    return in.bad(ErrorCode::kCorrupt, "{} of layer {} has numbers that are not finite", what, il);
  return {};
}

Result<void> read_layer(Input& in, const SessionBinding& b, size_t il, Session* out) {
  const SessionBinding::Layer& want = b.layers[il];
  if (in.left() < static_cast<int64_t>(sizeof(LayerHeader)))
    return in.bad(ErrorCode::kCorrupt, "ends before layer {}", il);
  INFER_ASSIGN(const LayerHeader h, in.take<LayerHeader>());
  if (h.n_kv_head != want.n_kv_head || h.head_dim != want.head_dim ||
      h.head_dim_v != want.head_dim_v) {
    return in.bad(ErrorCode::kCorrupt, "layer {} has [{}, {}, {}], expected [{}, {}, {}]", il,
                  h.n_kv_head, h.head_dim, h.head_dim_v, want.n_kv_head, want.head_dim,
                  want.head_dim_v);
  }
  const auto n_tok = static_cast<int64_t>(out->tokens.size());
  Session::Layer& layer = out->layers.emplace_back();
  layer.first = h.first;
  if (layer.first % runtime::kBlockTok != 0 || layer.first > n_tok ||
      layer.first > runtime::first_seen(want.window, n_tok))
    return in.bad(ErrorCode::kCorrupt, "layer {} begins at token {} of {}", il, h.first, n_tok);
  const int64_t n_row = n_tok - layer.first;
  const int64_t k = session_row_bytes(b.type_k, want.n_kv_head, want.head_dim);
  const int64_t v = session_row_bytes(b.type_v, want.n_kv_head, want.head_dim_v);
  // n_row <= 2^24 and rows of at most 2^31 bytes: no overflow.
  INFER_TRY(read_rows(in, "K", b.type_k, n_row * k, il, &layer.k));
  return read_rows(in, "V", b.type_v, n_row * v, il, &layer.v);
}

Result<Session> read(Input in, const SessionBinding& b) {
  if (in.size() < static_cast<int64_t>(sizeof(Header) + sizeof(uint32_t)))
    return in.bad(ErrorCode::kCorrupt, "is no session file ({} bytes)", in.size());
  INFER_ASSIGN(const Header h, in.take<Header>());
  INFER_TRY(check_header(in, h, b));
  Session out;
  out.adapter_hash = h.adapter_hash;
  INFER_TRY(read_tokens(in, b, static_cast<size_t>(h.n_tok), &out));
  out.layers.reserve(b.layers.size());
  for (size_t il = 0; il < b.layers.size(); ++il) INFER_TRY(read_layer(in, b, il, &out));
  if (in.left() != static_cast<int64_t>(sizeof(uint32_t)))
    return in.bad(ErrorCode::kCorrupt, "has {} bytes at its end, expected 4", in.left());
  const uint32_t crc = in.crc();
  INFER_ASSIGN(const auto stored, in.take<uint32_t>());
  if (stored != crc) {
    return in.bad(ErrorCode::kCorrupt, "its checksum is {:08x}, but {:08x} is expected", crc,
                  stored);
  }
  return out;
}

}  // namespace

int64_t session_row_bytes(DType type, int64_t n_kv_head, int64_t head_dim) {
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16 && type != DType::kQ8_0 &&
      type != DType::kQ4_0)
    return 0;
  const auto head = row_bytes(type, head_dim);
  const auto all = head ? checked_mul(*head, n_kv_head) : std::nullopt;
  return all && *all <= std::numeric_limits<int32_t>::max() ? *all : 0;
}

Result<void> write_session(const std::string& path, const SessionBinding& binding,
                           const Session& session) {
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof(kMagic));
  h.version = kVersion;
  h.flags = (binding.precise ? kPrecise : 0) | (binding.long_rope ? kLongRope : 0);
  h.model_hash = binding.model_hash;
  h.adapter_hash = session.adapter_hash;
  h.type_k = quant_type(binding.type_k).gguf_id;
  h.type_v = quant_type(binding.type_v).gguf_id;
  h.n_layer = static_cast<uint32_t>(binding.layers.size());
  h.n_tok = session.tokens.size();
  if (session.layers.size() != binding.layers.size() || h.n_tok > kMaxTokens) {
    return make_error(ErrorCode::kInvalidArgument, "{}: a session of {} layers, {} tokens", path,
                      session.layers.size(), h.n_tok);
  }
  INFER_ASSIGN(Output out, Output::create(path));
  INFER_TRY(out.write(bytes_of(h)));
  INFER_TRY(out.write(std::as_bytes(std::span(session.tokens))));
  for (size_t il = 0; il < session.layers.size(); ++il) {
    const SessionBinding::Layer& shape = binding.layers[il];
    const Session::Layer& layer = session.layers[il];
    const LayerHeader lh{
        static_cast<uint32_t>(shape.n_kv_head), static_cast<uint32_t>(shape.head_dim),
        static_cast<uint32_t>(shape.head_dim_v), static_cast<uint32_t>(layer.first)};
    INFER_TRY(out.write(bytes_of(lh)));
    INFER_TRY(out.write(layer.k));
    INFER_TRY(out.write(layer.v));
  }
  return out.finish();
}

Result<Session> read_session(const std::string& path, const SessionBinding& binding) {
  INFER_ASSIGN(const InputFile file, InputFile::open(path));
  return read(Input(path, file.size(),
                    [&](int64_t at, std::span<std::byte> out) { return file.read_at(at, out); }),
              binding);
}

Result<Session> parse_session(std::span<const std::byte> bytes, const std::string& name,
                              const SessionBinding& binding) {
  const auto read_at = [&](int64_t at, std::span<std::byte> out) -> Result<void> {
    if (!out.empty()) std::memcpy(out.data(), bytes.data() + at, out.size());
    return {};
  };
  return read(Input(name, static_cast<int64_t>(bytes.size()), read_at), binding);
}

}  // namespace infer
