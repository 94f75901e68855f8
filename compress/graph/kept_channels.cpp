// The note of what removals have left.

#include "compress/graph/kept_channels.h"

#include "compress/json.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

namespace compress {
namespace {

Json notes_of(const Model& model) {
  const auto found = model.metadata.find(kKeptChannelsKey);
  if (found == model.metadata.end()) return Json::object();
  Json notes = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  return notes.is_object() ? notes : Json::object();
}

// The channels of a tensor by the numbers that they had before any removal; none if the note does
// not fit the tensor.
std::optional<std::vector<int64_t>> first_numbers(const Model& model, const Json& notes,
                                                  const std::string& name) {
  const NamedTensor* named = model.find_tensor(name);
  if (named == nullptr || !named->tensor.defined() || named->tensor.dim() != 1) return std::nullopt;
  std::vector<int64_t> numbers(static_cast<size_t>(named->tensor.numel()));
  const auto note = notes.find(name);
  if (note == notes.end()) {
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  }
  if (!note->is_array() || note->size() != numbers.size()) return std::nullopt;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (!(*note)[i].is_number_integer()) return std::nullopt;
    numbers[i] = (*note)[i].get<int64_t>();
  }
  return numbers;
}

}  // namespace

void note_kept_channels(Model& model, const ChannelGroups& groups, const ChannelSet& set) {
  Json notes = notes_of(model);
  for (const Node& node : model.graph().nodes()) {
    const auto index = node.argument_index("running_mean");
    const Value* mean = index ? node.arguments()[*index].value() : nullptr;
    if (mean == nullptr || !mean->is_named_tensor() || !groups.is_cut(set, mean)) continue;
    const auto numbers = first_numbers(model, notes, mean->name());
    if (!numbers) continue;
    Json left = Json::array();
    for (const int64_t kept : groups.kept(set, mean, 0)) {
      left.push_back(numbers->at(static_cast<size_t>(kept)));
    }
    notes[mean->name()] = std::move(left);
  }
  if (!notes.empty()) model.metadata[kKeptChannelsKey] = notes.dump();
}

std::optional<std::vector<int64_t>> channels_in(const Model& original, const Model& model,
                                                const std::string& name) {
  const auto had = first_numbers(original, notes_of(original), name);
  const auto has = first_numbers(model, notes_of(model), name);
  if (!had || !has) return std::nullopt;
  std::vector<int64_t> places;
  for (const int64_t number : *has) {
    const auto found = std::find(had->begin(), had->end(), number);
    if (found == had->end()) return std::nullopt;
    places.push_back(found - had->begin());
  }
  return places;
}

}  // namespace compress
