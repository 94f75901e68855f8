// Results to standard output, messages and progress to standard error.

#pragma once

#include "compress/model.h"

#include <chrono>
#include <cstdint>
#include <string>

namespace lathe {

struct ModelArgument;

/// Writes a result. Throws compress::Error(kIo) when standard output cannot take it.
void print_result(const std::string& text);

/// A message for the person in front of the terminal.
void say(const std::string& text);

/// Reads the model of an argument and says what the reader found worth saying.
compress::Model load(const ModelArgument& argument);

/// A line on standard error that shows how far the work is and how long it will take. Silent unless
/// standard error is a terminal; cleared at the end.
class ProgressLine {
 public:
  explicit ProgressLine(std::string title);
  ~ProgressLine();
  /// The speed is reckoned from the first call on: work that goes on does not start at 0.
  void update(int64_t done, int64_t total);
  /// Makes room for a message; the next update shows the line again.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string title_;
  Clock::time_point start_, last_;
  int64_t first_ = -1;
  bool enabled_, shown_ = false;
};

}  // namespace lathe
