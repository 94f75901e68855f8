// Batch norms in a graph.

#include "passes/batch_norm_node.h"

namespace compress {

bool is_batch_norm(const Node& node) {
  return node.op() == "aten::batch_norm" || node.op() == "aten::native_batch_norm" ||
         node.op() == "aten::_native_batch_norm_legit_no_training";
}

bool is_training(const Node& norm) {
  if (!norm.has_argument("training")) return false;
  const bool* flag = std::get_if<bool>(&norm.argument("training").data());
  return flag == nullptr || *flag;
}

const Value* norm_value(const Node& norm, std::string_view argument) {
  return norm.has_argument(argument) ? norm.argument(argument).value() : nullptr;
}

at::Tensor norm_tensor(const Model& model, const Node& norm, std::string_view argument) {
  const Value* value = norm_value(norm, argument);
  if (value == nullptr || !value->is_named_tensor()) return {};
  return model.tensor(value->name()).detach();
}

BatchNorm read_batch_norm(const Model& model, const Node& norm) {
  return {norm_tensor(model, norm, "running_mean"), norm_tensor(model, norm, "running_var"),
          norm_tensor(model, norm, "weight"), norm_tensor(model, norm, "bias"),
          norm.argument("eps").as<double>()};
}

}  // namespace compress
