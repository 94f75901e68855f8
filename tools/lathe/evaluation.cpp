// The `data` and `evaluate` sections of a recipe, read together and checked before any work.

#include "tools/lathe/evaluation.h"

#include "compress/data/loader.h"
#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lathe {

using compress::DataSection;
using compress::Problems;

RecipeData open_recipe_data(const compress::Recipe& recipe) {
  Problems problems;
  DataSection section;
  if (!recipe.data.is_null()) section = compress::read_data_section(recipe.data, "/data", problems);
  RecipeData opened;
  if (!recipe.evaluate.is_null()) {
    compress::OptionsOf<EvaluateSection> options;
    compress::read_options(recipe.evaluate, "/evaluate", options, problems);
    opened.evaluate = options.value;
    if (problems.empty() && !section.contains(opened.evaluate.data)) {
      std::vector<std::string> names;
      for (const auto& [name, spec] : section) names.push_back(name);
      problems.add("/evaluate/data",
                   fmt::format("there is no data entry `{}`", opened.evaluate.data),
                   compress::did_you_mean(opened.evaluate.data, names));
    }
  }
  problems.throw_if_any(recipe.file);
  const auto open = [&](const std::string& name) -> compress::DatasetPtr {
    try {
      return compress::open_data(section.at(name), section);
    } catch (const compress::Error& error) {
      throw error.within(
          fmt::format("{}/data/{}", recipe.file.empty() ? "" : recipe.file + ": ", name));
    }
  };
  if (!recipe.evaluate.is_null()) opened.test = open(opened.evaluate.data);
  if (section.contains("calibration")) opened.calibration = open("calibration");
  return opened;
}

compress::BatchSource batches_of(const compress::DatasetPtr& data) {
  if (!data) return nullptr;
  return [data](const std::function<void(const std::vector<at::Tensor>&)>& take) {
    compress::Loader loader(data, {});
    while (std::optional<compress::Batch> batch = loader.next()) take(batch->inputs);
  };
}

}  // namespace lathe
