#include "backends/cpu/buffer.h"

#include <sys/mman.h>

#include "core/base/error.h"

namespace infer::cpu {

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(n_bytes_));
}

Result<Buffer> Buffer::allocate(int64_t n_bytes, const char* what, bool huge) {
  Buffer b;
  if (n_bytes <= 0) return b;
  void* p = mmap(nullptr, static_cast<size_t>(n_bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return make_error(ErrorCode::kOutOfMemory, "cpu: cannot allocate {} bytes for {}", n_bytes,
                      what);
  b.data_ = static_cast<std::byte*>(p);
  b.n_bytes_ = n_bytes;
#if defined(MADV_HUGEPAGE)
  constexpr int64_t kHugePage = int64_t{2} << 20;
  b.is_huge_ =
      huge && n_bytes >= kHugePage && madvise(p, static_cast<size_t>(n_bytes), MADV_HUGEPAGE) == 0;
#endif
  return b;
}

}  // namespace infer::cpu
