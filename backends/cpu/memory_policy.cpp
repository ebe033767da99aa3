#include "backends/cpu/memory_policy.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "core/base/checked.h"

namespace infer::cpu {

void PageLock::add(const void* data, int64_t n_bytes) {
  if (n_bytes > 0) ranges_.push_back({static_cast<const std::byte*>(data), n_bytes});
}

std::string lock_advice(int64_t need, int64_t limit) {
  constexpr double kMiB = 1024.0 * 1024.0;
  const int64_t need_kib = ceil_div<int64_t>(need, 1024);
  return fmt::format(
      "{:.1f} MiB are needed, {:.1f} MiB the limit: run 'ulimit -l {}' before (as root, or set "
      "memlock in /etc/security/limits.conf)",
      static_cast<double>(need) / kMiB, static_cast<double>(limit) / kMiB, need_kib);
}

std::string PageLock::lock() {
  int64_t need = 0;
  for (const Range& r : ranges_) need += r.n_bytes;
  const auto page = static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
  need += 2 * page * static_cast<int64_t>(ranges_.size());  // ranges begin and end inside pages
  for (const Range& r : ranges_) {
    if (::mlock(r.begin, static_cast<size_t>(r.n_bytes)) != 0) {
      const int code = errno;
      rlimit limit{};
      const bool known =
          ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
      return fmt::format(
          "--mlock: {} after {} of {} bytes{}", std::strerror(code), locked_bytes_, need,
          known ? "; " + lock_advice(need, static_cast<int64_t>(limit.rlim_cur)) : std::string());
    }
    locked_bytes_ += r.n_bytes;
  }
  return {};
}

}  // namespace infer::cpu
