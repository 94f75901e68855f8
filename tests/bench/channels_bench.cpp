// Finding the coupled channels of exported networks and removing half of each group.
//
//   channels_bench [Google Benchmark's options] NETWORK.pt2...
//
// Without networks: those that the interop tests have exported and that are named below. One
// thread.

#include "compress/allocator.h"
#include "compress/files.h"
#include "compress/graph/channels.h"
#include "compress/graph/compact.h"
#include "compress/model.h"
#include "tests/support/paths.h"

#include <ATen/Parallel.h>

#include <benchmark/benchmark.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace compress {
namespace {

constexpr const char* kUsual[] = {"resnet18", "resnet50", "densenet121", "mobilenet_v2", "vit"};

// Every second of each group's units, as many as can go.
ChannelSet half(const ChannelGroups& groups) {
  ChannelSet set = groups.none();
  for (const ChannelGroup& group : groups.groups()) {
    for (size_t i = 1; i < group.units.size(); i += 2) groups.add(set, group.units[i]);
  }
  return set;
}

void find(benchmark::State& state, const Model& model) {
  for (auto _ : state) benchmark::DoNotOptimize(analyse(model).groups().size());
}

void cut(benchmark::State& state, const Model& model) {
  for (auto _ : state) {
    state.PauseTiming();
    auto copy = std::make_unique<Model>(model.clone(/*deep=*/false));
    auto groups = std::make_unique<ChannelGroups>(analyse(*copy));
    const ChannelSet set = half(*groups);
    state.ResumeTiming();
    remove(*copy, *groups, set);
    state.PauseTiming();
    groups.reset();
    copy.reset();
    state.ResumeTiming();
  }
}

void find_and_cut(benchmark::State& state, const Model& model) {
  for (auto _ : state) {
    state.PauseTiming();
    auto copy = std::make_unique<Model>(model.clone(/*deep=*/false));
    state.ResumeTiming();
    const ChannelGroups groups = analyse(*copy);
    remove(*copy, groups, half(groups));
    state.PauseTiming();
    copy.reset();
    state.ResumeTiming();
  }
}

void add(const std::filesystem::path& file) {
  const auto model = std::make_shared<Model>(load_model(file.string()));
  const std::string name = file.stem().string();
  const auto record = [&](const char* what, void (*run)(benchmark::State&, const Model&)) {
    benchmark::RegisterBenchmark((name + "/" + what).c_str(), [=](benchmark::State& state) {
      run(state, *model);
    })->Unit(benchmark::kMillisecond);
  };
  record("find", find);
  record("cut", cut);
  record("find_and_cut", find_and_cut);
}

void add_usual() {
  const std::filesystem::path folder = testing::exported_models_dir();
  for (const char* name : kUsual) {
    const std::filesystem::path file = folder / (std::string(name) + ".pt2");
    if (std::filesystem::exists(file)) add(file);
  }
}

}  // namespace
}  // namespace compress

int main(int count, char** words) {
  compress::use_huge_pages();  // as the lathe command does
  compress::keep_freed_memory();
  benchmark::Initialize(&count, words);
  at::set_num_threads(1);
  for (int i = 1; i < count; ++i) compress::add(words[i]);
  if (count == 1) compress::add_usual();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
