#include "tests/support/gguf_builder.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/checked.h"
#include "core/base/quant_types.h"

namespace infer::test {

void put_text(Bytes& out, std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void put_string(Bytes& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  put_text(out, text);
}

Bytes GgufBuilder::array_head(uint32_t elem_type, uint64_t count) {
  Bytes out;
  put(out, elem_type);
  put(out, count);
  return out;
}

GgufBuilder& GgufBuilder::set_raw(std::string_view key, uint32_t type, Bytes value) {
  const auto it = std::find_if(kvs.begin(), kvs.end(), [&](const Kv& kv) { return kv.key == key; });
  if (it == kvs.end()) {
    kvs.push_back({std::string(key), type, std::move(value)});
  } else {
    it->type = type;
    it->value = std::move(value);
  }
  return *this;
}

GgufBuilder& GgufBuilder::set_string(std::string_view key, std::string_view value) {
  Bytes bytes;
  put_string(bytes, value);
  return set_raw(key, kString, std::move(bytes));
}

GgufBuilder& GgufBuilder::set_strings(std::string_view key,
                                      const std::vector<std::string>& values) {
  Bytes bytes = array_head(kString, values.size());
  for (const std::string& s : values) put_string(bytes, s);
  return set_raw(key, kArray, std::move(bytes));
}

GgufBuilder& GgufBuilder::set_array_raw(std::string_view key, uint32_t elem_type, uint64_t count,
                                        Bytes body) {
  Bytes bytes = array_head(elem_type, count);
  bytes.insert(bytes.end(), body.begin(), body.end());
  return set_raw(key, kArray, std::move(bytes));
}

GgufBuilder& GgufBuilder::remove(std::string_view key) {
  std::erase_if(kvs, [&](const Kv& kv) { return kv.key == key; });
  return *this;
}

GgufBuilder::Kv& GgufBuilder::kv(std::string_view key) {
  const auto it = std::find_if(kvs.begin(), kvs.end(), [&](const Kv& kv) { return kv.key == key; });
  INFER_CHECK(it != kvs.end(), "no key {}", key);
  return *it;
}

GgufBuilder& GgufBuilder::add_tensor(std::string_view name, DType type,
                                     const std::vector<int64_t>& shape) {
  const QuantType& q = quant_type(type);
  int64_t n_elem = 1;
  for (const int64_t ne : shape) n_elem *= ne;
  tensors.push_back({std::string(name), q.gguf_id, shape,
                     Bytes(static_cast<size_t>(n_elem / q.block_len * q.block_bytes))});
  return *this;
}

GgufBuilder::Tensor& GgufBuilder::tensor(std::string_view name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.name == name; });
  INFER_CHECK(it != tensors.end(), "no tensor {}", name);
  return *it;
}

Bytes GgufBuilder::header() const {
  Bytes out;
  put_text(out, magic);
  put(out, version);
  put<uint64_t>(out, n_tensors.value_or(tensors.size()));
  put<uint64_t>(out, n_kv.value_or(kvs.size()));
  for (const Kv& kv : kvs) {
    put<uint64_t>(out, kv.key_length.value_or(kv.key.size()));
    put_text(out, kv.key);
    put(out, kv.type);
    out.insert(out.end(), kv.value.begin(), kv.value.end());
  }
  uint64_t offset = 0;
  for (const Tensor& t : tensors) {
    put<uint64_t>(out, t.name_length.value_or(t.name.size()));
    put_text(out, t.name);
    put<uint32_t>(out, t.n_dims.value_or(static_cast<uint32_t>(t.shape.size())));
    for (const int64_t ne : t.shape) put(out, ne);
    put(out, t.type);
    put<uint64_t>(out, t.offset.value_or(offset));
    offset += align_up<uint64_t>(t.data.size(), alignment);
  }
  return out;
}

Bytes GgufBuilder::bytes() const {
  Bytes out = header();
  const auto pad = [&] { out.resize(align_up<size_t>(out.size(), alignment)); };
  pad();
  for (const Tensor& t : tensors) {
    out.insert(out.end(), t.data.begin(), t.data.end());
    out.resize(out.size() + align_up<size_t>(t.data.size(), alignment) - t.data.size());
  }
  return out;
}

