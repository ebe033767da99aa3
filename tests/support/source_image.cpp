#include "tests/support/source_image.h"

#include <memory>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/reader.h"
#include "quantize/convert/hf_source.h"
#include "tests/support/encode.h"

namespace infer::test {
namespace {

using gguf::Value;
using gguf::ValueType;

Result<GgufValue> array_of(const Value& v) {
  std::vector<std::string> strings;
  std::vector<float> floats;
  std::vector<int32_t> ints;
  for (int64_t i = 0; i < v.size(); ++i) {
    if (v.elem_type() == ValueType::kString) {
      INFER_ASSIGN(const std::string_view s, v.string_at(i));
      strings.emplace_back(s);
    } else if (v.elem_type() == ValueType::kF32) {
      INFER_ASSIGN(const double d, v.float_at(i));
      floats.push_back(static_cast<float>(d));
    } else if (v.elem_type() == ValueType::kI32) {
      INFER_ASSIGN(const int64_t n, v.int_at(i));
      ints.push_back(static_cast<int32_t>(n));
    } else {
      return make_error(ErrorCode::kUnsupported, "an array of {}", gguf::name_of(v.elem_type()));
    }
  }
  if (v.elem_type() == ValueType::kString) return GgufValue(std::move(strings));
  if (v.elem_type() == ValueType::kF32) return GgufValue(std::move(floats));
  return GgufValue(std::move(ints));
}

Result<GgufValue> value_of(const Value& v) {
  switch (v.type()) {
    case ValueType::kArray:
      return array_of(v);
    case ValueType::kString: {
      INFER_ASSIGN(const std::string_view s, v.as_string());
      return GgufValue(std::string(s));
    }
    case ValueType::kBool: {
      INFER_ASSIGN(const bool b, v.as_bool());
      return GgufValue(b);
    }
    case ValueType::kF32: {
      INFER_ASSIGN(const double d, v.as_float());
      return GgufValue(static_cast<float>(d));
    }
    case ValueType::kU32: {
      INFER_ASSIGN(const int64_t n, v.as_int());
      return GgufValue(static_cast<uint32_t>(n));
    }
    default:
      return make_error(ErrorCode::kUnsupported, "a {}", gguf::name_of(v.type()));
  }
}

/// llama.cpp's numbers for general.file_type.
uint32_t file_type_of(DType type) {
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ4_K:
      return 14;
    case DType::kQ5_K:
      return 16;
    case DType::kQ6_K:
      return 18;
    case DType::kBF16:
      return 32;
    default:
      return 1;
  }
}

bool stays_f32(std::string_view name) {
  return name == "position_embd.weight" || name.find(".ffn_gate_inp") != std::string_view::npos;
}

}  // namespace

Result<GgufImage> image_of(const quantize::Source& source, DType type) {
  if (!can_encode(type))
    return make_error(ErrorCode::kUnsupported, "no test encoder for {}", name_of(type));
  GgufImage out;
  for (const gguf::KeyValue& kv : source.header().kvs()) {
    INFER_ASSIGN(GgufValue value, value_of(kv.value));
    out.set(kv.key, std::move(value));
  }
  out.set("general.file_type", file_type_of(type));
  out.set("general.quantization_version", uint32_t{2});
  const auto tensors = source.header().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const gguf::TensorInfo& t = tensors[i];
    GgufTensor made{std::string(t.name), DType::kF32, {}, {}};
    made.shape.assign(t.view.ne.begin(), t.view.ne.begin() + t.n_dims);
    if (t.n_dims > 1 && !stays_f32(t.name))
      made.type = row_bytes(type, t.view.ne[0]) ? type : DType::kF16;
    std::vector<float> x(static_cast<size_t>(t.view.n_elem()));
    INFER_TRY(source.read_rows(i, 0, t.view.n_elem() / t.view.ne[0], x));
    made.bytes = encode(made.type, x);
    out.tensors.push_back(std::move(made));
  }
  return out;
}

Result<GgufImage> convert_hf(const std::filesystem::path& folder, DType type) {
  INFER_ASSIGN(const std::unique_ptr<quantize::Source> source,
               quantize::open_hf(folder.string(), {}));
  return image_of(*source, type);
}

Result<std::vector<float>> floats_of(const quantize::SafeTensors& file, std::string_view name) {
  const quantize::SafeTensor* t = file.find(name);
  if (t == nullptr) return make_error(ErrorCode::kNotFound, "no tensor '{}'", name);
  std::vector<float> out(static_cast<size_t>(t->n_elem()));
  INFER_TRY(quantize::read_floats(*t, 0, out, file.path_of(*t)));
  return out;
}

Result<std::vector<int64_t>> ints_of(const quantize::SafeTensors& file, std::string_view name) {
  const quantize::SafeTensor* t = file.find(name);
  if (t == nullptr) return make_error(ErrorCode::kNotFound, "no tensor '{}'", name);
  std::vector<int64_t> out(static_cast<size_t>(t->n_elem()));
  INFER_TRY(quantize::read_ints(*t, 0, out, file.path_of(*t)));
  return out;
}

}  // namespace infer::test
