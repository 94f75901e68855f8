// The state of an optimizer: looked at, moved to another tensor, saved and taken back.

#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace compress {
namespace {

std::string key(const OptimizedParameter& parameter, std::string_view suffix) {
  return fmt::format("{}/{}", parameter.name, suffix);
}

void require_like(const at::Tensor& saved, c10::ScalarType dtype, at::IntArrayRef sizes,
                  const std::string& where) {
  if (saved.defined() && saved.scalar_type() == dtype && saved.sizes().equals(sizes)) return;
  const auto text = [](c10::ScalarType type, at::IntArrayRef dims) {
    return fmt::format("{}[{}]", dtype_name(type), fmt::join(dims, ", "));
  };
  throw Error(ErrorCode::kBadFile,
              fmt::format("the state is {}, but it should be {}",
                          saved.defined() ? text(saved.scalar_type(), saved.sizes()) : "empty",
                          text(dtype, sizes)),
              where, "it was saved for another model");
}

}  // namespace

std::vector<Optimizer::Entry> Optimizer::entries() const {
  if (const SgdOptions* sgd = options_.get<SgdOptions>()) {
    if (sgd->momentum == 0) return {};
    return {{"momentum", &Moments::first}};
  }
  return {
      {"exp_avg", &Moments::first}, {"exp_avg_sq", &Moments::second}, {"step", &Moments::steps}};
}

size_t Optimizer::index_of(std::string_view name) const {
  std::vector<std::string> names;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].name == name) return i;
    names.push_back(parameters_[i].name);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("no parameter `{}` is under optimization", name), {},
              did_you_mean(name, names));
}

std::vector<at::Tensor> Optimizer::moments(std::string_view name) const {
  const Moments& moments = moments_[index_of(name)];
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& tensor : {moments.first, moments.second}) {
    if (tensor.defined()) tensors.push_back(tensor);
  }
  return tensors;
}

void Optimizer::replace(std::string_view name, at::Tensor tensor,
                        const std::function<at::Tensor(const at::Tensor&)>& moment) {
  const size_t index = index_of(name);
  if (!tensor.defined() || !tensor.is_floating_point() || !tensor.is_leaf()) {
    throw Error(ErrorCode::kInvalidArgument, "what replaces it is not a floating-point leaf",
                std::string(name), "detach it");
  }
  const at::NoGradGuard no_grad;
  const Moments& old = moments_[index];
  const auto convert = [&](const at::Tensor& from) {
    if (!from.defined()) return at::Tensor();
    const at::Tensor to = moment(from);
    if (!to.sizes().equals(tensor.sizes())) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("the new state has the sizes [{}] and the new tensor [{}]",
                              fmt::join(to.sizes(), ", "), fmt::join(tensor.sizes(), ", ")),
                  std::string(name));
    }
    return at::empty_like(tensor).copy_(to);  // in the layout that the kernels want
  };
  Moments moved{convert(old.first), convert(old.second), {}};
  if (old.steps.defined()) moved.steps = old.steps.to(tensor.device());
  moments_[index] = std::move(moved);
  parameters_[index].tensor = tensor.set_requires_grad(true);
}

std::map<std::string, at::Tensor> Optimizer::state() const {
  std::map<std::string, at::Tensor> state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    for (const Entry& entry : entries()) {
      const at::Tensor& tensor = moments_[i].*entry.member;
      if (tensor.defined()) state[key(parameters_[i], entry.suffix)] = tensor.clone();
    }
  }
  return state;
}

void Optimizer::load_state(const std::map<std::string, at::Tensor>& state) {
  const at::NoGradGuard no_grad;
  std::vector<Moments> loaded(parameters_.size());
  std::vector<std::string> known;
  size_t taken = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].tensor;
    std::vector<std::string> missing;
    for (const Entry& entry : entries()) {
      known.push_back(key(parameters_[i], entry.suffix));
      const auto found = state.find(known.back());
      if (found == state.end()) {
        missing.push_back(known.back());
        continue;
      }
      const bool is_count = entry.member == &Moments::steps;
      const c10::ScalarType dtype = is_count ? at::kFloat : parameter.scalar_type();
      require_like(found->second, dtype, is_count ? at::IntArrayRef() : parameter.sizes(),
                   known.back());
      const at::Tensor fresh =
          is_count ? at::empty({}, parameter.options().dtype(dtype)) : at::empty_like(parameter);
      loaded[i].*entry.member = fresh.copy_(found->second);
      ++taken;
    }
    if (!missing.empty() && missing.size() < entries().size()) {
      throw Error(ErrorCode::kBadFile, "the state lacks this entry", missing.front());
    }
  }
  for (const auto& [name, tensor] : state) {
    if (taken == state.size()) break;  // none is unknown
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string hint = did_you_mean(name, known);
    throw Error(ErrorCode::kBadFile,
                fmt::format("{} keeps no such state for any parameter", options_.name()), name,
                hint.empty() ? "it was saved by another optimizer or for another model" : hint);
  }
  moments_ = std::move(loaded);
}

}  // namespace compress
