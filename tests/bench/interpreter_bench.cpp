// What a node costs in the interpreter, beside the same operators called directly.

#include "compress/graph/interpreter.h"
#include "compress/model.h"

#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <c10/core/GradMode.h>

#include <benchmark/benchmark.h>

namespace compress {
namespace {

constexpr int kNodes = 200;  // half relu, half add, on tensors of four elements

void Direct(benchmark::State& state) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::ones({4});
  for (auto _ : state) {
    at::Tensor y = x;
    for (int i = 0; i < kNodes / 2; ++i) y = at::add(at::relu(y), x);
    benchmark::DoNotOptimize(y.unsafeGetTensorImpl());
  }
  state.SetItemsProcessed(state.iterations() * kNodes);
}

void Interpreted(benchmark::State& state) {
  const at::NoGradGuard no_grad;
  Model model;
  Graph& graph = model.graph();
  Value* x = graph.add_input("x", {c10::kFloat, std::vector<Dim>{4}});
  Value* y = x;
  for (int i = 0; i < kNodes / 2; ++i) {
    Value* relu = graph.append({.op = "aten::relu", .arguments = {y}})->output();
    y = graph.append({.op = "aten::add.Tensor", .arguments = {relu, x}})->output();
  }
  graph.set_outputs({{"y", y}});
  const std::vector<at::Tensor> inputs = {at::ones({4})};
  for (auto _ : state) benchmark::DoNotOptimize(model.forward(inputs));
  state.SetItemsProcessed(state.iterations() * kNodes);
}

BENCHMARK(Direct);
BENCHMARK(Interpreted);

}  // namespace
}  // namespace compress

BENCHMARK_MAIN();
