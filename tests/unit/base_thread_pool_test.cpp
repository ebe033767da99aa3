#include "core/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace infer {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, EveryThreadRunsOnceInEachRun) {
  ThreadPool pool({.n_threads = GetParam()});
  ASSERT_EQ(pool.n_threads(), GetParam());
  std::vector<int> calls(static_cast<size_t>(GetParam()),
                         0);  // plain ints: TSan sees a missing barrier
  constexpr int kRuns = 2000;
  for (int run = 0; run < kRuns; ++run) {
    pool.run([&](int ith, int nth) {
      EXPECT_EQ(nth, GetParam());
      ++calls[static_cast<size_t>(ith)];
    });
  }
  EXPECT_THAT(calls, testing::Each(kRuns));
}

TEST_P(ThreadPoolTest, ForEachRunsEveryTaskOnceAndLeavesNoneToTheNextCall) {
  ThreadPool pool({.n_threads = GetParam()});
  for (int64_t n_tasks : {0, 1, 2, 3, 7, 64, 501}) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<int> done(static_cast<size_t>(n_tasks), 0);
      pool.for_each(n_tasks, [&](int64_t task, int ith) {
        EXPECT_GE(ith, 0);
        EXPECT_LT(ith, GetParam());
        ++done[static_cast<size_t>(task)];
      });
      ASSERT_THAT(done, testing::Each(1)) << n_tasks << " tasks, call " << repeat;
    }
  }
}

TEST_P(ThreadPoolTest, WakesFromSleep) {
  ThreadPool pool({.n_threads = GetParam(), .spin_us = 0});
  std::atomic<int> calls{0};
  for (int run = 0; run < 20; ++run) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    pool.run([&](int, int) { ++calls; });
    ASSERT_EQ(calls.load(), (run + 1) * GetParam());
  }
}

TEST_P(ThreadPoolTest, CallerSleepsUntilASlowWorkerIsDone) {
  ThreadPool pool({.n_threads = GetParam(), .spin_us = 1});
  std::vector<int> done(static_cast<size_t>(GetParam()), 0);
  pool.run([&](int ith, int) {
    if (ith != 0) std::this_thread::sleep_for(std::chrono::milliseconds(5 * ith));
    done[static_cast<size_t>(ith)] = 1;
  });
  EXPECT_THAT(done, testing::Each(1));
}

TEST_P(ThreadPoolTest, MayBeRunByOneThreadAfterAnother) {
  ThreadPool pool({.n_threads = GetParam()});
  int sum = 0;
  for (int turn = 0; turn < 10; ++turn) {
    std::thread caller([&] {
      std::vector<int> seen(static_cast<size_t>(pool.n_threads()), 0);
      pool.run([&](int ith, int) { seen[static_cast<size_t>(ith)] = 1; });
      for (int s : seen) sum += s;
    });
    caller.join();
  }
  EXPECT_EQ(sum, 10 * GetParam());
}

TEST_P(ThreadPoolTest, SyncShowsWhatTheOthersWrote) {
  ThreadPool pool({.n_threads = GetParam()});
  constexpr int kSteps = 500;
  std::vector<int> step_of(static_cast<size_t>(GetParam()), 0);  // plain ints: TSan watches
  std::vector<int> n_behind(static_cast<size_t>(GetParam()), 0);
  pool.run_team([&](Team& team) {
    const auto me = static_cast<size_t>(team.thread());
    for (int step = 1; step <= kSteps; ++step) {
      step_of[me] = step;
      team.sync();
      for (int other : step_of) n_behind[me] += other != step ? 1 : 0;
      team.sync();
    }
  });
  EXPECT_THAT(n_behind, testing::Each(0));
}

TEST_P(ThreadPoolTest, SharesFollowEachOtherWithoutASync) {
  ThreadPool pool({.n_threads = GetParam()});
  constexpr int64_t kTasks[] = {0, 1, 2, 3, 7, 64, 501};
  std::vector<std::vector<int>> done;
  for (int64_t n : kTasks) done.emplace_back(static_cast<size_t>(n), 0);
  constexpr int kRuns = 20, kRounds = 20;
  for (int run = 0; run < kRuns; ++run) {
    pool.run_team([&](Team& team) {
      for (int round = 0; round < kRounds; ++round) {
        for (size_t i = 0; i < done.size(); ++i)
          team.share(kTasks[i], [&](int64_t task) { ++done[i][static_cast<size_t>(task)]; });
        team.sync();
      }
    });
  }
  for (const std::vector<int>& counts : done)
    EXPECT_THAT(counts, testing::Each(kRuns * kRounds)) << counts.size() << " tasks";
}

