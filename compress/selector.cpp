// Matching of weights, and what to say when nothing matches.

#include "compress/selector.h"

#include "compress/error.h"
#include "compress/graph/schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>
#include <tuple>

namespace compress {
namespace {

// Matches `c` against the set that starts after `[` at `position`; moves past its `]`.
bool matches_set(std::string_view glob, size_t& position, char c) {
  const bool negated = position < glob.size() && (glob[position] == '!' || glob[position] == '^');
  if (negated) ++position;
  bool found = false;
  for (bool first = true; position < glob.size() && (first || glob[position] != ']');
       first = false) {
    const char low = glob[position++];
    char high = low;
    if (position + 1 < glob.size() && glob[position] == '-' && glob[position + 1] != ']') {
      high = glob[position + 1];
      position += 2;
    }
    found = found || (low <= c && c <= high);
  }
  ++position;  // the bracket
  return found != negated;
}

bool selects_any_name(const std::vector<std::string>& globs, const SelectorTarget& target) {
  return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) {
    return matches_glob(glob, target.name) ||
           (!target.module_path.empty() && matches_glob(glob, target.module_path)) ||
           std::any_of(target.aliases.begin(), target.aliases.end(),
                       [&](const std::string& alias) { return matches_glob(glob, alias); });
  });
}

enum class Globs { kSelecting, kAll };

// The globs of a selector, those of its parts included; `kAll`: also those that exclude.
void collect_globs(const Selector& selector, Globs which, std::vector<std::string>& globs) {
  globs.insert(globs.end(), selector.names.begin(), selector.names.end());
  for (const Selector& part : selector.any) collect_globs(part, which, globs);
  for (const Selector& part : selector.all) collect_globs(part, which, globs);
  if (which == Globs::kSelecting) return;
  for (const Selector& part : selector.none) collect_globs(part, which, globs);
}

// "layr1.*" -> "did you mean `layer1.*`?": the text in front of the wildcard is compared with every
// dotted prefix of every name.
std::string glob_hint(const std::string& glob, const std::vector<SelectorTarget>& targets) {
  std::string stem = glob.substr(0, glob.find_first_of("*?["));
  const std::string rest = glob.substr(stem.size());
  const bool dotted = !stem.empty() && stem.back() == '.';
  if (dotted) stem.pop_back();
  if (stem.empty()) return "";
  std::set<std::string> prefixes;
  for (const SelectorTarget& target : targets) {
    for (size_t i = 0; i <= target.name.size(); ++i) {
      if (i == target.name.size() || target.name[i] == '.')
        prefixes.insert(target.name.substr(0, i));
    }
  }
  if (rest.empty() && prefixes.count(stem) > 0) {
    return fmt::format("write `{}.*` for all below it", stem);
  }
  if (prefixes.count(stem) > 0) return "";
  const std::string best = nearest(stem, {prefixes.begin(), prefixes.end()});
  return best.empty() ? "" : fmt::format("did you mean `{}{}{}`?", best, dotted ? "." : "", rest);
}

std::string describe_targets(const std::vector<SelectorTarget>& targets) {
  constexpr size_t kShown = 4;
  std::vector<std::string> names;
  std::set<std::string_view> kinds;
  const auto kind_names = option_names(OperatorKind{});
  for (const SelectorTarget& target : targets) {
    if (names.size() < kShown) names.push_back(target.name);
    kinds.insert(kind_names[static_cast<size_t>(target.kind)]);
  }
  return fmt::format("the weights are {}{}, of kind {}", fmt::join(names, ", "),
                     targets.size() > kShown ? ", ..." : "", fmt::join(kinds, ", "));
}

}  // namespace

