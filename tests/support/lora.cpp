#include "tests/support/lora.h"

#include <cstring>
#include <random>
#include <stdexcept>
#include <variant>
#include <vector>

#include "core/base/half.h"
#include "core/base/quant_blocks.h"
#include "tests/support/encode.h"

namespace infer::test {
namespace {

template <class T>
std::vector<T> load(const std::vector<std::byte>& bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

std::vector<double> numbers_of(const GgufTensor& t) {
  std::vector<double> out;
  if (t.type == DType::kF32) {
    for (const float v : load<float>(t.bytes)) out.push_back(v);
  } else if (t.type == DType::kF16) {
    for (const uint16_t v : load<uint16_t>(t.bytes)) out.push_back(f32_from_f16(v));
  } else if (t.type == DType::kQ8_0) {
    for (const BlockQ8_0& block : load<BlockQ8_0>(t.bytes)) {
      for (const int8_t q : block.qs) out.push_back(static_cast<double>(f32_from_f16(block.d)) * q);
    }
  } else {
    throw std::runtime_error("merged: type of " + t.name);
  }
  return out;
}

}  // namespace

bool is_adaptable(const GgufImage& model, const GgufTensor& tensor) {
  (void)model;
  return tensor.shape.size() == 2 && tensor.name.ends_with(".weight") &&
         tensor.name != "token_embd.weight" && tensor.name != "position_embd.weight";
}

GgufImage make_lora(const GgufImage& model, const LoraOptions& options) {
  GgufImage out;
  out.set("general.type", std::string("adapter"));
  out.set("general.architecture", *model.find("general.architecture"));
  out.set("general.name", std::string("random"));
  out.set("adapter.type", std::string("lora"));
  out.set("adapter.lora.alpha", options.alpha);
  std::mt19937_64 rng(options.seed);
  std::normal_distribution<float> normal(0.0f, options.sigma);
  for (const GgufTensor& t : model.tensors) {
    if (!is_adaptable(model, t) || (options.wanted && !options.wanted(t.name))) continue;
    const auto add = [&](const char* half, int64_t k, int64_t n) {
      std::vector<float> x(static_cast<size_t>(k * n));
      for (float& v : x) v = normal(rng);
      out.tensors.push_back({t.name + half, options.type, {k, n}, encode(options.type, x)});
    };
    add(".lora_a", t.shape[0], options.rank);
    add(".lora_b", options.rank, t.shape[1]);
  }
  return out;
}

GgufImage merged(const GgufImage& model, const GgufImage& adapter, float scale) {
  GgufImage out = model;
  GgufImage halves = adapter;
  const float alpha = std::get<float>(*adapter.find("adapter.lora.alpha"));
  for (GgufTensor& t : out.tensors) {
    const GgufTensor* ta = halves.find_tensor(t.name + ".lora_a");
    const GgufTensor* tb = halves.find_tensor(t.name + ".lora_b");
    if (ta == nullptr || tb == nullptr) continue;
    const auto k = static_cast<size_t>(t.shape[0]);
    const auto n = static_cast<size_t>(t.shape[1]);
    const auto rank = static_cast<size_t>(ta->shape[1]);
    const std::vector<double> w = numbers_of(t);
    const std::vector<double> a = numbers_of(*ta);
    const std::vector<double> b = numbers_of(*tb);
    std::vector<float> sum(w.size());
    for (size_t j = 0; j < n; ++j) {
      for (size_t i = 0; i < k; ++i) {
        double add = 0.0;
        for (size_t r = 0; r < rank; ++r) add += b[j * rank + r] * a[r * k + i];
        sum[j * k + i] = static_cast<float>(w[j * k + i] + static_cast<double>(scale) * alpha /
                                                               static_cast<double>(rank) * add);
      }
    }
    t.type = DType::kF32;
    t.bytes = encode(DType::kF32, sum);
  }
  return out;
}

}  // namespace infer::test
