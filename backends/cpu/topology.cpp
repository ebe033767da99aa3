#include "backends/cpu/topology.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <system_error>
#include <thread>

#include <hwloc.h>
#if defined(__linux__)
#include <sched.h>
#endif

namespace infer::cpu {
namespace {

constexpr std::string_view kCgroupRoot = "/sys/fs/cgroup";
constexpr int64_t kMaxThreads = 1 << 16;

std::optional<std::string> read_text_file(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

/// Takes the text up to `separator` off the front of `rest`.
std::string_view take_field(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  const std::string_view field = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return field;
}

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc{} || end == text.data()) return std::nullopt;
  return v;
}

/// Threads that `quota` microseconds of CPU in each `period` keep busy; 0: no limit.
int threads_of(std::optional<int64_t> quota, std::optional<int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return 0;
  const int64_t whole = *quota / *period + (*quota % *period != 0 ? 1 : 0);
  return static_cast<int>(std::min(whole, kMaxThreads));
}

/// Calls limit_in(folder) for the cgroup and each one above it up to `base`; gives the smallest
/// limit, 0: none.
template <class Fn>
int tightest_upwards(const std::string& base, std::string_view group, const Fn& limit_in) {
  int tightest = 0;
  while (true) {
    while (!group.empty() && group.back() == '/') group.remove_suffix(1);
    const int limit = limit_in(base + std::string(group));
    if (limit > 0 && (tightest == 0 || limit < tightest)) tightest = limit;
    if (group.empty()) return tightest;
    const size_t slash = group.rfind('/');
    group = slash == std::string_view::npos ? std::string_view{} : group.substr(0, slash);
  }
}

/// v2: one file, "<quota or max> <period>".
int limit_v2(const std::string& folder, const ReadFile& read) {
  const std::optional<std::string> text = read(folder + "/cpu.max");
  if (!text) return 0;
  std::string_view rest = *text;
  const std::string_view quota = take_field(rest, ' ');
  return threads_of(parse_int(quota), parse_int(rest));
}

/// v1: two files; a quota of -1 means none.
int limit_v1(const std::string& folder, const ReadFile& read) {
  const std::optional<std::string> quota = read(folder + "/cpu.cfs_quota_us");
  const std::optional<std::string> period = read(folder + "/cpu.cfs_period_us");
  if (!quota || !period) return 0;
  return threads_of(parse_int(*quota), parse_int(*period));
}

bool names_cpu_controller(std::string_view controllers) {
  while (!controllers.empty()) {
    if (take_field(controllers, ',') == "cpu") return true;
  }
  return false;
}

struct TopologyDeleter {
  void operator()(hwloc_topology_t t) const { hwloc_topology_destroy(t); }
};
struct BitmapDeleter {
  void operator()(hwloc_bitmap_t b) const { hwloc_bitmap_free(b); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, TopologyDeleter>;
using Bitmap = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, BitmapDeleter>;

Topology load_topology() {
#if defined(__linux__)
  // Without sysfs (a bare chroot) hwloc knows nothing and says so on stderr, where a library has no
  // business.
  std::error_code error;
  if (!std::filesystem::exists("/sys/devices/system/cpu/cpu0/topology", error)) return nullptr;
#endif
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  Topology topology(raw);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return topology;
}

int64_t cache_bytes(hwloc_topology_t topology, hwloc_obj_type_t level, hwloc_obj_t below) {
  const hwloc_obj_t cache = hwloc_get_ancestor_obj_by_type(topology, level, below);
  if (cache == nullptr || cache->attr == nullptr) return 0;
  return static_cast<int64_t>(cache->attr->cache.size);
}

/// Fills in cores and caches; false when hwloc cannot tell.
bool read_hwloc(CpuTopology& out) {
  const Topology topology = load_topology();
  if (topology == nullptr) return false;
  const Bitmap mask(hwloc_bitmap_alloc());
  const Bitmap mine(hwloc_bitmap_alloc());
  if (mask == nullptr || mine == nullptr) return false;
  if (hwloc_get_cpubind(topology.get(), mask.get(), HWLOC_CPUBIND_THREAD) != 0) {
    hwloc_bitmap_copy(mask.get(), hwloc_topology_get_allowed_cpuset(topology.get()));
  }
  hwloc_bitmap_and(mask.get(), mask.get(), hwloc_topology_get_allowed_cpuset(topology.get()));
  const int n_logical = hwloc_bitmap_weight(mask.get());
  if (n_logical < 1) return false;
  out.n_logical = n_logical;
  // Some virtual machines show no cores, only logical CPUs.
  const bool has_cores = hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t kind = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  for (hwloc_obj_t core = hwloc_get_next_obj_by_type(topology.get(), kind, nullptr);
       core != nullptr; core = hwloc_get_next_obj_by_type(topology.get(), kind, core)) {
    hwloc_bitmap_and(mine.get(), core->cpuset, mask.get());
    const int cpu = hwloc_bitmap_first(mine.get());
    if (cpu < 0) continue;
    if (out.cpus.empty()) {
      out.l2_bytes = cache_bytes(topology.get(), HWLOC_OBJ_L2CACHE, core);
      out.l3_bytes = cache_bytes(topology.get(), HWLOC_OBJ_L3CACHE, core);
    }
    out.cpus.push_back(cpu);
    const int node = core->nodeset != nullptr ? hwloc_bitmap_first(core->nodeset) : 0;
    out.node_of.push_back(std::max(node, 0));
  }
  if (out.cpus.empty()) return false;
  out.n_node = static_cast<int>(std::set<int>(out.node_of.begin(), out.node_of.end()).size());
  out.n_physical = static_cast<int>(out.cpus.size());
  return true;
}

/// Without /sys (a bare chroot) the affinity mask still tells which CPUs there are, each taken for
/// a core.
void read_affinity_mask(CpuTopology& out) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) out.cpus.push_back(cpu);
    }
  }
