#include "quantize/gguf_source.h"
#include "quantize/convert/hf_source.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/quant_types.h"
#include "gguf/describe.h"

namespace infer::quantize {
namespace {

class GgufSource final : public Source {
 public:
  GgufSource(std::shared_ptr<const gguf::Reader> file, const kern::CpuKernels& kernels)
      : file_(std::move(file)), kernels_(kernels) {}

  const gguf::Reader& header() const override { return *file_; }

  Result<void> read_rows(size_t index, int64_t row, int64_t n_row,
                         std::span<float> out) const override {
    const gguf::TensorInfo& t = file_->tensors()[index];
    const auto decode = kernels_.decode_row[static_cast<size_t>(t.view.type)];
    if (decode == nullptr) {
      return make_error(ErrorCode::kUnsupported, "{}: tensor '{}': {} cannot be decoded here",
                        file_->shard_path(t.shard), gguf::printable(t.name), name_of(t.view.type));
    }
    const std::span<const std::byte> bytes = stored_rows(index, row, n_row);
    const int64_t n_elem = n_row * t.view.ne[0];
    INFER_CHECK(static_cast<int64_t>(out.size()) == n_elem, "{} floats for {}", out.size(), n_elem);
    decode(bytes.data(), n_elem, out.data());  // rows follow each other without a gap
    return {};
  }

  std::span<const std::byte> stored_rows(size_t index, int64_t row, int64_t n_row) const override {
    const gguf::TensorInfo& t = file_->tensors()[index];
    const int64_t bytes = bytes_of_row(t);
    INFER_CHECK(row >= 0 && n_row >= 0 && (row + n_row) * bytes <= t.view.n_bytes,
                "rows {} + {} of tensor {}", row, n_row, index);
    return {t.view.data + row * bytes, static_cast<size_t>(n_row * bytes)};
  }

  void release_rows(size_t index, int64_t row, int64_t n_row) const override {
    const gguf::TensorInfo& t = file_->tensors()[index];
    file_->release_pages(t, row * bytes_of_row(t), n_row * bytes_of_row(t));
  }

 private:
  static int64_t bytes_of_row(const gguf::TensorInfo& t) {
    const QuantType& q = quant_type(t.view.type);
    return t.view.ne[0] / q.block_len * q.block_bytes;
  }

  std::shared_ptr<const gguf::Reader> file_;
  const kern::CpuKernels& kernels_;
};

}  // namespace

std::unique_ptr<Source> gguf_source(std::shared_ptr<const gguf::Reader> file,
                                    const kern::CpuKernels& kernels) {
  return std::make_unique<GgufSource>(std::move(file), kernels);
}

Result<std::unique_ptr<Source>> open_gguf(const std::string& path,
                                          std::span<const gguf::KeyOverride> overrides,
                                          const kern::CpuKernels& kernels) {
  INFER_ASSIGN(auto file,
               gguf::Reader::open(path, {.overrides = {overrides.begin(), overrides.end()}}));
  return gguf_source(std::move(file), kernels);
}

Result<std::unique_ptr<Source>> open_source(const std::string& path,
                                            std::span<const gguf::KeyOverride> overrides,
                                            const kern::CpuKernels& kernels,
                                            const std::function<void(std::string_view)>& log) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    return open_hf(path, {.overrides = {overrides.begin(), overrides.end()}, .log = log});
  }
  return open_gguf(path, overrides, kernels);
}

}  // namespace infer::quantize
