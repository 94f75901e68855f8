// Whether the tensors of a file fit a network, and putting them there.

#include "compress/zoo/fit.h"

#include "compress/error.h"
#include "compress/io/state_dict.h"

#include <ATen/ops/equal.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

namespace compress::zoo {
namespace {

// Tensors in files that hold no weights: counters that only matter for batch norm with a cumulative
// average, position numbers, causal masks.
bool is_dispensable(std::string_view name) {
  constexpr std::array<std::string_view, 4> kEndings = {"num_batches_tracked", "position_ids",
                                                        ".attn.bias", ".attn.masked_bias"};
  for (const std::string_view ending : kEndings) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

std::string show(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

std::vector<std::string> names_of(const NamedTensor& tensor) {
  std::vector<std::string> names = {tensor.name};
  names.insert(names.end(), tensor.aliases.begin(), tensor.aliases.end());
  return names;
}

// The names of the tensor that the file has.
std::vector<std::string> found_names(const NamedTensor& tensor, const Weights& weights) {
  std::vector<std::string> found;
  for (const std::string& name : names_of(tensor)) {
    if (weights.contains(name)) found.push_back(name);
  }
  return found;
}

void compare_tensor(const NamedTensor& tensor, const Weights& weights, Misfit& misfit) {
  const std::vector<std::string> found = found_names(tensor, weights);
  if (found.empty()) misfit.missing.push_back(tensor.name);
  for (const std::string& name : found) {
    const at::Tensor& given = weights.at(name);
    if (given.sizes() != tensor.tensor.sizes()) {
      misfit.other_sizes.push_back(name);
    } else if (!given.is_same(weights.at(found.front())) &&
               !at::equal(given, weights.at(found.front()))) {
      misfit.untied.push_back(name);
    }
  }
}

// How many of their last parts between dots two names have in common.
size_t common_parts(std::string_view a, std::string_view b) {
  size_t parts = 0, length = 0;
  for (; length < std::min(a.size(), b.size()); ++length) {
    const char of_a = a[a.size() - 1 - length], of_b = b[b.size() - 1 - length];
    if (of_a != of_b) break;
    parts += of_a == '.';
  }
  const bool whole = (length == a.size() || a[a.size() - 1 - length] == '.') &&
                     (length == b.size() || b[b.size() - 1 - length] == '.');
  return parts + (length > 0 && whole);
}

// The tensor that is meant by `name`: of its sizes with most of its parts, else the nearest name.
template <class SizesOf>
std::string likeliest(const std::string& name, at::IntArrayRef sizes,
                      const std::vector<std::string>& candidates, const SizesOf& sizes_of) {
  std::string best;
  size_t most = 0;
  for (const std::string& candidate : candidates) {
    const size_t parts = common_parts(name, candidate);
    if (parts <= most || sizes_of(candidate) != sizes) continue;
    most = parts;
    best = candidate;
  }
  if (best.empty()) best = nearest(name, candidates);
  return best.empty() ? "" : fmt::format(" (nearest: {} {})", best, show(sizes_of(best)));
}

std::string report(const Misfit& misfit, const Model& model, const Weights& weights) {
  const auto in_file = [&](const std::string& name) { return weights.at(name).sizes(); };
  const auto in_network = [&](const std::string& name) { return model.tensor(name).sizes(); };
  std::string text = "the weights do not fit the network";
  for (const std::string& name : misfit.surplus) {
    text += fmt::format("\n  {} {}: the network has no such tensor{}", name, show(in_file(name)),
                        likeliest(name, in_file(name), misfit.missing, in_network));
  }
  for (const std::string& name : misfit.missing) {
    text += fmt::format("\n  {} {}: missing in the file{}", name, show(in_network(name)),
                        likeliest(name, in_network(name), misfit.surplus, in_file));
  }
  for (const std::string& name : misfit.other_sizes) {
    text += fmt::format("\n  {} {}: the network has {}", name, show(weights.at(name).sizes()),
                        show(model.tensor(name).sizes()));
  }
  for (const std::string& name : misfit.untied) {
    text += fmt::format("\n  {} is tied to {} in the network, but differs in the file", name,
                        model.find_tensor(name)->name);
  }
  return text;
}

}  // namespace

Misfit compare(const Model& model, const Weights& weights) {
  Misfit misfit;
  for (const NamedTensor& tensor : model.tensors()) compare_tensor(tensor, weights, misfit);
  for (const auto& [name, tensor] : weights) {
    if (model.find_tensor(name) == nullptr && !is_dispensable(name)) misfit.surplus.push_back(name);
  }
  return misfit;
}

Shapes::Map sizes_of(const Weights& weights) {
  Shapes::Map sizes;
  for (const auto& [name, tensor] : weights) sizes[name] = tensor.sizes().vec();
  return sizes;
}

Weights by_name(const StateDict& state_dict) {
  return Weights(state_dict.tensors.begin(), state_dict.tensors.end());
}

void load_into(Model& model, const StateDict& state_dict) {
  const Weights weights = by_name(state_dict);
  const Misfit misfit = compare(model, weights);
  if (misfit.count() > 0) {
    throw Error(ErrorCode::kInvalidArgument, report(misfit, model, weights), {},
                "`lathe models` lists the architectures");
  }
  for (const NamedTensor& tensor : model.tensors()) {
    const at::Tensor& given = weights.at(found_names(tensor, weights).front());
    at::Tensor values = given.detach().to(tensor.tensor.scalar_type());
    values.set_requires_grad(tensor.role == TensorRole::kParameter);
    model.set_tensor(tensor.name, std::move(values));
  }
}

}  // namespace compress::zoo