#endif
  out.n_logical = out.cpus.empty()
                      ? std::max(1, static_cast<int>(std::thread::hardware_concurrency()))
                      : static_cast<int>(out.cpus.size());
  out.n_physical = out.n_logical;
}

}  // namespace

int cgroup_quota_threads(std::string_view proc_self_cgroup, const ReadFile& read) {
  const std::string root(kCgroupRoot);
  int tightest = 0;
  const auto take = [&tightest](int limit) {
    if (limit > 0 && (tightest == 0 || limit < tightest)) tightest = limit;
  };
  while (!proc_self_cgroup.empty()) {  // "<hierarchy>:<controllers>:<group>"
    std::string_view group = take_field(proc_self_cgroup, '\n');
    const std::string_view hierarchy = take_field(group, ':');
    const std::string_view controllers = take_field(group, ':');
    if (hierarchy == "0" && controllers.empty()) {
      const auto limit = [&](const std::string& folder) { return limit_v2(folder, read); };
      take(tightest_upwards(root, group, limit));
      take(tightest_upwards(root + "/unified", group, limit));
    } else if (names_cpu_controller(controllers)) {
      const auto limit = [&](const std::string& folder) { return limit_v1(folder, read); };
      take(tightest_upwards(root + "/" + std::string(controllers), group, limit));
      if (controllers != "cpu") take(tightest_upwards(root + "/cpu", group, limit));
    }
  }
  return tightest;
}

CpuTopology detect_topology() {
  CpuTopology t;
  if (!read_hwloc(t)) {
    t = CpuTopology{};
    read_affinity_mask(t);
  }
  const std::optional<std::string> groups = read_text_file("/proc/self/cgroup");
  if (groups) t.quota_threads = cgroup_quota_threads(*groups, read_text_file);
  t.n_threads = t.quota_threads > 0 ? std::min(t.n_physical, t.quota_threads) : t.n_physical;
  return t;
}

}  // namespace infer::cpu
