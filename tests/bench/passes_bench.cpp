// Weight passes against LibTorch's own operators, side by side, on 24 linears of 2048 x 2048 (403
// MB).
//
// Ratios matter. The share of memory bandwidth is against a plain read of the same tensors,
// measured in the same run. Threads: OMP_NUM_THREADS.

#include "passes/prune/keep_largest.h"
#include "passes/prune/keep_n_of_m.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <benchmark/benchmark.h>

namespace compress {
namespace {

const std::vector<at::Tensor>& linears() {
  static const std::vector<at::Tensor> tensors = [] {
    at::manual_seed(1);
    std::vector<at::Tensor> made;
    for (int i = 0; i < 24; ++i) made.push_back(at::randn({2048, 2048}));
    return made;
  }();
  return tensors;
}

double total_bytes() { return 24.0 * 2048 * 2048 * sizeof(float); }

void count_bytes(benchmark::State& state, double bytes) {
  state.counters["bytes_per_second"] =
      benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}

// What memory gives: all threads read every element once.
void Read(benchmark::State& state) {
  linears();  // made once, outside of the time
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      const auto* words = reinterpret_cast<const uint64_t*>(tensor.const_data_ptr<float>());
      at::parallel_for(0, tensor.numel() / 2, 1 << 16, [&](int64_t begin, int64_t end) {
        uint64_t sum = 0;
        for (int64_t i = begin; i < end; ++i) sum += words[i];
        benchmark::DoNotOptimize(sum);
      });
    }
  }
  count_bytes(state, total_bytes());
}

void Int4Group128(benchmark::State& state) {
  const RoundToNearest how{4, true, Granularity::group(128)};
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      benchmark::DoNotOptimize(round_to_nearest(tensor, 0, how).fields[0]);
    }
  }
  count_bytes(state, total_bytes() * (1 + 4.25 / 32));
}

// The same with LibTorch's vectorised operators, as a careful user writes it in Python.
void Int4Group128InOperators(benchmark::State& state) {
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      const at::Tensor groups = tensor.view({2048, 16, 128});
      const at::Tensor scale = groups.abs().amax({-1}, true).div_(7);
      const at::Tensor codes = groups.div(scale).round_().clamp_(-8, 7).add_(8).to(at::kByte);
      const at::Tensor pairs = codes.view({2048, 1024, 2});
      benchmark::DoNotOptimize(
          pairs.select(-1, 0).bitwise_or(pairs.select(-1, 1).bitwise_left_shift(4)));
    }
  }
}

void HalfOfEach(benchmark::State& state) {
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      benchmark::DoNotOptimize(keep_largest({tensor}, tensor.numel() / 2));
    }
  }
}

void HalfOfAll(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(keep_largest(linears(), static_cast<int64_t>(total_bytes() / 8)));
  }
}

void HalfOfEachByKthvalue(benchmark::State& state) {
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      const at::Tensor magnitudes = tensor.abs().flatten();
      const at::Tensor threshold = std::get<0>(magnitudes.kthvalue(tensor.numel() / 2));
      benchmark::DoNotOptimize(magnitudes.gt(threshold));
    }
  }
}

void TwoOfFour(benchmark::State& state) {
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      benchmark::DoNotOptimize(keep_n_of_m(tensor, 2, 4, 1));
    }
  }
}

void TwoOfFourByTopk(benchmark::State& state) {
  for (auto _ : state) {
    for (const at::Tensor& tensor : linears()) {
      const at::Tensor runs = tensor.abs().view({-1, 4});
      const at::Tensor kept = std::get<1>(runs.topk(2, 1));
      benchmark::DoNotOptimize(at::zeros_like(runs, at::kBool).scatter_(1, kept, true));
    }
  }
}

BENCHMARK(Read)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(Int4Group128)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(Int4Group128InOperators)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(HalfOfEach)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(HalfOfAll)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(HalfOfEachByKthvalue)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(1);
BENCHMARK(TwoOfFour)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(TwoOfFourByTopk)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(1);

}  // namespace
}  // namespace compress

BENCHMARK_MAIN();
