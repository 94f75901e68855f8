// The `data` and `evaluate` sections of a recipe, read together and checked before any work.

#include "tools/lathe/evaluation.h"

#include "compress/data/loader.h"
#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace lathe {

using compress::DataSection;
using compress::Problems;

RecipeSections read_sections(const compress::Recipe& recipe, Problems& problems) {
  RecipeSections sections;
  if (!recipe.data.is_null()) {
    sections.data = compress::read_data_section(recipe.data, "/data", problems);
  }
  if (recipe.evaluate.is_null()) return sections;
  compress::OptionsOf<EvaluateSection> options;
  compress::read_options(recipe.evaluate, "/evaluate", options, problems);
  sections.evaluate = options.value;
  std::vector<std::string> names;
  if (recipe.data.is_object()) {
    for (const auto& [name, entry] : recipe.data.items()) names.push_back(name);
  }
  const std::string& wanted = sections.evaluate.data;
  if (std::find(names.begin(), names.end(), wanted) == names.end()) {
    const std::string near = compress::did_you_mean(wanted, names);
    problems.add("/evaluate/data", fmt::format("there is no data entry `{}`", wanted),
                 near.empty() ? "name an entry of the recipe's `data`" : near);
  }
  return sections;
}

compress::DatasetPtr open_entry(const compress::Recipe& recipe, const RecipeSections& sections,
                                const std::string& name, bool channels_last) {
  try {
    compress::OpenDataOptions options;
    options.channels_last = channels_last;
    return compress::open_data(sections.data.at(name), sections.data, options);
  } catch (const compress::Error& error) {
    throw error.within(
        fmt::format("{}/data/{}", recipe.file.empty() ? "" : recipe.file + ": ", name));
  }
}

RecipeData open_recipe_data(const compress::Recipe& recipe, const RecipeSections& sections) {
  RecipeData opened;
  opened.evaluate = sections.evaluate;
  const DataSection& section = sections.data;
  const auto open = [&](const std::string& name) { return open_entry(recipe, sections, name); };
  if (!recipe.evaluate.is_null()) opened.test = open(opened.evaluate.data);
  if (opened.test && opened.test->info().augmented) {
    throw compress::Error(
        compress::ErrorCode::kInvalidArgument,
        fmt::format("`{}` is augmented, so the figure would be of distorted images",
                    opened.evaluate.data),
        "/evaluate/data", "name an entry without `augment`");
  }
  if (section.contains("calibration")) opened.calibration = open("calibration");
  return opened;
}

compress::BatchSource calibration_batches(const RecipeData& opened, const compress::Model& model) {
  const compress::DatasetPtr& data = opened.calibration;
  if (!data) return nullptr;
  compress::LoaderOptions options;
  try {
    if (!model.is_tensor_set()) {
      compress::require_fit(model, data->info());
      options.batch_size = compress::fitting_batch_size(model, *data, options.batch_size);
    }
  } catch (const compress::Error& error) {
    throw error.within("/data/calibration");
  }
  return [data, options](const std::function<void(const std::vector<at::Tensor>&)>& take) {
    compress::Loader loader(data, options);
    while (std::optional<compress::Batch> batch = loader.next()) take(batch->inputs);
  };
}

}  // namespace lathe
