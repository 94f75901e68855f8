// The `data` and `evaluate` sections of a recipe, read together and checked before any work.

#pragma once

#include "compress/calibrate/statistics.h"
#include "compress/data/spec.h"
#include "compress/evaluate.h"
#include "compress/options.h"
#include "compress/recipe.h"

#include <string>
#include <vector>

namespace lathe {

/// `"evaluate": {"data": "test", "metrics": ["top1"]}`.
struct EvaluateSection {
  std::string data = "test";
  std::vector<compress::Metric> metrics = {compress::Metric::kTop1};
  int64_t batch_size = 250;

  template <class Visitor>
  void visit(Visitor& field) {
    field("data", data, "Name of the entry of the data section to measure on.");
    field("metrics", metrics, "What is measured.");
    field("batch_size", batch_size, "Samples that run at once.").range(1, 1 << 20);
  }
};

/// The data of a recipe, opened.
struct RecipeData {
  EvaluateSection evaluate;
  compress::DatasetPtr test;         ///< null: the recipe measures nothing
  compress::DatasetPtr calibration;  ///< null: the recipe has no such entry
};

/// Both sections, read and checked; nothing is opened yet.
struct RecipeSections {
  compress::DataSection data;
  EvaluateSection evaluate;
};

/// Reads both sections; what is wrong goes to `problems`.
RecipeSections read_sections(const compress::Recipe& recipe, compress::Problems& problems);

/// Opens what the recipe uses. Throws compress::Error at the entry that cannot be opened.
RecipeData open_recipe_data(const compress::Recipe& recipe, const RecipeSections& sections);

/// Opens one entry of the recipe's data. Throws compress::Error at the entry.
compress::DatasetPtr open_entry(const compress::Recipe& recipe, const RecipeSections& sections,
                                const std::string& name, bool channels_last = false);

/// Batches of the calibration data, of the model's batch size where it has one baked in; empty when
/// the recipe has none. Throws compress::Error if its samples do not fit the model's inputs.
compress::BatchSource calibration_batches(const RecipeData& opened, const compress::Model& model);

}  // namespace lathe
