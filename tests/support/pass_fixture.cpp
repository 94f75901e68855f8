// What tests of passes need: run a pass by its line, look at a weight as text.

#include "tests/support/pass_fixture.h"

#include "compress/weight.h"
#include "passes/registry.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

namespace compress::testing {
namespace {

std::string tensor_text(const at::Tensor& tensor) {
  if (tensor.dim() == 0) return fmt::format("{}", tensor.item<float>() + 0.0f);  // -0 is 0 here
  std::vector<std::string> parts;
  for (const at::Tensor& part : tensor.unbind(0)) parts.push_back(tensor_text(part));
  return fmt::format("[{}]", fmt::join(parts, ", "));
}

}  // namespace

const PassRegistry& passes() {
  static const PassRegistry registry = builtin_passes();
  return registry;
}

Recipe recipe_of(std::string_view line) {
  return read_recipe({{}, parse_recipe_line(line), {}}, passes());
}

RunResult run_passes(std::string_view line, Model& model, RunOptions options) {
  options.verify = true;
  return run_recipe(recipe_of(line), model, options);
}

Change run_pass(std::string_view line, Model& model) {
  Change change = Change::kNone;
  for (const StepResult& step : run_passes(line, model).steps) {
    if (step.change == Change::kSome) change = Change::kSome;
  }
  return change;
}

std::string refusal(std::string_view line, Model& model) {
  return message_of([&] { run_pass(line, model); });
}

std::string effective_weight(Model& model, std::string_view name) {
  for (const Weight& weight : weights(model)) {
    if (weight.name() == name) return tensor_text(weight.effective());
  }
  return fmt::format("there is no weight `{}`", name);
}

}  // namespace compress::testing
