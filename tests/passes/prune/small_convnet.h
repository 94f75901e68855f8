// A small convolutional network, and a training of it with a pass at work.

#pragma once

#include "compress/data/tensors.h"
#include "compress/train/environment.h"
#include "tests/support/pass_test.h"

#include <string>

namespace compress::testing {

inline Model small_convnet() {
  Model model = parse_filled(R"(
input x : f32[batch,3,8,8]
parameter a.weight : f32[16,3,3,3]
parameter n.weight : f32[16]
parameter n.bias : f32[16]
buffer n.running_mean : f32[16]
buffer n.running_var : f32[16]
parameter b.weight : f32[12,16,3,3]
parameter fc.weight : f32[4,12]
parameter fc.bias : f32[4]
a = aten::conv2d(x, a.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,16,8,8]
n = aten::batch_norm(a, n.weight, n.bias, n.running_mean, n.running_var, false, 0.1, 0.00001, true) : f32[batch,16,8,8]
r = aten::relu(n) : f32[batch,16,8,8]
b = aten::conv2d(r, b.weight, none, [1, 1], [1, 1], [1, 1], 1) : f32[batch,12,8,8]
s = aten::relu(b) : f32[batch,12,8,8]
m = aten::mean.dim(s, [2, 3]) : f32[batch,12]
fc = aten::linear(m, fc.weight, fc.bias) : f32[batch,4]
return output = fc
)");
  for (const char* name : {"a.weight", "b.weight", "fc.weight"}) {
    model.set_tensor(name, model.tensor(name) * 0.1);
  }
  model.set_tensor("n.running_var", model.tensor("n.running_var").abs() + 0.5);
  return model;
}

/// Four epochs of four steps on random images with `passes` (`{pass=id,option=value},...`) under
/// `during`; `train` holds more options of the step.
inline RunResult train_with_all(Model& model, const std::string& passes,
                                const std::string& train = {}) {
  static const TrainingEnvironment environment = [] {
    TrainingEnvironment made;
    made.has_data = [](const std::string&) { return true; };
    made.open_data = [](const std::string&, bool) {
      at::manual_seed(1);
      return tensor_dataset({at::randn({64, 3, 8, 8})}, at::arange(64).remainder(4), "random");
    };
    return made;
  }();
  RunOptions options;
  options.training = &environment;
  options.verify = true;
  return run_passes("train{epochs=4,batch_size=16," + (train.empty() ? "" : train + ",") +
                        "during=[" + passes + "]}",
                    model, options);
}

/// The same with one pass, `id,option=value`.
inline RunResult train_with(Model& model, const std::string& pass, const std::string& train = {}) {
  return train_with_all(model, "{pass=" + pass + "}", train);
}

}  // namespace compress::testing
