// Built-in architectures, for weights that come without a graph.

#pragma once

#include "compress/model.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {
struct StateDict;  // in "compress/io/state_dict.h"
}

namespace compress::zoo {

/// One line of `lathe models`.
struct Entry {
  std::string name;
  std::string summary;
  std::string inputs;  ///< such as `x : f32[batch,3,32,32]`
  /// Numbers that `name{classes=100}` can change, with their defaults.
  std::vector<std::pair<std::string, int64_t>> parameters;
  /// Repositories whose key names are known (`name{keys=timm}`); the first is the default.
  std::vector<std::string> keys;
};

/// All architectures, in the order of the list.
std::vector<Entry> entries();

/// A fresh network in inference mode, its types filled in. `spec` is a name, or a name with
/// settings: `nanogpt{layers=4,width=256,seed=1}`; the seed (0) decides its weights. Throws
/// Error(kInvalidArgument) with the nearest name.
Model build(std::string_view spec);

/// The network that `spec` names, with the numbers that show in the file's sizes (classes, layers,
/// vocabulary) where `spec` does not give them, and the file's tensors under the file's key names.
/// Throws Error(kInvalidArgument) with everything that does not fit, as `load_into` does.
Model build_for(std::string_view spec, const StateDict& weights);

/// Puts the tensors of a file in the place of the model's (shared, not copied, where the dtype is
/// the model's). Strict: throws Error(kInvalidArgument) that lists every tensor that does not fit
/// with its sizes and the nearest name, and every missing one. What no network needs may be absent
/// or surplus: batch norm's counters, position ids, causal masks. A tied tensor may come under any
/// or all of its names, if they agree.
void load_into(Model& model, const StateDict& weights);

/// An architecture that a file fits in every name and size.
struct Proposal {
  std::string spec;  ///< what to give as the architecture's name
  std::string summary;
};

/// The architectures that fit, the most common first; empty if none does.
std::vector<Proposal> propose(const StateDict& weights);

}  // namespace compress::zoo
