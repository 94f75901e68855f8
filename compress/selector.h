// Which weights of a model a pass works on.
//
// In a recipe: a glob ("layer1.*"), a list of which any may match, or an object whose keys must all
// hold: {"name": glob(s), "kind": kind(s), "min_elements": n, "max_elements": n, "not": selector,
// "any": [selectors], "all": [selectors]}.

#pragma once

#include "compress/json.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

class Node;
class Problems;

/// What a weight does in the graph.
enum class OperatorKind {
  kConv,       ///< any convolution
  kLinear,     ///< linear, addmm, matmul and bmm with a weight
  kEmbedding,  ///< embedding, embedding_bag
  kRecurrent,  ///< lstm, gru, rnn
  kNorm,       ///< batch, layer, group and instance normalisation
  kOther,      ///< anything else, and tensors of a file without a graph
};
inline std::vector<std::string_view> option_names(OperatorKind) {
  return {"conv", "linear", "embedding", "recurrent", "norm", "other"};
}

/// The kind of an operator call, by its ATen name.
OperatorKind operator_kind(const Node& node);

/// What a selector looks at: one weight. `selector_targets` (compress/weight.h) lists those of a
/// model.
struct SelectorTarget {
  std::string name;         ///< of the weight's tensor: `layer1.0.conv1.weight`
  std::string module_path;  ///< of the layer: `layer1.0.conv1`; may be empty
  OperatorKind kind = OperatorKind::kOther;
  int64_t elements = 0;              ///< of the weight, encoded or not
  std::vector<std::string> aliases;  ///< other names of a tied tensor
};

/// A condition on a weight. The default matches every weight.
class Selector {
 public:
  Selector() = default;
  /// Every weight.
  static Selector weights() { return {}; }
  /// Weights whose name, alias or module path matches the glob: `*` any text, dots included, `?`
  /// one character, `[abc]` and `[!a-c]` one of a set.
  static Selector name(std::string glob);
  static Selector kind(OperatorKind kind);

  std::vector<std::string> names;   ///< globs, any of which matches; empty: no condition
  std::vector<OperatorKind> kinds;  ///< any of which; empty: no condition
  std::optional<int64_t> min_elements, max_elements;
  std::vector<Selector> none;  ///< `not`: none of which matches
  std::vector<Selector> any;   ///< empty: no condition
  std::vector<Selector> all;

  bool matches(const SelectorTarget& target) const;
  /// Whether it is the default, which matches all.
  bool is_everything() const;
  /// Its JSON as one line, for messages.
  std::string text() const;
  bool operator==(const Selector&) const;

  /// Throws Error(kInvalidArgument) at `where` if nothing in `targets` matches: says what was asked
  /// and names the nearest weights.
  void require_match(const std::vector<SelectorTarget>& targets, const std::string& where) const;

  /// A sentence for each glob, those under `not` included, that matches nothing in `targets`, with
  /// what may have been meant: beside others that match, a typo would go unseen.
  std::vector<std::string> idle_globs(const std::vector<SelectorTarget>& targets) const;
};

/// Whether `text` matches the glob.
bool matches_glob(std::string_view glob, std::string_view text);

void read_selector(const Json& json, const std::string& where, Selector& out, Problems& problems);
Json write_selector(const Selector& selector);
Json selector_schema();

}  // namespace compress
