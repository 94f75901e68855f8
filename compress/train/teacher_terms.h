// What all losses against teachers share: what they wish for, their mean over teachers, errors that
// say who does not fit.

#pragma once

#include "compress/error.h"
#include "compress/train/loss.h"
#include "compress/train/loss_types.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// The outputs of the teachers, and both sides' activations at the places.
inline LossWishes teacher_wishes(const TeacherNames& teachers, const std::vector<TapPair>& taps) {
  LossWishes wishes;
  wishes.teachers = teachers.names;
  for (const TapPair& tap : taps) wishes.student_taps.push_back(tap.student);
  for (const std::string& name : teachers.names) {
    for (const TapPair& tap : taps) wishes.teacher_taps[name].push_back(tap.teacher);
  }
  return wishes;
}

inline const Activations& teacher_of(const LossBatch& batch, const std::string& name) {
  const auto found = batch.teachers.find(name);
  COMPRESS_CHECK(found != batch.teachers.end(), "the teacher `" + name + "` did not run");
  return found->second;
}

inline const at::Tensor& tap_of(const Activations& activations, const std::string& tap) {
  const auto found = activations.taps.find(tap);
  COMPRESS_CHECK(found != activations.taps.end(), "nothing was kept at `" + tap + "`");
  return found->second;
}

/// The mean of `term(name, activations)` over the teachers. What a term refuses gets the names of
/// the loss and of the teacher.
template <class TermOfTeacher>
at::Tensor mean_over_teachers(std::string_view loss, const TeacherNames& teachers,
                              const LossBatch& batch, TermOfTeacher&& term) {
  at::Tensor sum;
  for (const std::string& name : teachers.names) {
    try {
      const at::Tensor one = term(name, teacher_of(batch, name));
      sum = sum.defined() ? sum.add(one) : one;
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("with the teacher `{}`, {}", name, error.message()),
                  std::string(loss), error.hint());
    }
  }
  return teachers.names.size() == 1 ? sum : sum.div(static_cast<double>(teachers.names.size()));
}

/// The sum of `term(student's activation, teacher's activation)` over places. What a term refuses
/// gets the name of the place.
template <class TermOfPair>
at::Tensor sum_over_taps(const std::vector<TapPair>& taps, const Activations& student,
                         const Activations& teacher, TermOfPair&& term) {
  at::Tensor sum;
  for (const TapPair& tap : taps) {
    try {
      const at::Tensor one = term(tap_of(student, tap.student), tap_of(teacher, tap.teacher));
      sum = sum.defined() ? sum.add(one) : one;
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("at `{}`: {}", tap.student, error.message()),
                  error.where(), error.hint());
    }
  }
  return sum;
}

}  // namespace compress
