// The options of a train step.

#pragma once

#include "compress/evaluate.h"
#include "compress/options_nested.h"
#include "compress/train/losses.h"
#include "compress/train/optimizer.h"
#include "compress/train/schedule.h"

#include <cstdint>
#include <string>
#include <vector>

namespace compress {

/// The type in which operators that gain by it compute; parameters and losses are always fp32.
enum class Precision { kFp32, kBf16 };
inline std::vector<std::string_view> option_names(Precision) { return {"fp32", "bf16"}; }

/// A network that is matched. `original`, the model as the run got it, is always there.
struct TeacherOptions {
  using IsOptions = void;
  std::string name;
  std::string file;
  std::string architecture;

  template <class Visitor>
  void visit(Visitor& field) {
    field("name", name, "What losses call it.");
    field("file", file, "A model file, or `zoo:NAME`.");
    field("architecture", architecture, "Its architecture, if the file holds weights only.");
  }
  void validate(Problems& problems) const;
};

struct TrainOptions {
  std::string data = "train";
  std::string validation;
  std::vector<Metric> metrics = {Metric::kTop1};
  int64_t epochs = 1;
  int64_t batch_size = 128;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  std::vector<LossOptions> losses = {CrossEntropyOptions()};
  std::vector<TeacherOptions> teachers;
  std::string teacher_cache;
  std::vector<ParameterGroupOptions> groups;
  double clip_norm = 0;
  int64_t accumulate = 1;
  double ema = 0;
  Precision precision = Precision::kFp32;
  bool channels_last = false;
  int64_t validate_every = 1;
  int64_t checkpoint_every = 1;
  int64_t checkpoint_steps = 0;
  std::string log;
  int workers = 2;

  template <class Visitor>
  void visit(Visitor& field) {
    field("data", data, "Name of the entry of the data section to train on.");
    field("validation", validation,
          "Name of the entry to measure on after an epoch; chooses nothing. Empty: none.");
    field("metrics", metrics, "What is measured on the validation data.");
    field("epochs", epochs, "How often all samples are seen.").range(1, 1000000);
    field("batch_size", batch_size, "Samples of a forward pass.").range(1, 1 << 20);
    field("optimizer", optimizer, "How gradients become updates.");
    field("schedule", schedule, "The factor on the learning rate over the run.");
    field("losses", losses, "The terms of the loss, each with a weight.");
    field("teachers", teachers, "Networks that losses match, besides `original`.");
    field("teacher_cache", teacher_cache,
          "A folder to keep the teachers' outputs in, for later epochs and runs. Empty: none.");
    field("groups", groups, "Parameters that are trained otherwise; the first match counts.");
    field("clip_norm", clip_norm, "Greatest 2-norm of all gradients together; 0: any.").at_least(0);
    field("accumulate", accumulate, "Batches that make up an optimizer step.").range(1, 1 << 20);
    field("ema", ema,
          "Decay a step of a moving average of the weights, which the model ends as; 0: "
          "none.")
        .range(0.0, 1.0);
    field("precision", precision, "bf16: autocast, for operators that gain by it.");
    field("channels_last", channels_last,
          "Memory format of images and of 4-d weights in training.");
    field("validate_every", validate_every, "Epochs from a validation to the next.").at_least(1);
    field("checkpoint_every", checkpoint_every, "Epochs from a checkpoint to the next; 0: none.")
        .at_least(0);
    field("checkpoint_steps", checkpoint_steps,
          "Steps from a checkpoint to the next within an epoch; 0: none.")
        .at_least(0);
    field("log", log, "A file for metrics, one JSON object a line. Empty: none.");
    field("workers", workers, "Threads that prepare batches.").range(0, 256);
  }
  void validate(Problems& problems) const;
};

}  // namespace compress
