// The bias of a convolution or a linear layer, as passes change it.

#include "passes/layer_bias.h"

#include "compress/selector.h"

#include <fmt/format.h>

#include <string_view>

namespace compress {
namespace {

const Argument& bias_argument(const Node& layer) { return layer.arguments()[bias_index(layer)]; }

bool is_one(const Argument& argument) {
  return argument == Argument(1) || argument == Argument(1.0);
}

}  // namespace

size_t bias_index(const Node& layer) { return layer.op() == "aten::addmm" ? 0 : 2; }

bool has_bias_argument(const Node& layer) {
  if (layer.op() == "aten::addmm") {
    return is_one(layer.argument("alpha")) && is_one(layer.argument("beta"));
  }
  return layer.op() == "aten::linear" || operator_kind(layer) == OperatorKind::kConv;
}

std::string bias_obstacle(const Model& model, const Node& layer) {
  if (!has_bias_argument(layer)) {
    return layer.op() == "aten::addmm" ? "the layer scales its terms (alpha, beta)"
                                       : "the layer has no bias";
  }
  const Argument& argument = bias_argument(layer);
  const bool plain = argument.is_none() || bias_of(model, layer).defined();
  return plain ? "" : "the layer's bias is computed";
}

at::Tensor bias_of(const Model& model, const Node& layer) {
  const Value* value = bias_argument(layer).value();
  if (value == nullptr || !value->is_named_tensor()) return {};
  return model.tensor(value->name()).detach();
}

void set_bias(Model& model, Node* layer, const std::string& weight, const at::Tensor& bias) {
  const Value* old = bias_argument(*layer).value();
  if (old != nullptr && UseMap(model.graph()).of(old).size() == 1) {
    model.set_tensor(old->name(), bias);
    return;
  }
  const size_t dot = weight.rfind('.');
  const std::string base = dot == std::string::npos ? "bias" : weight.substr(0, dot) + ".bias";
  std::string name = base;
  for (int i = 1; model.find_tensor(name) || model.graph().find(name); ++i) {
    name = fmt::format("{}_{}", base, i);
  }
  Value* value = model.add_tensor(name, bias, TensorRole::kParameter);
  model.graph().set_argument(layer, bias_index(*layer), value);
}

}  // namespace compress
