// Where a training went wrong.

#pragma once

#include "compress/model.h"

#include <string>
#include <vector>

namespace compress {

/// The first thing that is not finite, a clause such as "the parameter layer1.0.conv1.weight is",
/// "the input has elements that are", or "the output of relu_3 (layer2.0) is the first value that
/// is": looks at the parameters, then runs the model on `inputs` and watches every value.
std::string first_not_finite(const Model& model, const std::vector<at::Tensor>& inputs);

}  // namespace compress
