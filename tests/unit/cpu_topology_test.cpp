#include "backends/cpu/numa.h"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include <gtest/gtest.h>

namespace infer::cpu {
namespace {

using Files = std::map<std::string, std::string>;

int quota(const std::string& groups, const Files& files) {
  return cgroup_quota_threads(groups,
                              [&files](const std::string& path) -> std::optional<std::string> {
                                const auto it = files.find(path);
                                if (it == files.end()) return std::nullopt;
                                return it->second;
                              });
}

TEST(CgroupQuota, V2RoundsUpAndTakesTheTightestAncestor) {
  EXPECT_EQ(quota("0::/\n", {}), 0);
  EXPECT_EQ(quota("0::/\n", {{"/sys/fs/cgroup/cpu.max", "max 100000\n"}}), 0);
  EXPECT_EQ(quota("0::/\n", {{"/sys/fs/cgroup/cpu.max", "200000 100000\n"}}), 2);
  EXPECT_EQ(quota("0::/\n", {{"/sys/fs/cgroup/cpu.max", "200001 100000\n"}}), 3);
  EXPECT_EQ(quota("0::/\n", {{"/sys/fs/cgroup/cpu.max", "1000 100000\n"}}), 1);
  const Files nested = {{"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"},
                        {"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
                        {"/sys/fs/cgroup/cpu.max", "800000 100000\n"}};
  EXPECT_EQ(quota("0::/a/b\n", nested), 3);
  EXPECT_EQ(quota("0::/other\n", nested), 8);
}

TEST(CgroupQuota, V1ReadsTheCpuControllerOnly) {
  const Files files = {{"/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "150000\n"},
                       {"/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "50000\n"}};
  EXPECT_EQ(quota("5:memory:/box\n3:cpu,cpuacct:/box\n", files), 3);
  EXPECT_EQ(quota("5:memory:/box\n3:cpuset:/box\n", files), 0);
  EXPECT_EQ(quota("3:cpu:/\n", {{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"},
                                {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}}),
            0);
  // Inside a container the group's path is the host's: the limit shows at the root of the mount.
  EXPECT_EQ(
      quota("3:cpu,cpuacct:/docker/123\n", {{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n"},
                                            {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}}),
      1);
}

TEST(CgroupQuota, NonsenseIsNoLimit) {
  EXPECT_EQ(quota("", {}), 0);
  EXPECT_EQ(quota("no colons at all", {}), 0);
  for (const char* text :
       {"", "max", "100000", "100000 ", "100000 0", "0 100000", "-5 100000", "x y"}) {
    EXPECT_EQ(quota("0::/\n", {{"/sys/fs/cgroup/cpu.max", text}}), 0) << text;
  }
  EXPECT_EQ(quota("0::/\n", {{"/sys/fs/cgroup/cpu.max", "9223372036854775807 1\n"}}), 65536);
}

TEST(Topology, AgreesWithItself) {
  const CpuTopology t = detect_topology();
  EXPECT_GE(t.n_threads, 1);
  EXPECT_LE(t.n_threads, t.n_physical);
  EXPECT_LE(t.n_physical, t.n_logical);
  EXPECT_TRUE(t.cpus.empty() || t.cpus.size() == static_cast<size_t>(t.n_physical));
  EXPECT_EQ(std::set<int>(t.cpus.begin(), t.cpus.end()).size(), t.cpus.size());
  EXPECT_TRUE(t.quota_threads == 0 || t.n_threads <= t.quota_threads);
}

#if defined(__linux__)
TEST(Topology, FollowsTheAffinityMask) {
  CpuTopology t;
  int cpu = -1;
  std::thread narrow([&] {
    cpu_set_t set;
    CPU_ZERO(&set);
    ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    while (!CPU_ISSET(++cpu, &set)) {
    }
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
    t = detect_topology();
  });
  narrow.join();
  EXPECT_EQ(t.n_logical, 1);
  EXPECT_EQ(t.n_threads, 1);
  ASSERT_EQ(t.cpus.size(), 1u);
  EXPECT_EQ(t.cpus[0], cpu);
}
#endif

CpuTopology two_nodes() {
  CpuTopology t;
  t.cpus = {0, 1, 2, 8, 9};
  t.node_of = {0, 0, 0, 1, 1};
  t.n_node = 2;
  t.n_physical = 5;
  t.n_threads = 5;
  return t;
}

TEST(Numa, DistributeTakesNodesInTurn) {
  CpuTopology t = two_nodes();
  arrange_cpus(Numa::kDistribute, 0, &t);
  EXPECT_EQ(t.cpus, (std::vector<int>{0, 8, 1, 9, 2}));
  EXPECT_EQ(t.node_of, (std::vector<int>{0, 1, 0, 1, 0}));
  EXPECT_EQ(t.n_threads, 5);
}

TEST(Numa, IsolateKeepsTheHomeNode) {
  CpuTopology t = two_nodes();
  arrange_cpus(Numa::kIsolate, 1, &t);
  EXPECT_EQ(t.cpus, (std::vector<int>{8, 9}));
  EXPECT_EQ(t.n_physical, 2);
  EXPECT_EQ(t.n_threads, 2);
  CpuTopology elsewhere = two_nodes();
  arrange_cpus(Numa::kIsolate, 7, &elsewhere);
  EXPECT_EQ(elsewhere.cpus, two_nodes().cpus);
}

TEST(Numa, OthersChangeNothing) {
  for (const Numa numa : {Numa::kNone, Numa::kNumactl}) {
    CpuTopology t = two_nodes();
    arrange_cpus(numa, 0, &t);
    EXPECT_EQ(t.cpus, two_nodes().cpus);
  }
  CpuTopology one = two_nodes();
  one.n_node = 1;
  arrange_cpus(Numa::kDistribute, 0, &one);
  EXPECT_EQ(one.cpus, two_nodes().cpus);
  EXPECT_TRUE(parse_numa("").ok());
  EXPECT_FALSE(parse_numa("Distribute").ok());
  const CpuTopology here = detect_topology();
  EXPECT_TRUE(here.node_of.empty() || here.node_of.size() == here.cpus.size());
  EXPECT_GE(here.n_node, 1);
}

}  // namespace
}  // namespace infer::cpu
