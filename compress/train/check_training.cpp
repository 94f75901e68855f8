// What can be known to be wrong with a train step before any work.

#include "compress/error.h"
#include "compress/train/loss.h"
#include "compress/train/trainer.h"
#include "compress/weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace compress {
namespace {

void check_entry(const std::string& entry, const char* option,
                 const TrainingEnvironment& environment, Problems& problems) {
  if (entry.empty() || environment.has_data(entry)) return;
  problems.add(option, fmt::format("there is no data entry `{}`", entry),
               "name an entry of the recipe's `data`");
}

// The selectors among the options of the passes that work during training.
void check_hooks(const Model& model, const std::vector<Step>& during, Problems& problems) {
  const std::vector<SelectorTarget> targets = selector_targets(model);
  for (size_t i = 0; i < during.size(); ++i) {
    const std::string where = fmt::format("{}/during/{}", problems.prefix(), i);
    const std::unique_ptr<AnyOptions> options = during[i].options->clone();
    const size_t before = problems.size();
    for (const Field& field : options->fields()) {
      if (field.selector() == nullptr) continue;
      try {
        field.selector()->require_match(targets, join_pointer(where, field.name));
      } catch (const Error& nothing) {
        problems.add(nothing);
      }
    }
    if (problems.size() > before) continue;  // a pass with nothing selected is no use to ask
    try {
      during[i].pass->check_any(model, *during[i].options);
    } catch (const Error& refusal) {
      problems.add(refusal.within(where));
    }
  }
}

void check_teachers(const TrainOptions& options, Problems& problems) {
  std::set<std::string> known = {"original"}, used;
  for (const TeacherOptions& teacher : options.teachers) known.insert(teacher.name);
  for (size_t i = 0; i < options.losses.size(); ++i) {
    for (const std::string& teacher : make_loss(options.losses[i])->wishes().teachers) {
      used.insert(teacher);
      if (known.count(teacher)) continue;
      problems.add(fmt::format("/losses/{}", i), fmt::format("there is no teacher `{}`", teacher),
                   did_you_mean(teacher, {known.begin(), known.end()}));
    }
  }
  for (size_t i = 0; i < options.teachers.size(); ++i) {
    if (used.count(options.teachers[i].name)) continue;
    problems.add(fmt::format("/teachers/{}", i),
                 fmt::format("no loss uses the teacher `{}`", options.teachers[i].name));
  }
}

}  // namespace

void TeacherOptions::validate(Problems& problems) const {
  if (name.empty()) problems.add("name", "a teacher needs a name");
  if (name == "original") {
    problems.add("name", "`original` is the model as the run got it", "choose another name");
  }
  if (file.empty()) problems.add("file", "a teacher needs a file");
}

void TrainOptions::validate(Problems& problems) const {
  if (losses.empty()) problems.add("losses", "a training needs a loss");
  if (ema >= 1) problems.add("ema", "a decay of 1 would never move", "0.999 is usual");
  if (!validation.empty() && metrics.empty()) problems.add("metrics", "nothing to measure");
}

void check_training(const Model& model, const TrainOptions& options,
                    const std::vector<Step>& during, const TrainingEnvironment& environment,
                    Problems& problems) {
  check_entry(options.data, "data", environment, problems);
  check_entry(options.validation, "validation", environment, problems);
  check_teachers(options, problems);
  check_hooks(model, during, problems);
  const std::vector<SelectorTarget> parameters = parameter_targets(model);
  for (size_t i = 0; i < options.groups.size(); ++i) {
    try {
      options.groups[i].where.require_match(
          parameters, fmt::format("{}/groups/{}/where", problems.prefix(), i));
    } catch (const Error& nothing) {
      problems.add(nothing);
    }
  }
}

}  // namespace compress
