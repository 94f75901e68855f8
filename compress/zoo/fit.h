// Whether the tensors of a file fit a network.

#pragma once

#include "compress/model.h"
#include "compress/zoo/architecture.h"
#include "compress/zoo/zoo.h"

#include <map>
#include <string>
#include <vector>

namespace compress::zoo {

/// What does not fit, one line each.
struct Misfit {
  std::vector<std::string> surplus;      ///< names of the file that the network lacks
  std::vector<std::string> missing;      ///< names of the network that the file lacks
  std::vector<std::string> other_sizes;  ///< names of both
  std::vector<std::string> untied;       ///< names of one tied tensor with different values

  size_t count() const {
    return surplus.size() + missing.size() + other_sizes.size() + untied.size();
  }
};

/// The tensors of a file by name; tied ones come under each of their names.
using Weights = std::map<std::string, at::Tensor>;

Weights by_name(const StateDict& state_dict);

Misfit compare(const Model& model, const Weights& weights);

Shapes::Map sizes_of(const Weights& weights);

}  // namespace compress::zoo
