#include "gguf/content_hash.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace infer::gguf {
namespace {

constexpr int64_t kSamples = 16;
constexpr int64_t kSampleBytes = 64;

class Hash {
 public:
  void add(uint64_t v) {
    h_ = (h_ ^ v) * 0x9e3779b97f4a7c15u;
    h_ ^= h_ >> 32;
  }
  void add(std::span<const std::byte> bytes) {
    add(bytes.size());
    size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
      uint64_t v = 0;
      std::memcpy(&v, bytes.data() + i, 8);
      add(v);
    }
    uint64_t rest = 0;
    if (i < bytes.size()) std::memcpy(&rest, bytes.data() + i, bytes.size() - i);
    add(rest);
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  uint64_t value() const { return h_; }

 private:
  uint64_t h_ = 0x2545f4914f6cdd1du;
};

void add_tensor(Hash& hash, const TensorInfo& t) {
  hash.add(t.name);
  hash.add(static_cast<uint64_t>(t.view.type));
  for (const int64_t n : t.view.ne) hash.add(static_cast<uint64_t>(n));
  const int64_t n_bytes = t.view.n_bytes;
  const std::span<const std::byte> all(t.view.data, static_cast<size_t>(n_bytes));
  if (n_bytes <= kSamples * kSampleBytes) return hash.add(all);
  for (int64_t i = 0; i < kSamples; ++i) {
    const int64_t begin = (n_bytes - kSampleBytes) / (kSamples - 1) * i;
    hash.add(all.subspan(static_cast<size_t>(begin), static_cast<size_t>(kSampleBytes)));
  }
  hash.add(all.last(static_cast<size_t>(kSampleBytes)));
}

}  // namespace

uint64_t content_hash(const Reader& file) {
  Hash hash;
  std::vector<const KeyValue*> kvs;
  for (const KeyValue& kv : file.kvs()) kvs.push_back(&kv);
  std::ranges::sort(kvs, {}, &KeyValue::key);
  for (const KeyValue* kv : kvs) {
    if (kv->key.starts_with("split.")) continue;
    hash.add(kv->key);
    hash.add(static_cast<uint64_t>(kv->value.type()));
    hash.add(kv->value.raw());
  }
  std::vector<const TensorInfo*> tensors;
  for (const TensorInfo& t : file.tensors()) tensors.push_back(&t);
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  for (const TensorInfo* t : tensors) add_tensor(hash, *t);
  return hash.value();
}

}  // namespace infer::gguf