GgufBuilder good_gguf() {
  GgufBuilder b;
  b.set_string("general.architecture", "llama").set<uint8_t>("a.u8", 200).set<int8_t>("a.i8", -100);
  b.set<uint16_t>("a.u16", 60000).set<int16_t>("a.i16", -30000).set<uint32_t>("a.u32", 4000000000u);
  b.set<int32_t>("a.i32", -2000000000).set<float>("a.f32", 1.5f).set<bool>("a.bool", true);
  b.set<uint64_t>("a.u64", UINT64_MAX).set<int64_t>("a.i64", INT64_MIN).set<double>("a.f64", 1e300);
  b.set_string("a.empty", "").set_string("a.text", "caf\xc3\xa9");
  b.set_array<uint8_t>("b.u8", {1, 2, 255})
      .set_array<int8_t>("b.i8", {-1, 2})
      .set_array<uint16_t>("b.u16", {65535});
  b.set_array<int16_t>("b.i16", {-5, 6, 7})
      .set_array<uint32_t>("b.u32", {1u << 31})
      .set_array<int32_t>("b.i32", {});
  b.set_array<float>("b.f32", {0.5f, -2.0f}).set_array<bool>("b.bool", {true, false, true});
  b.set_array<uint64_t>("b.u64", {1, UINT64_MAX})
      .set_array<int64_t>("b.i64", {-1})
      .set_array<double>("b.f64", {0.25});
  std::vector<std::string> strings;
  for (int i = 0; i < 50; ++i)
    strings.push_back(std::string(static_cast<size_t>(i % 7), static_cast<char>('a' + i % 26)));
  b.set_strings("b.str", strings);
  Bytes nested = GgufBuilder::array_head(4, 2);  // [[7, 8], []]
  put<uint32_t>(nested, 7);
  put<uint32_t>(nested, 8);
  const Bytes empty = GgufBuilder::array_head(8, 0);
  nested.insert(nested.end(), empty.begin(), empty.end());
  b.set_array_raw("b.arr", GgufBuilder::kArray, 2, nested);
  b.add_tensor("t.f32", DType::kF32, {5}).add_tensor("t.f16", DType::kF16, {3, 2});
  b.add_tensor("t.q4_0", DType::kQ4_0, {64, 2, 2})
      .add_tensor("t.q6_k", DType::kQ6_K, {256, 1, 1, 2});
  b.add_tensor("t.i8", DType::kI8, {7});
  for (GgufBuilder::Tensor& t : b.tensors) {
    for (size_t i = 0; i < t.data.size(); ++i)
      t.data[i] = static_cast<std::byte>(i * 7 + t.name.size());
  }
  return b;
}

namespace {

uint64_t touch_value(const gguf::Value& v) {
  uint64_t sum = static_cast<uint64_t>(v.size()) + v.raw().size();
  for (const std::byte b : v.raw()) sum = sum * 31 + static_cast<uint64_t>(b);
  if (const auto i = v.as_int(); i.ok()) sum += static_cast<uint64_t>(*i);
  if (const auto f = v.as_float(); f.ok()) sum += *f > 0 ? 1 : 0;
  if (const auto b = v.as_bool(); b.ok()) sum += *b ? 1 : 0;
  if (const auto s = v.as_string(); s.ok()) sum += s->size();
  if (!v.is_array()) return sum;
  // Inner arrays are reached by walking: a few are enough, their bytes have been read above.
  const int64_t n =
      v.elem_type() == gguf::ValueType::kArray ? std::min<int64_t>(v.size(), 8) : v.size();
  for (int64_t i = 0; i < n; ++i) {
    if (const auto x = v.int_at(i); x.ok()) sum += static_cast<uint64_t>(*x);
    if (const auto x = v.float_at(i); x.ok()) sum += *x > 0 ? 1 : 0;
    if (const auto x = v.bool_at(i); x.ok()) sum += *x ? 1 : 0;
    if (const auto x = v.string_at(i); x.ok()) {
      for (const char c : *x) sum = sum * 31 + static_cast<uint8_t>(c);
    }
    if (const auto x = v.array_at(i); x.ok()) sum += touch_value(*x);
  }
  return sum;
}

}  // namespace

uint64_t touch_everything(const gguf::Reader& file) {
  uint64_t sum = static_cast<uint64_t>(file.alignment()) + file.version();
  for (const gguf::KeyValue& kv : file.kvs()) {
    INFER_CHECK(file.find(kv.key) == &kv.value, "key {} not found again", kv.key);
    sum += touch_value(kv.value);
  }
  for (const gguf::TensorInfo& t : file.tensors()) {
    INFER_CHECK(file.find_tensor(t.name) == &t, "tensor {} not found again", t.name);
    if (t.view.data == nullptr) continue;  // header only
    INFER_CHECK(reinterpret_cast<uintptr_t>(t.view.data) % gguf::kTensorAlign == 0,
                "tensor {} not aligned", t.name);
    for (int64_t i = 0; i < t.view.n_bytes; ++i)
      sum = sum * 31 + static_cast<uint64_t>(t.view.data[i]);
  }
  return sum;
}

}  // namespace infer::test
