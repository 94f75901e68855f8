// Networks for tests of the engine: built call by call, and put on grids by minimum and maximum.

#include "tests/engine/networks.h"

#include "compress/graph/interpreter.h"
#include "compress/weight.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace compress::testing {
namespace {

struct Range {
  double low = 0, high = 0;
};

std::map<const Value*, Range> ranges_of(const Model& model, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  std::map<const Value*, Range> ranges;
  model.interpreter().run({x}, [&](const Value& value, const c10::IValue& content) {
    if (!content.isTensor() || content.toTensor().scalar_type() != at::kFloat) return;
    const at::Tensor& tensor = content.toTensor();
    ranges[&value] = {std::min(0.0, tensor.min().item<double>()),
                      std::max(0.0, tensor.max().item<double>())};
  });
  return ranges;
}

void add_quantizer(Model& model, Value* value, const Range& range) {
  const double scale = std::max(range.high - range.low, 1e-6) / 255;
  const auto zero_point = static_cast<int64_t>(std::nearbyint(-range.low / scale));
  auto after = model.graph().nodes().begin();
  if (value->producer() != nullptr) {
    while (&*after != value->producer()) ++after;
    ++after;
  }
  Node* quantizer = model.graph().insert(
      &*after, {"aten::fake_quantize_per_tensor_affine", {value, scale, zero_point, 0, 255}});
  quantizer->output()->type = value->type;
  model.graph().replace_uses(value, quantizer->output(), quantizer);
}

const Node* only_relu_behind(const UseMap& uses, const Value* value) {
  const std::vector<Use>& readers = uses.of(value);
  const bool is_relu =
      readers.size() == 1 && readers[0].node && readers[0].node->op() == "aten::relu";
  return is_relu ? readers[0].node : nullptr;
}

}  // namespace

Model network(const std::vector<int64_t>& sizes,
              const std::function<Value*(GraphBuilder&, Value*)>& build, uint64_t seed) {
  GraphBuilder builder;
  std::vector<Dim> dims = {Dim("batch", 2)};
  dims.insert(dims.end(), sizes.begin(), sizes.end());
  Value* x = builder.input("x", c10::kFloat, dims);
  Value* y = build(builder, x);
  Model model = initialize(builder.finish({{"y", y}}), seed);
  model.eval();
  return model;
}

void unsettle_batch_norms(Model& model, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (NamedTensor& tensor : model.mutable_tensors()) {
    const auto fill = [&](double low, double high) {
      tensor.tensor = at::empty_like(tensor.tensor).uniform_(low, high, generator);
    };
    if (tensor.name.ends_with("running_mean")) fill(-0.5, 0.5);
    if (tensor.name.ends_with("running_var")) fill(0.5, 2);
    if (tensor.name.find("bn") != std::string::npos && tensor.name.ends_with(".weight"))
      fill(0.5, 1.5);
    if (tensor.name.find("bn") != std::string::npos && tensor.name.ends_with(".bias"))
      fill(-0.3, 0.3);
  }
}

void quantize(Model& model, const at::Tensor& x) {
  const auto has_norm = [&] {
    return std::any_of(model.graph().nodes().begin(), model.graph().nodes().end(),
                       [](const Node& node) { return node.op() == "aten::batch_norm"; });
  };
  if (has_norm()) run_pass("fold.batch_norm", model);
  const std::map<const Value*, Range> ranges = ranges_of(model, x);
  const UseMap uses(model.graph());
  std::vector<Value*> chosen;
  const auto choose = [&](Value* value) {
    if (value == nullptr || !ranges.contains(value)) return;
    // Elements that are moved keep the grid that they have.
    if (value->producer() && value->producer()->op() == "aten::pad") return;
    if (std::find(chosen.begin(), chosen.end(), value) == chosen.end()) chosen.push_back(value);
  };
  for (Node& node : model.graph().nodes()) {
    if (node.op() == "aten::conv2d" || node.op() == "aten::linear")
      choose(node.arguments()[0].value());
    if (node.op() != "aten::add.Tensor") continue;
    choose(node.arguments()[0].value());
    choose(node.arguments()[1].value());
    const Node* relu = only_relu_behind(uses, node.output());
    choose(relu ? relu->output() : node.output());
  }
  for (Value* value : chosen) add_quantizer(model, value, ranges.at(value));
  run_pass("quantize.weights{bits=8,granularity=channel}", model);
}

}  // namespace compress::testing
