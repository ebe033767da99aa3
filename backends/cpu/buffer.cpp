#include "backends/cpu/buffer.h"

#include <sys/mman.h>

#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::cpu {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

}  // namespace

Buffer::~Buffer() {
  if (mapping_ != nullptr) munmap(mapping_, static_cast<size_t>(mapped_bytes_));
}

Result<Buffer> Buffer::allocate(int64_t n_bytes, const char* what, bool aligned) {
  Buffer b;
  if (n_bytes <= 0) return b;
  const int64_t align = aligned && n_bytes >= kHugePage ? kHugePage : 0;
  const int64_t mapped_bytes = n_bytes + align;
  void* p = mmap(nullptr, static_cast<size_t>(mapped_bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return make_error(ErrorCode::kOutOfMemory, "cpu: cannot allocate {} bytes for {}", n_bytes,
                      what);
  b.mapping_ = p;
  b.mapped_bytes_ = mapped_bytes;
  b.data_ = static_cast<std::byte*>(p);
  b.n_bytes_ = n_bytes;
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (align > 0) b.data_ += align_up<uintptr_t>(address, kHugePage) - address;
  return b;
}

void Buffer::commit(std::byte* begin, int64_t n_bytes) {
#if defined(MADV_POPULATE_WRITE)
  constexpr int64_t kPage = 4096;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const auto skip = static_cast<int64_t>(align_up<uintptr_t>(address, kPage) - address);
  const int64_t inside = (n_bytes - skip) / kPage * kPage;
  if (inside > 0) madvise(begin + skip, static_cast<size_t>(inside), MADV_POPULATE_WRITE);
#else
  static_cast<void>(begin), static_cast<void>(n_bytes);
#endif
}

void Buffer::advise_huge() {
#if defined(MADV_HUGEPAGE)
  if (reinterpret_cast<uintptr_t>(data_) % kHugePage == 0 && n_bytes_ >= kHugePage)
    is_huge_ = madvise(data_, static_cast<size_t>(n_bytes_), MADV_HUGEPAGE) == 0;
#endif
}

}  // namespace infer::cpu
