// Coupled channels of networks that Python has exported: groups are found, and removing equals
// zeroing. Reads the folder that tests/interop/run fills.

#include "tests/support/channels.h"

#include "compress/files.h"
#include "compress/graph/verify.h"
#include "tests/support/paths.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>

namespace compress::testing {
namespace {

std::vector<std::filesystem::path> exported_models() {
  std::vector<std::filesystem::path> files;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(exported_models_dir(), missing)) {
    if (entry.path().extension() == ".pt2") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Batch norm in training mode takes its statistics over few elements here.
constexpr double kTolerance = 3e-4;

TEST(ExportedChannels, RemovingEqualsZeroing) {
  const std::vector<std::filesystem::path> files = exported_models();
  if (files.empty()) GTEST_SKIP() << "no exported models: run tests/interop/run once";
  size_t with_groups = 0;
  std::cout << fmt::format("{:<28}{:>8}{:>8}{:>8}{:>12}{:>12}{:>12}{:>8}{:>9}{:>9}\n", "network",
                           "groups", "exact", "units", "moved", "error", "all: error", "kept",
                           "find ms", "cut ms");
  for (const std::filesystem::path& file : files) {
    const std::string name = file.stem().string();
    SCOPED_TRACE(name);
    try {
      const LawReport exact =
          check_channel_law(load_model(file.string()), {.tolerance = kTolerance});
      const LawReport all =
          check_channel_law(load_model(file.string()), {.inexact = true, .tolerance = kTolerance});
      with_groups += all.groups > 0;
      std::cout << fmt::format(
                       "{:<28}{:>8}{:>8}{:>8}{:>12.1e}{:>12.1e}{:>12.1e}{:>8.3f}{:>9.1f}{:>9.1f}\n",
                       name, all.groups, all.exact_groups, all.units, exact.moved, exact.error,
                       all.error, all.kept_parameters, all.analysis_ms, all.removal_ms)
                << std::flush;
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
  EXPECT_GT(with_groups, files.size() / 2);
}

}  // namespace
}  // namespace compress::testing
