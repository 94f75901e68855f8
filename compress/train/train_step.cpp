// The step of a recipe that trains.

#include "compress/train/train_step.h"

#include "compress/train/trainer.h"

#include <fmt/format.h>

namespace compress {
namespace {

class TrainStep final : public PassWith<TrainOptions> {
 public:
  static constexpr PassInfo kInfo{
      "train", "Trains the model, with distillation and training passes if asked", Needs::kTraining,
      Keeps::kShapes | Keeps::kDtypes};

  void check_training(const Model& model, const Step& step, const TrainingEnvironment& environment,
                      const std::string& where, Problems& problems) const override {
    const auto& options = dynamic_cast<const OptionsOf<TrainOptions>&>(*step.options).value;
    const std::string outer = problems.prefix();
    problems.set_prefix(join_pointer(where, kTrainId));
    compress::check_training(model, options, step.during, environment, problems);
    problems.set_prefix(outer);
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    COMPRESS_CHECK(context.training != nullptr && context.step != nullptr,
                   "a train step runs in an environment");
    const TrainResult result =
        train(model, options, context.step->during, *context.training, context);
    context.count("epochs", result.epochs);
    context.count("steps", result.steps);
    context.measure("loss", result.loss);
    for (const auto& [metric, figure] : result.validation) {
      context.measure("validation_" + metric, figure);
    }
    return Change::kSome;
  }
};

}  // namespace

std::unique_ptr<Pass> make_train_step() { return make_pass<TrainStep>(); }

}  // namespace compress
