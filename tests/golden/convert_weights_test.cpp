#include <array>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tests/golden/convert_fixture.h"

/// Weights that stand in a checkpoint in another form than the golden ones: 8-bit floats with
/// scales, all experts in one tensor. They must become the same rows.
namespace infer::test {
namespace {

/// Makes weight `name` F8_E4M3, each value times scales[scale_of(row, column)], and returns in F32
/// what it stands for.
Entry to_float8(Checkpoint& c, const std::string& name, const std::string& scale_name,
                std::vector<int64_t> scale_shape, const std::vector<float>& scales,
                const std::function<size_t(int64_t, int64_t)>& scale_of) {
  Entry& e = c.entry(name);
  const int64_t n_k = e.shape[1];
  std::vector<std::byte> codes(e.bytes.size() / 2);
  std::vector<std::byte> same;
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto bits = static_cast<uint8_t>(i * 37 % 126 + (i % 2) * 128);
    codes[i] = std::byte{bits};
    const auto at = static_cast<int64_t>(i);
    const float v = quantize::f32_from_e4m3(bits) * scales[scale_of(at / n_k, at % n_k)];
    const auto v_bytes = std::as_bytes(std::span(&v, 1));
    same.insert(same.end(), v_bytes.begin(), v_bytes.end());
  }
  const auto scale_bytes = std::as_bytes(std::span(scales));
  Entry plain{e.name, "F32", e.shape, same};
  e.dtype = "F8_E4M3";
  e.bytes = codes;
  c.entries.push_back(
      {scale_name, "F32", std::move(scale_shape), {scale_bytes.begin(), scale_bytes.end()}});
  return plain;
}

std::vector<float> steps(size_t n, float from, float step) {
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = from + static_cast<float>(i) * step;
  return out;
}

/// An FP8 checkpoint: what is written is what stands there times its scale.
TEST_F(Convert, Float8WithScales) {
  Checkpoint c("llama");
  c.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {48, 64}}};
  const std::string layer = "model.layers.0.";
  std::vector<Entry> plain;  // [160, 128] in blocks of [48, 64]: [4, 2]; of [128, 128]: [3, 2]
  plain.push_back(to_float8(
      c, layer + "self_attn.q_proj.weight", layer + "self_attn.q_proj.weight_scale_inv", {3, 2},
      steps(6, 0.5f, 0.3f), [](int64_t r, int64_t k) { return size_t(r / 48 * 2 + k / 64); }));
  plain.push_back(to_float8(c, layer + "mlp.up_proj.weight", layer + "mlp.up_proj.weight_scale",
                            {160, 1}, steps(160, 1.0f, 0.01f),
                            [](int64_t r, int64_t) { return size_t(r); }));
  plain.push_back(to_float8(c, layer + "mlp.gate_proj.weight", layer + "mlp.gate_proj.weight_scale",
                            {}, {0.25f}, [](int64_t, int64_t) { return size_t{0}; }));
  c.entries.push_back({layer + "mlp.gate_proj.input_scale", "F32", {}, std::vector<std::byte>(4)});
  const GgufImage float8 = converted(c);
  Checkpoint same("llama");
  for (const Entry& e : plain) same.entry(e.name) = e;
  expect_same_tensors(converted(same), float8);
}

/// As many scales of blocks as there are rows: they are of blocks all the same.
TEST_F(Convert, Float8BlocksAsManyAsRows) {
  Checkpoint c("llama");
  c.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {64, 2}}};
  const std::string name = "model.layers.0.self_attn.q_proj.weight";  // [128, 128]
  const Entry plain = to_float8(c, name, name + "_scale_inv", {2, 64}, steps(128, 0.5f, 0.03f),
                                [](int64_t r, int64_t k) { return size_t(r / 64 * 64 + k / 2); });
  Checkpoint same("llama");
  same.entry(name) = plain;
  expect_same_tensors(converted(same), converted(c));
}

