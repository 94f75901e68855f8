// A teacher: a model that only looks, and what it sees for each batch.

#pragma once

#include "compress/model.h"
#include "compress/train/loss.h"
#include "compress/train/taps.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace compress {

class TeacherCache;  // in "compress/train/teacher_cache.h"

class Teacher {
 public:
  /// Takes the model and puts it into evaluation mode. Throws Error(kInvalidArgument) with the
  /// teacher's name for a tap that it does not have.
  Teacher(std::string name, Model model, std::vector<std::string> taps = {});
  ~Teacher();
  Teacher(Teacher&&) noexcept;

  const std::string& name() const { return name_; }
  const Model& model() const { return *model_; }
  /// Which of several places was taken for a tap (`Taps::notes`).
  const std::vector<std::string>& notes() const { return taps_.notes(); }

  /// Throws Error(kInvalidArgument) with the teacher's name if the samples do not fit its inputs,
  /// or if its batch size is fixed to another than `batch_size`.
  void require_fit(const DatasetInfo& data, int64_t batch_size) const;

  /// From now on the first output comes from the cache where it has all rows of a batch, and goes
  /// into it where not. Ignored while there are taps, which no cache holds. The cache gives the
  /// first output only, in float32: the same bits, if a row of the model's output does not depend
  /// on which samples share its batch (some matrix products round by the batch's size).
  void use_cache(std::unique_ptr<TeacherCache> cache);

  /// Outputs and taps for a batch, without gradients, on the batch's device. `epoch` tells which
  /// variant of the samples these are.
  Activations run(const Batch& batch, uint64_t epoch);

  /// How often the model itself ran.
  int64_t runs() const { return runs_; }

 private:
  std::string name_;
  std::unique_ptr<Model> model_;  // where it is stays fixed: taps refer to it
  Taps taps_;
  std::unique_ptr<TeacherCache> cache_;
  int64_t runs_ = 0;
};

/// Throws Error(kInvalidArgument) naming the teacher if its first output is not of the sizes of the
/// student's: another number of classes, another length.
void require_same_logits(const Activations& student, const Activations& teacher,
                         const std::string& name);

}  // namespace compress
