#include "backends/cpu/buffer.h"

#include <sys/mman.h>

#include "core/base/checked.h"
#include "core/base/error.h"

namespace infer::cpu {
Buffer::~Buffer() {
  if (mapping_ != nullptr) munmap(mapping_, static_cast<size_t>(mapped_bytes_));
}

Result<Buffer> Buffer::allocate(int64_t n_bytes, const char* what, bool huge) {
  Buffer b;
  if (n_bytes <= 0) return b;
  const int64_t align = huge && n_bytes >= kHugePageBytes ? kHugePageBytes : 0;
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
  if (align > 0) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    b.data_ += align_up<uintptr_t>(address, kHugePageBytes) - address;
#if defined(MADV_HUGEPAGE)
    b.is_huge_ = madvise(b.data_, static_cast<size_t>(n_bytes), MADV_HUGEPAGE) == 0;
#endif
  }
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

void Buffer::read_ahead(const std::byte* begin, int64_t n_bytes) {
  constexpr int64_t kPage = 4096;
  const auto inside = static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin) % kPage);
  auto* page = const_cast<std::byte*>(begin) - inside;
  madvise(page, static_cast<size_t>(n_bytes + inside), MADV_WILLNEED);
}

}  // namespace infer::cpu