TEST_P(ThreadPoolTest, ThreadsBeginWithTheSameTasksInEveryRun) {
  ThreadPool pool({.n_threads = GetParam()});
  constexpr int64_t kPerThread = 4;
  std::vector<int64_t> first(static_cast<size_t>(GetParam()), -1);
  for (int run = 0; run < 50; ++run) {
    std::atomic<int> n_begun{0};
    pool.run_team([&](Team& team) {
      bool begun = false;
      team.share(GetParam() * kPerThread, [&](int64_t task) {
        if (begun) return;
        begun = true;
        first[static_cast<size_t>(team.thread())] = task;
        // Nobody helps before all have begun.
        ++n_begun;
        while (n_begun.load() < GetParam()) std::this_thread::yield();
      });
    });
    for (int t = 0; t < GetParam(); ++t)
      ASSERT_EQ(first[static_cast<size_t>(t)], t * kPerThread) << "thread " << t << ", run " << run;
  }
}

TEST_P(ThreadPoolTest, OnceIsDoneByOneAndSeenByAll) {
  ThreadPool pool({.n_threads = GetParam()});
  int value = 0;
  std::vector<int> seen(static_cast<size_t>(GetParam()), 0);
  pool.run_team([&](Team& team) {
    for (int i = 1; i <= 100; ++i) {
      team.once([&] { ++value; });
      seen[static_cast<size_t>(team.thread())] += value == i ? 1 : 0;
      team.sync();
    }
  });
  EXPECT_THAT(seen, testing::Each(100));
}

TEST_P(ThreadPoolTest, SyncWaitsAsleepForALateThread) {
  for (const int spin_us : {0, 1}) {
    ThreadPool pool({.n_threads = GetParam(), .spin_us = spin_us});
    int value = 0;
    std::vector<int> seen(static_cast<size_t>(GetParam()), 0);
    pool.run_team([&](Team& team) {
      if (team.thread() == team.n_threads() - 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        value = 7;
      }
      team.sync();
      seen[static_cast<size_t>(team.thread())] = value;
    });
    EXPECT_THAT(seen, testing::Each(7));
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8),
                         [](const auto& param_info) { return std::to_string(param_info.param); });

TEST(ThreadPool, TasksOfALateThreadAreTakenByTheOthers) {
  ThreadPool pool({.n_threads = 3});
  constexpr int64_t kTasks = 64;
  std::atomic<int64_t> n_done{0};
  std::vector<int> by(static_cast<size_t>(kTasks), -1);
  pool.run_team([&](Team& team) {
    // The last thread comes when all is done; were its range left to it, it would wait for ever.
    while (team.thread() == 2 && n_done.load() < kTasks) std::this_thread::yield();
    team.share(kTasks, [&](int64_t task) {
      by[static_cast<size_t>(task)] = team.thread();
      ++n_done;
    });
  });
  EXPECT_THAT(by, testing::Each(testing::AnyOf(0, 1)));
}

TEST(ThreadPool, ManyPoolsStartAndStop) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool({.n_threads = 1 + i % 4});
    int on_caller = 0;
    if (i % 3 != 0) {
      pool.run([&](int ith, int) {
        if (ith == 0) on_caller = 1;
      });
    }
    EXPECT_EQ(on_caller, i % 3 != 0 ? 1 : 0);
  }
}

TEST(ThreadPool, ConstFunctionObjectIsAccepted) {
  ThreadPool pool({.n_threads = 2});
  std::atomic<int> calls{0};
  const auto fn = [&calls](int, int) { ++calls; };
  pool.run(fn);
  EXPECT_EQ(calls.load(), 2);
}

TEST(ThreadPoolDeathTest, NestedRunIsOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool({.n_threads = 2});
        pool.run([&](int ith, int) {
          if (ith == 0) pool.run([](int, int) {});
        });
      },
      "run is going on");
}

#if defined(__linux__)
TEST(ThreadPool, PinsWorkersAndLeavesTheCallerFree) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  if (CPU_COUNT(&allowed) < 2) GTEST_SKIP() << "one core only: nothing to pin to";
  ThreadPool pool({.n_threads = 2, .pin = true});
  pool.run([](int, int) {});
  int n_cpus[2] = {};
  pool.run([&](int ith, int) {
    cpu_set_t mine;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof(mine), &mine) == 0) n_cpus[ith] = CPU_COUNT(&mine);
  });
  EXPECT_EQ(n_cpus[0], CPU_COUNT(&allowed));
  EXPECT_EQ(n_cpus[1], 1);
}
#endif

}  // namespace
}  // namespace infer
