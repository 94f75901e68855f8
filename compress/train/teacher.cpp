// A teacher: a model that only looks, and what it sees for each batch.

#include "compress/train/teacher.h"

#include "compress/error.h"
#include "compress/evaluate.h"
#include "compress/train/teacher_cache.h"

#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

namespace compress {
namespace {

std::string of_teacher(const std::string& name) { return fmt::format("teacher `{}`", name); }

Taps make_taps(const Model& model, const std::string& name, std::vector<std::string> texts) {
  try {
    return Taps(model, std::move(texts));
  } catch (const Error& error) {
    throw error.within(of_teacher(name));
  }
}

}  // namespace

Teacher::Teacher(std::string name, Model model, std::vector<std::string> taps)
    : name_(std::move(name)),
      model_(std::make_unique<Model>(std::move(model))),
      taps_(make_taps(*model_, name_, std::move(taps))) {
  model_->eval();
}

Teacher::~Teacher() = default;
Teacher::Teacher(Teacher&&) noexcept = default;

void Teacher::require_fit(const DatasetInfo& data, int64_t batch_size) const {
  try {
    compress::require_fit(*model_, data);
  } catch (const Error& error) {
    throw error.within(of_teacher(name_));
  }
  const auto& sizes = model_->graph().inputs().front()->type.sizes;
  if (!sizes || sizes->empty() || sizes->front().is_symbolic()) return;
  if (sizes->front().size == batch_size) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("its batch size {} is baked in, training has batches of {}",
                          sizes->front().size, batch_size),
              of_teacher(name_), "export the teacher with a dynamic batch dimension");
}

void Teacher::use_cache(std::unique_ptr<TeacherCache> cache) { cache_ = std::move(cache); }

Activations Teacher::run(const Batch& batch, uint64_t epoch) {
  TeacherCache* cache = taps_.texts().empty() ? cache_.get() : nullptr;
  if (cache != nullptr) {
    const at::Tensor rows = cache->find(batch.indices, epoch);
    if (rows.defined()) return {{rows.to(batch.inputs.at(0).device())}, {}};
  }
  const at::NoGradGuard no_grad;
  ++runs_;
  Activations seen;
  try {
    seen = taps_.run(batch.inputs);
  } catch (const Error& error) {
    throw error.within(of_teacher(name_));
  }
  if (cache != nullptr && !seen.outputs.empty()) {
    cache->store(batch.indices, epoch, seen.outputs.front());
  }
  return seen;
}

void require_same_logits(const Activations& student, const Activations& teacher,
                         const std::string& name) {
  if (student.outputs.empty() || teacher.outputs.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "there is no output to compare", of_teacher(name));
  }
  const at::Tensor& ours = student.outputs.front();
  const at::Tensor& theirs = teacher.outputs.front();
  if (ours.sizes() == theirs.sizes()) return;
  const bool classes_differ =
      ours.dim() > 0 && ours.dim() == theirs.dim() &&
      ours.sizes().slice(0, ours.dim() - 1) == theirs.sizes().slice(0, theirs.dim() - 1);
  const std::string what =
      classes_differ
          ? fmt::format("it tells {} classes apart, the student {}", theirs.size(-1), ours.size(-1))
          : fmt::format("its output is [{}], the student's [{}]", fmt::join(theirs.sizes(), ", "),
                        fmt::join(ours.sizes(), ", "));
  throw Error(ErrorCode::kInvalidArgument, what, of_teacher(name),
              "take a teacher of the same task, or compare features instead of logits");
}

}  // namespace compress
