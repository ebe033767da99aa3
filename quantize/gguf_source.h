#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "gguf/reader.h"
#include "kernels/cpu/table.h"
#include "quantize/source.h"

namespace infer::quantize {

/// A GGUF, split or not, as a source. `kernels` decode it and must outlive the source.
/// Errors: those of gguf::Reader::open; read_rows: kUnsupported for a type without a decoder.
Result<std::unique_ptr<Source>> open_gguf(const std::string& path,
                                          std::span<const gguf::KeyOverride> overrides,
                                          const kern::CpuKernels& kernels);
/// A GGUF in memory, for tests: `file` is complete (not header_only).
std::unique_ptr<Source> gguf_source(std::shared_ptr<const gguf::Reader> file,
                                    const kern::CpuKernels& kernels);

/// What `path` is: a folder is a Hugging Face checkpoint, anything else a GGUF. `log` receives what
/// a conversion has to say, a line each.
Result<std::unique_ptr<Source>> open_source(const std::string& path,
                                            std::span<const gguf::KeyOverride> overrides,
                                            const kern::CpuKernels& kernels,
                                            const std::function<void(std::string_view)>& log);

}  // namespace infer::quantize
