// Tensors in tests of free functions: masks by their flags, comparisons that say which differs.

#pragma once

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace compress::testing {

/// A bool tensor of one dimension.
inline at::Tensor bools(const std::vector<int64_t>& flags) {
  return at::tensor(flags).to(at::kBool);
}

/// A double tensor of one dimension.
inline at::Tensor doubles(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

/// Fails the test unless types, sizes and elements are the same.
inline void expect_same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << "tensor " << i;
}

}  // namespace compress::testing
