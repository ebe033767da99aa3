#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the calling thread may use of the machine's CPUs: its affinity mask, the cgroup quota, the
/// caches.
namespace infer::cpu {

struct CpuTopology {
  int n_logical = 1;         ///< logical CPUs in the affinity mask
  int n_physical = 1;        ///< cores with at least one of those
  int quota_threads = 0;     ///< cgroup CPU quota as a number of threads, rounded up; 0: no quota
  int n_threads = 1;         ///< suggested: min(n_physical, quota_threads)
  int64_t l2_bytes = 0;      ///< of the first core; 0: unknown
  int64_t l3_bytes = 0;      ///< of the first core's L3; 0: unknown or none
  int n_node = 1;            ///< NUMA nodes with a CPU of the mask
  std::vector<int> node_of;  ///< of each of `cpus`; empty: unknown, all 0
  std::vector<int>
      cpus;  ///< one logical CPU a physical core, to pin to (ThreadPool::Options::cpus)
};

/// Never fails: what cannot be found out falls back to std::thread::hardware_concurrency() and
/// zeros.
CpuTopology detect_topology();

/// Gives a file's text, or nothing when it cannot be read.
using ReadFile = std::function<std::optional<std::string>(const std::string& path)>;

/// The tightest CPU quota of this process's cgroup (v1 or v2) and of the cgroups above it, as a
/// number of threads, rounded up; 0 when there is none. `proc_self_cgroup` is the text of that
/// file.
int cgroup_quota_threads(std::string_view proc_self_cgroup, const ReadFile& read);

}  // namespace infer::cpu
