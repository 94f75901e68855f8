// All teachers of a training run.

#include "compress/train/teachers.h"

#include "compress/error.h"
#include "compress/graph/digest.h"
#include "compress/train/loss.h"
#include "compress/train/teacher_cache.h"

#include <fmt/format.h>

#include <algorithm>

namespace compress {
namespace {

Model load_teacher(const std::string& name, const TrainOptions& options,
                   const TrainingEnvironment& environment, const Model& original) {
  const auto told = std::find_if(options.teachers.begin(), options.teachers.end(),
                                 [&](const TeacherOptions& one) { return one.name == name; });
  Model model = original.clone(/*deep=*/false);
  if (told != options.teachers.end()) {
    model = environment.load_model(told->file, told->architecture);
  } else if (name != "original") {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("there is no teacher `{}`", name));
  }
  model.to(environment.device);
  return model;
}

}  // namespace

Teachers::Teachers(const TrainOptions& options, const TrainingEnvironment& environment,
                   const PassContext& context, const Model& model, const Dataset& data) {
  std::map<std::string, std::vector<std::string>> wanted;  // taps by teacher
  for (const LossOptions& loss : options.losses) {
    const LossWishes wishes = make_loss(loss)->wishes();
    for (const std::string& name : wishes.teachers) wanted[name];
    for (const auto& [name, taps] : wishes.teacher_taps) {
      wanted[name].insert(wanted[name].end(), taps.begin(), taps.end());
    }
  }
  const Model& original = context.original != nullptr ? *context.original : model;
  for (auto& [name, taps] : wanted) {
    Teacher teacher(name, load_teacher(name, options, environment, original), taps);
    teacher.require_fit(data.info(), options.batch_size);
    if (!options.teacher_cache.empty()) {
      const std::string described =
          environment.describe_data ? environment.describe_data(options.data) : data.info().name;
      const char* autocast = options.precision == Precision::kBf16 ? " in bf16" : "";
      const TeacherCacheKey key{model_digest(teacher.model()) + autocast, described,
                                context.generator("samples").current_seed(), data.info().augmented};
      teacher.use_cache(std::make_unique<TeacherCache>(options.teacher_cache, key, data.size()));
    }
    teachers_.emplace(name, std::move(teacher));
  }
}

std::map<std::string, Activations> Teachers::run(const Batch& batch, int64_t epoch) {
  std::map<std::string, Activations> seen;
  for (auto& [name, teacher] : teachers_) {
    seen.emplace(name, teacher.run(batch, static_cast<uint64_t>(epoch)));
  }
  return seen;
}

}  // namespace compress
