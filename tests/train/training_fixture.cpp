// What tests of training need: small networks, small data, an environment in memory.

#include "tests/train/training_fixture.h"

#include "compress/data/tensors.h"
#include "compress/error.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <nlohmann/json.hpp>

namespace compress::testing {

Model linear_network() {
  return parse_filled(R"(
input x : f32[batch,8]
parameter fc.weight : f32[4,8]
parameter fc.bias : f32[4]
linear = aten::linear(x, fc.weight, fc.bias) : f32[batch,4] @ fc
return output = linear
)");
}

Model conv_network() {
  return parse_filled(R"(
input x : f32[batch,3,8,8]
parameter conv1.weight : f32[8,3,3,3]
parameter bn1.weight : f32[8]
parameter bn1.bias : f32[8]
buffer bn1.running_mean : f32[8] = [0, 0, 0, 0, 0, 0, 0, 0]
buffer bn1.running_var : f32[8] = [1, 1, 1, 1, 1, 1, 1, 1]
parameter conv2.weight : f32[8,8,3,3]
parameter fc.weight : f32[4,8]
parameter fc.bias : f32[4]
conv2d = aten::conv2d(x, conv1.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,8,8] @ conv1
batch_norm = aten::batch_norm(conv2d, bn1.weight, bn1.bias, bn1.running_mean, bn1.running_var, false, 0.1, 0.00001, true) : f32[batch,8,8,8] @ bn1
relu = aten::relu(batch_norm) : f32[batch,8,8,8]
conv2d_1 = aten::conv2d(relu, conv2.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,8,8,8] @ conv2
relu_1 = aten::relu(conv2d_1) : f32[batch,8,8,8]
mean = aten::mean.dim(relu_1, [2, 3]) : f32[batch,8]
linear = aten::linear(mean, fc.weight, fc.bias) : f32[batch,4] @ fc
return output = linear
)");
}

DatasetPtr toy_data(std::vector<int64_t> sizes, int64_t samples, int64_t classes) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  sizes.insert(sizes.begin(), samples);
  // Images are noise around a colour, which is all that their label depends on.
  const at::Tensor rows = at::randn({samples, sizes[1]}, generator);
  std::vector<int64_t> flat(sizes.size(), 1);
  flat[0] = samples;
  flat[1] = sizes[1];
  const at::Tensor inputs =
      sizes.size() == 2 ? rows : rows.view(flat) + at::randn(sizes, generator).mul_(0.3);
  const at::Tensor truth = at::randn({rows.size(1), classes}, generator);
  return tensor_dataset({inputs}, rows.matmul(truth).argmax(1), "toys");
}

TrainingEnvironment environment_of(const DatasetPtr& data,
                                   const std::filesystem::path& checkpoints) {
  TrainingEnvironment environment;
  environment.open_data = [data](const std::string&, bool) { return data; };
  environment.has_data = [](const std::string&) { return true; };
  environment.checkpoints = checkpoints;
  return environment;
}

TrainOptions train_options(const std::string& json) {
  OptionsOf<TrainOptions> options;
  Problems problems;
  read_options(Json::parse(json), "", options, problems);
  problems.throw_if_any();
  return options.value;
}

TrainResult train_model(Model& model, const TrainOptions& options,
                        const TrainingEnvironment& environment, const std::string& during,
                        uint64_t seed) {
  std::vector<Step> steps;
  if (!during.empty()) steps = recipe_of(during).steps;
  PassContext context(seed);
  return train(model, options, steps, environment, context);
}

}  // namespace compress::testing
