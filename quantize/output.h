#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "gguf/writer.h"
#include "quantize/keys.h"
#include "quantize/plan.h"

/// The file, or the files of a split model, that a plan becomes.
namespace infer::quantize {

/// Where the output goes: `path`; with keep_split, and an input of several files, the files
/// "<path without .gguf>-0000I-of-0000N.gguf".
std::vector<std::string> output_paths(const gguf::Reader& model, const std::string& path,
                                      bool keep_split);

class Output {
 public:
  struct Options {
    std::vector<std::string> paths;  ///< of output_paths
    KeyChanges keys;
  };
  /// Looks at what could go wrong, makes the files and reserves their room; until finish() they
  /// have other names. Errors: kInvalidArgument for an output that is a file of the input; kIo
  /// naming the file, a full disk with the bytes needed and free.
  static Result<Output> create(const gguf::Reader& model, const Plan& plan, const Options& options);

  /// Bytes of the rows of entry `index` of the plan; see gguf::Writer::write_at.
  Result<void> write_at(size_t index, int64_t offset, std::span<const std::byte> bytes);
  Result<void> finish();
  int64_t file_bytes() const;

 private:
  std::vector<std::unique_ptr<gguf::Writer>> files_;
  struct Place {
    size_t file, tensor;
  };
  std::vector<Place> places_;  // of each entry
};

}  // namespace infer::quantize
