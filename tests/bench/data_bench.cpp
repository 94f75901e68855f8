// Images a second that the loader gives, against the 1000 a second that training ResNet-20 takes.

#include "compress/data/images.h"
#include "compress/data/loader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <fstream>
#include <iterator>

namespace compress {
namespace {

// What ResNet-20 training reaches on two threads (bf16, channels_last), images a second.
constexpr double kTrainingRate = 1000.0;

void report(benchmark::State& state, int64_t images) {
  state.SetItemsProcessed(images);
  state.counters["times_training"] =
      benchmark::Counter(static_cast<double>(images) / kTrainingRate, benchmark::Counter::kIsRate);
}

// Batches of 128 shuffled CIFAR-sized images, normalised; range(0): threads, range(1):
// channels_last.
void load_cifar_sized(benchmark::State& state) {
  ImageOptions options{.normalize = normalization("cifar10")};
  options.channels_last = state.range(1) != 0;
  const auto data = memory_images(at::zeros({12800, 32, 32, 3}, at::kByte),
                                  at::zeros({12800}, at::kLong), {}, options);
  Loader loader(data, {.shuffle = true, .threads = static_cast<int>(state.range(0))});
  int64_t images = 0;
  uint64_t epoch = 0;
  for (auto _ : state) {
    auto batch = loader.next();
    if (!batch) {
      loader.start(++epoch);
      batch = loader.next();
    }
    benchmark::DoNotOptimize(batch->inputs[0]);
    images += batch->size();
  }
  report(state, images);
}
BENCHMARK(load_cifar_sized)->ArgsProduct({{0, 1, 2}, {0, 1}})->UseRealTime();

// Normalisation alone, one thread.
void normalize_image(benchmark::State& state) {
  const Normalizer normalizer(normalization("imagenet"), 3);
  const std::vector<uint8_t> bytes(224 * 224 * 3, 100);
  std::vector<float> out(bytes.size());
  for (auto _ : state) {
    if (state.range(0) != 0) {
      normalizer.to_interleaved(bytes.data(), 224 * 224, out.data());
    } else {
      normalizer.to_planes(bytes.data(), 224 * 224, out.data());
    }
    benchmark::ClobberMemory();
  }
  report(state, state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}
BENCHMARK(normalize_image)->Arg(0)->Arg(1);

// Resizing a photograph to the 256 pixels of ImageNet, one thread.
void resize_photograph(benchmark::State& state) {
  const Image photograph(375, 500, 3);
  for (auto _ : state) benchmark::DoNotOptimize(resize_shorter_side(photograph, 256));
  report(state, state.iterations());
}
BENCHMARK(resize_photograph);

}  // namespace
}  // namespace compress

BENCHMARK_MAIN();
