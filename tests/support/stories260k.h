#pragma once

#include <filesystem>

#include "core/base/result.h"
#include "tests/support/gguf_image.h"

namespace infer::test {

/// stories260K.bin and tok512.model of `folder` as a GGUF of architecture llama (head size 8, tied
/// output, F32). Layout of the .bin: README.md beside it. Errors: kNotFound, kCorrupt for a size
/// that its header does not give.
Result<GgufImage> convert_stories260k(const std::filesystem::path& folder);

}  // namespace infer::test
