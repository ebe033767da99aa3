#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/result.h"
#include "quantize/convert/safetensors.h"
#include "quantize/source.h"
#include "tests/support/gguf_image.h"

/// Sources of the quantizer as data for tests.
namespace infer::test {

/// Keys and tensors of `source`; matrices in `type` where its blocks divide their rows, else F16;
/// vectors, routers and positions in F32. Made by the test's plain encoders.
Result<GgufImage> image_of(const quantize::Source& source, DType type);
/// The same of a Hugging Face folder, through the native conversion.
Result<GgufImage> convert_hf(const std::filesystem::path& folder, DType type = DType::kF32);

/// A whole tensor. Errors: kNotFound, kUnsupported for a tensor of the other kind.
Result<std::vector<float>> floats_of(const quantize::SafeTensors& file, std::string_view name);
Result<std::vector<int64_t>> ints_of(const quantize::SafeTensors& file, std::string_view name);

}  // namespace infer::test
