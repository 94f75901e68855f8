// Built-in architectures, for weights that come without a graph.

#include "compress/zoo/zoo.h"

#include "compress/error.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"
#include "compress/zoo/architecture.h"
#include "compress/zoo/fit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

namespace compress::zoo {
namespace {

std::string describe_inputs(const Model& model) {
  std::vector<std::string> inputs;
  for (const Value* input : model.graph().inputs()) {
    inputs.push_back(fmt::format("{} : {}", input->name(), print(input->type)));
  }
  return fmt::format("{}", fmt::join(inputs, ", "));
}

Parameters inferred(const Architecture& architecture, const Dialect& dialect,
                    const Shapes::Map& sizes, const Parameters::List& given) {
  Parameters parameters = default_parameters(architecture);
  architecture.family.infer(Shapes(sizes, dialect.renames), parameters);
  for (const auto& [name, number] : given) parameters.set(name, number);
  return parameters;
}

struct Candidate {
  Parameters parameters;
  Blueprint blueprint;
  Misfit misfit;
};

// No tensor's size depends on how many heads attention has: other heads are another network.
std::optional<std::string> assumption(const Spec& spec, const Parameters& parameters) {
  constexpr std::string_view kHeads = "heads";
  const bool is_given = std::any_of(spec.given.begin(), spec.given.end(),
                                    [&](const auto& entry) { return entry.first == kHeads; });
  if (is_given || !parameters.contains(kHeads)) return std::nullopt;
  return fmt::format(
      "took {} heads of attention, which the weights do not tell; another number "
      "with --arch '{}{{heads=N}}'",
      parameters[kHeads], spec.architecture.name);
}

// The architecture under one repository's names; nothing if its numbers make no network.
std::optional<Candidate> attempt(const Architecture& architecture, const Dialect& dialect,
                                 const Weights& weights, const Parameters::List& given) {
  try {
    const Parameters parameters = inferred(architecture, dialect, sizes_of(weights), given);
    Candidate candidate{parameters, blueprint(architecture, parameters, dialect), {}};
    candidate.misfit = compare(candidate.blueprint.model, weights);
    return candidate;
  } catch (const Error&) {
    return std::nullopt;  // sizes that are no network of this family
  }
}

const Dialect& dialect_named(const Family& family, const std::optional<std::string>& name) {
  const auto found = std::find_if(family.dialects.begin(), family.dialects.end(),
                                  [&](const Dialect& dialect) { return dialect.name == name; });
  return found == family.dialects.end() ? family.dialects.front() : *found;
}

}  // namespace

std::vector<Entry> entries() {
  std::vector<Entry> entries;
  for (const Architecture& architecture : architectures()) {
    const Dialect& dialect = architecture.family.dialects.front();
    const Blueprint net = blueprint(architecture, default_parameters(architecture), dialect);
    Entry& entry = entries.emplace_back();
    entry.name = architecture.name;
    entry.summary = architecture.summary;
    entry.inputs = describe_inputs(net.model);
    entry.parameters = architecture.parameters;
    for (const Dialect& known : architecture.family.dialects) entry.keys.push_back(known.name);
  }
  return entries;
}

Model build(std::string_view text) {
  const Spec spec = parse_spec(text);
  Parameters parameters = default_parameters(spec.architecture);
  for (const auto& [name, number] : spec.given) parameters.set(name, number);
  const Dialect& dialect = dialect_named(spec.architecture.family, spec.keys);
  Model model = initialize(blueprint(spec.architecture, parameters, dialect), spec.seed);
  propagate_shapes(model);
  return model;
}

Model build_for(std::string_view text, const StateDict& state_dict) {
  const Weights weights = by_name(state_dict);
  const Spec spec = parse_spec(text);
  std::optional<Candidate> best;
  for (const Dialect& dialect : spec.architecture.family.dialects) {
    if (spec.keys && dialect.name != *spec.keys) continue;
    std::optional<Candidate> candidate = attempt(spec.architecture, dialect, weights, spec.given);
    if (!candidate) continue;
    if (!best || candidate->misfit.count() < best->misfit.count()) best = std::move(candidate);
  }
  if (!best) {  // report what is wrong with the numbers
    const Dialect& dialect = dialect_named(spec.architecture.family, spec.keys);
    const Parameters parameters =
        inferred(spec.architecture, dialect, sizes_of(weights), spec.given);
    best = Candidate{parameters, blueprint(spec.architecture, parameters, dialect), {}};
  }
  try {
    load_into(best->blueprint.model, state_dict);
  } catch (const Error& error) {
    throw error.within(spec.architecture.name);
  }
  Model model = std::move(best->blueprint.model);
  propagate_shapes(model);
  if (auto assumed = assumption(spec, best->parameters)) model.notes.push_back(*assumed);
  return model;
}

std::vector<Proposal> propose(const StateDict& state_dict) {
  const Weights weights = by_name(state_dict);
  std::vector<Proposal> proposals;
  for (const Architecture& architecture : architectures()) {
    for (const Dialect& dialect : architecture.family.dialects) {
      const auto candidate = attempt(architecture, dialect, weights, {});
      if (!candidate || candidate->misfit.count() > 0) continue;
      proposals.push_back({architecture.name, architecture.summary});
      break;
    }
  }
  return proposals;
}

}  // namespace compress::zoo
