// Formatting of errors, and the nearest name for "did you mean".

#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace compress {
namespace {

std::string format_error(const std::string& message, const std::string& where,
                         const std::string& hint) {
  std::string text = where.empty() ? message : fmt::format("{}: {}", where, message);
  if (!hint.empty()) text += fmt::format(" ({})", hint);
  return text;
}

// Levenshtein distance with two rows.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

std::string without_separators(std::string_view name) {
  std::string bare(name);
  std::erase_if(bare, [](char c) { return c == '-' || c == '_' || c == '.'; });
  return bare;
}

template <class Predicate>
std::string shortest_that(const std::vector<std::string>& candidates, const Predicate& holds) {
  std::string best;
  for (const std::string& name : candidates) {
    if (holds(name) && (best.empty() || name.size() < best.size())) best = name;
  }
  return best;
}

}  // namespace

Error::Error(ErrorCode code, std::string message, std::string where, std::string hint)
    : std::runtime_error(format_error(message, where, hint)),
      code_(code),
      message_(std::move(message)),
      where_(std::move(where)),
      hint_(std::move(hint)) {}

Error Error::within(std::string_view outer) const {
  const std::string separator = where_.empty() || where_.front() == '/' ? ": " : ", ";
  return Error(
      code_, message_,
      where_.empty() ? std::string(outer) : fmt::format("{}{}{}", outer, separator, where_), hint_);
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  // `resnet20` is the beginning of `resnet20-cifar10`, not a slip of the pen for `resnet50`.
  std::string best = shortest_that(candidates, [&](const std::string& name) {
    return word.size() >= 3 && name.starts_with(word);
  });
  if (!best.empty()) return best;
  best = shortest_that(candidates, [&](const std::string& name) {
    return word.size() >= 4 && name.find(word) != name.npos;
  });
  if (!best.empty()) return best;
  // `resnet-20` is `resnet20-cifar10` with a hyphen too many.
  const std::string bare = without_separators(word);
  best = shortest_that(candidates, [&](const std::string& name) {
    return bare.size() >= 4 && without_separators(name).starts_with(bare);
  });
  if (!best.empty()) return best;
  // A third of the word may be mistyped, but at least two letters: "sparsty", "bit" for "bits".
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string best = nearest(word, candidates);
  return best.empty() ? std::string() : fmt::format("did you mean `{}`?", best);
}

namespace detail {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw std::logic_error(fmt::format("{} (this is a bug in Lathe: {} does not hold at {}:{})",
                                     message, condition, file, line));
}

}  // namespace detail
}  // namespace compress
