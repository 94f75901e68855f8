// Tests of passes/quantize/serial_workers.

#include "passes/quantize/serial_workers.h"

#include <ATen/Parallel.h>

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace compress {
namespace {

TEST(SerialWorkers, DoesEachTaskOnceOnOneThread) {
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  {
    SerialWorkers workers;
    EXPECT_EQ(workers.size(), 3u);
    std::vector<std::atomic<int>> done(50), threads(50);
    workers.run(50, [&](size_t worker, int64_t task) {
      EXPECT_LT(worker, 3u);
      ++done[task];
      threads[task] = at::get_num_threads();
    });
    for (size_t i = 0; i < done.size(); ++i) {
      EXPECT_EQ(done[i], 1);
      EXPECT_EQ(threads[i], 1);
    }
    EXPECT_EQ(at::get_num_threads(), 1);
  }
  EXPECT_EQ(at::get_num_threads(), 3);
  at::set_num_threads(before);
}

TEST(SerialWorkers, RethrowsWhatTheFirstFailingTaskThrew) {
  SerialWorkers workers;
  try {
    workers.run(8, [](size_t, int64_t task) {
      if (task >= 3) throw std::runtime_error(std::to_string(task));
    });
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "3");
  }
}

}  // namespace
}  // namespace compress
