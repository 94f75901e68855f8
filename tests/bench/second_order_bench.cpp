// Second-order methods on one linear of 2048 x 2048, its Gram matrix given.
//
// Threads: OMP_NUM_THREADS.

#include "passes/second_order/column_factor.h"
#include "passes/second_order/prune_columns.h"
#include "passes/second_order/quantize_columns.h"

#include <ATen/ATen.h>

#include <benchmark/benchmark.h>

namespace compress {
namespace {

constexpr int64_t kSize = 2048;

struct Layer {
  at::Tensor weight, gram;
};

const Layer& layer() {
  static const Layer made = [] {
    at::manual_seed(1);
    const at::Tensor x =
        at::randn({2 * kSize, kSize}).matmul(at::eye(kSize) + 0.02 * at::randn({kSize, kSize}));
    const at::Tensor gram = x.t().matmul(x).div(2 * kSize).to(at::kDouble);
    return Layer{at::randn({kSize, kSize}), (gram + gram.t()).div(2).unsqueeze(0)};
  }();
  return made;
}

void factorise(benchmark::State& state) {
  const at::Tensor gram = layer().gram[0];
  for (auto _ : state) ColumnFactor(gram, falling_diagonal_order(gram), 0.01);
}
BENCHMARK(factorise)->UseRealTime()->Unit(benchmark::kMillisecond);

void gptq_int4_group128(benchmark::State& state) {
  QuantizeColumns how;
  how.grid.symmetric = state.range(0) == 0;
  how.grid.range = state.range(1) == 1 ? GridRange::kWeighted : GridRange::kMinmax;
  how.granularity = Granularity::group(128);
  for (auto _ : state) quantize_columns(layer().weight, layer().gram, how);
}
BENCHMARK(gptq_int4_group128)
    ->ArgsProduct({{0, 1}, {0, 1}})
    ->ArgNames({"affine", "mse"})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void sparse_gpt(benchmark::State& state) {
  PruneColumns how;
  how.m = state.range(0);
  how.n = how.m / 2;
  how.zeros = kSize * kSize / 2;
  for (auto _ : state) prune_columns(layer().weight, layer().gram, how);
}
BENCHMARK(sparse_gpt)->ArgName("m")->Arg(0)->Arg(4)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace compress

BENCHMARK_MAIN();