OperatorKind operator_kind(const Node& node) {
  std::string_view op = node.op();
  constexpr std::string_view kAten = "aten::";
  if (!op.starts_with(kAten)) return OperatorKind::kOther;
  op = op.substr(kAten.size(), op.find('.') - kAten.size());
  if (op.starts_with("conv") || op == "_convolution") return OperatorKind::kConv;
  if (is_one_of(op, {"linear", "addmm", "addmv", "addbmm", "baddbmm", "mm", "mv", "bmm", "matmul",
                     "bilinear"})) {
    return OperatorKind::kLinear;
  }
  if (is_one_of(op, {"embedding", "embedding_bag", "_embedding_bag"})) {
    return OperatorKind::kEmbedding;
  }
  if (is_one_of(op, {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell",
                     "rnn_tanh_cell", "rnn_relu_cell", "mkldnn_rnn_layer"})) {
    return OperatorKind::kRecurrent;
  }
  const bool norm = op.find("batch_norm") != op.npos || op.ends_with("layer_norm") ||
                    op.ends_with("group_norm") || op == "instance_norm" || op.ends_with("rms_norm");
  return norm ? OperatorKind::kNorm : OperatorKind::kOther;
}

// Backtracks to the last `*` only, so the time is at most |glob| * |text|.
bool matches_glob(std::string_view glob, std::string_view text) {
  size_t g = 0, t = 0;
  size_t star = glob.npos, resume = 0;
  while (t < text.size()) {
    size_t next = g + 1;
    bool matches = false;
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      resume = t;
      continue;
    }
    if (g < glob.size()) {
      matches = glob[g] == '?' ||
                (glob[g] == '[' ? matches_set(glob, next, text[t]) : glob[g] == text[t]);
    }
    if (matches) {
      g = next;
      ++t;
    } else if (star != glob.npos) {
      g = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g >= glob.size();
}

Selector Selector::name(std::string glob) {
  Selector selector;
  selector.names.push_back(std::move(glob));
  return selector;
}

Selector Selector::kind(OperatorKind kind) {
  Selector selector;
  selector.kinds.push_back(kind);
  return selector;
}

bool Selector::matches(const SelectorTarget& target) const {
  const auto part_matches = [&](const Selector& part) { return part.matches(target); };
  if (!names.empty() && !selects_any_name(names, target)) return false;
  if (!kinds.empty() && std::find(kinds.begin(), kinds.end(), target.kind) == kinds.end()) {
    return false;
  }
  if (min_elements && target.elements < *min_elements) return false;
  if (max_elements && target.elements > *max_elements) return false;
  if (!any.empty() && std::none_of(any.begin(), any.end(), part_matches)) return false;
  return std::all_of(all.begin(), all.end(), part_matches) &&
         std::none_of(none.begin(), none.end(), part_matches);
}

bool Selector::is_everything() const { return *this == Selector(); }

// Written out, as clang 16 crashes on a default one of a type that holds vectors of itself.
bool Selector::operator==(const Selector& other) const {
  const auto members = [](const Selector& selector) {
    return std::tie(selector.names, selector.kinds, selector.min_elements, selector.max_elements,
                    selector.none, selector.any, selector.all);
  };
  return members(*this) == members(other);
}

std::string Selector::text() const { return write_selector(*this).dump(); }

void Selector::require_match(const std::vector<SelectorTarget>& targets,
                             const std::string& where) const {
  const auto selected = [&](const SelectorTarget& target) { return matches(target); };
  if (std::any_of(targets.begin(), targets.end(), selected)) return;
  if (targets.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the model has no weights to select", where,
                "no convolution, linear, embedding or recurrent layer was found");
  }
  std::vector<std::string> globs, hints;
  collect_globs(*this, Globs::kSelecting, globs);
  for (const std::string& glob : globs) {
    std::string hint = glob_hint(glob, targets);
    if (!hint.empty() && hints.size() < 3) hints.push_back(std::move(hint));
  }
  if (hints.empty()) hints.push_back(describe_targets(targets));
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} selects none of the model's {} weights", text(), targets.size()),
              where, fmt::format("{}", fmt::join(hints, " ")));
}

std::vector<std::string> Selector::idle_globs(const std::vector<SelectorTarget>& targets) const {
  std::vector<std::string> globs, said;
  collect_globs(*this, Globs::kAll, globs);
  for (const std::string& glob : globs) {
    const bool is_used =
        std::any_of(targets.begin(), targets.end(),
                    [&](const SelectorTarget& target) { return selects_any_name({glob}, target); });
    if (is_used) continue;
    const std::string hint = glob_hint(glob, targets);
    said.push_back(fmt::format("`{}` matches none of the model's {} weights{}", glob,
                               targets.size(), hint.empty() ? "" : fmt::format(" ({})", hint)));
  }
  return said;
}

}  // namespace compress