/// Scales of a shape or a type that cannot be read are refused before anything is.
TEST_F(Convert, Float8ScalesThatAreNone) {
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  const std::string scale = name + "_scale_inv";
  const auto with = [&](const std::vector<int64_t>& shape, const std::string& dtype) {
    return refusal("llama", [&](Checkpoint& c) {
      c.config["quantization_config"] = {{"weight_block_size", {48, 64}}};
      to_float8(c, name, scale, {3, 2}, steps(6, 0.5f, 0.3f),
                [](int64_t, int64_t) { return size_t{0}; });
      Entry& e = c.entry(scale);
      e.shape = shape;
      e.dtype = dtype;
      if (dtype == "F8_E4M3" || dtype == "U8") e.bytes.resize(e.bytes.size() / 4);
      if (dtype == "F64" || dtype == "I64") e.bytes.resize(e.bytes.size() * 2);
    });
  };
  const std::string where = "/model.safetensors: tensor '" + scale + "': ";
  const std::string misfit = "its shape fits neither the weight nor blocks of weight_block_size";
  EXPECT_EQ(with({2, 3}, "F32"), where + misfit);
  EXPECT_EQ(with({6}, "F32"), where + misfit);
  EXPECT_EQ(with({3, 2, 1}, "F32"), where + misfit);
  for (const std::string dtype : {"I32", "U8", "F64", "I64", "F8_E4M3"}) {
    EXPECT_EQ(with({3, 2}, dtype),
              where + "scales of type " + dtype + " (known are F32, F16 and BF16)");
  }
}

/// Experts of an architecture under their own names, and all of a layer in two tensors, as
/// transformers 5 holds them (conversion_mapping.py): gate's rows, then up's.
struct FusedCase {
  const char* checkpoint;
  int n_expert;
  const char* experts;               // behind "model.layers.N."
  std::array<const char*, 3> parts;  // gate, up, down
};

Checkpoint fused(const FusedCase& f) {
  Checkpoint c(f.checkpoint);
  for (int il = 0; il < 2; ++il) {
    const std::string layer = fmt::format("model.layers.{}.", il);
    Entry gate_up{layer + "mlp.experts.gate_up_proj", "BF16", {}, {}};
    Entry down{layer + "mlp.experts.down_proj", "BF16", {}, {}};
    for (int e = 0; e < f.n_expert; ++e) {
      for (size_t i = 0; i < f.parts.size(); ++i) {
        const std::string name = fmt::format("{}{}{}.{}.weight", layer, f.experts, e, f.parts[i]);
        const Entry& part = c.entry(name);
        Entry& all = i == 2 ? down : gate_up;
        all.shape = {f.n_expert, part.shape[0] * (i == 2 ? 1 : 2), part.shape[1]};
        all.bytes.insert(all.bytes.end(), part.bytes.begin(), part.bytes.end());
        c.erase(name);
      }
    }
    c.entries.push_back(std::move(gate_up));
    c.entries.push_back(std::move(down));
    if (std::string(f.checkpoint) == "mixtral-moe")
      c.entry(layer + "block_sparse_moe.gate.weight").name = layer + "mlp.gate.weight";
  }
  return c;
}

TEST_F(Convert, FusedExperts) {
  const FusedCase cases[] = {
      {"qwen3-moe", 8, "mlp.experts.", {"gate_proj", "up_proj", "down_proj"}},
      {"qwen2-moe", 4, "mlp.experts.", {"gate_proj", "up_proj", "down_proj"}},
      {"mixtral-moe", 4, "block_sparse_moe.experts.", {"w1", "w3", "w2"}}};
  for (const FusedCase& f : cases) {
    SCOPED_TRACE(f.checkpoint);
    const Checkpoint c = fused(f);
    expect_same_tensors(golden(f.checkpoint), converted(c));
    const auto to = next();
    c.write(to);
    int64_t n_stored = 0;
    expect_panels(*must(quantize::open_hf(to.string(), {})), n_stored);
    EXPECT_GT(n_stored, 100);
  }
}

/// Halves and expert counts that do not fit are named.
TEST_F(Convert, FusedExpertsThatDoNotFit) {
  const FusedCase f{"mixtral-moe", 4, "block_sparse_moe.experts.", {"w1", "w3", "w2"}};
  const std::string name = "model.layers.0.mlp.experts.gate_up_proj";
  const auto with_shape = [&](std::vector<int64_t> shape) {
    return refusal(f.checkpoint, [&](Checkpoint& c) {
      c = fused(f);
      c.entry(name).shape = std::move(shape);
    });
  };
  EXPECT_EQ(with_shape({8, 160, 128}),
            ": tensor '" + name +
                "' becomes 'blk.0.ffn_gate_exps.weight' [128, 80, 8], but "
                "config.json wants [128, 160, 4]");
  EXPECT_EQ(with_shape({4, 128, 320}),
            ": tensor '" + name +
                "' becomes 'blk.0.ffn_gate_exps.weight' [320, 64, 4], but "
                "config.json wants [128, 160, 4]");
  EXPECT_EQ(with_shape({128, 5, 256}),
            "/model.safetensors: tensor '" + name + "': has no two halves");
}

}  // namespace
}  // namespace infer::test
