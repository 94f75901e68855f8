// Models for tests, from their text.

#include "tests/support/models.h"

#include "compress/graph/text.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

#include <string>
#include <vector>

namespace compress::testing {
namespace {

at::Tensor random_tensor(const TensorType& type, at::Generator& generator) {
  std::vector<int64_t> sizes;
  for (const Dim& dim : type.sizes.value()) sizes.push_back(dim.size);
  at::Tensor tensor = at::empty(sizes, type.dtype.value());
  if (tensor.is_floating_point()) return tensor.normal_(0, 1, generator);
  return tensor.random_(0, tensor.scalar_type() == at::kBool ? 2 : 10, generator);
}

}  // namespace

Model parse_filled(std::string_view text, uint64_t seed) {
  Model model = parse_model(text);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  std::vector<std::string> missing;
  for (const NamedTensor& tensor : model.tensors()) {
    if (!tensor.tensor.defined()) missing.push_back(tensor.name);
  }
  for (const std::string& name : missing) {
    model.set_tensor(name, random_tensor(model.graph().find(name)->type, generator));
  }
  return model;
}

}  // namespace compress::testing
