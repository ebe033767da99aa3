#include "tests/support/safetensors_builder.h"

#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace infer::test {

SafetensorsBuilder& SafetensorsBuilder::add(std::string_view name, std::string_view dtype,
                                            const std::vector<int64_t>& shape,
                                            const std::vector<std::byte>& bytes) {
  header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        header.empty() ? "" : ",", name, dtype, fmt::join(shape, ","), data.size(),
                        data.size() + bytes.size());
  data.insert(data.end(), bytes.begin(), bytes.end());
  return *this;
}

std::vector<std::byte> SafetensorsBuilder::bytes(uint64_t n_header) const {
  const std::string text = json();
  std::vector<std::byte> out(sizeof(n_header) + text.size());
  std::memcpy(out.data(), &n_header, sizeof(n_header));
  std::memcpy(out.data() + sizeof(n_header), text.data(), text.size());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

}  // namespace infer::test
