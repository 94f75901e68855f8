// How a program is called from Python: trees of arguments and results, flattened to lists.

#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace compress {
class Model;
}

namespace compress::pt2 {

/// The key of Model::metadata that keeps what only Python needs to call the program as before. It
/// is the text of a JSON object with these members, each of which may be missing:
///   in_spec, out_spec      trees of arguments and results (torch's pytree, as strings)
///   forward_arg_names      names of the forward function's parameters
///   constant_inputs        [{"position", "name", "value"}]: arguments fixed when the model was
///   exported namedtuple_fields      fields of named tuples in the trees ranges {"s77": {"min_val",
///   "max_val"}} modules                {"layer1.0": "torch.nn.modules.conv.Conv2d"} not_saved
///   buffers that the state_dict leaves out foreign                argument names of operators that
///   this process does not know
inline constexpr const char* kMetadataKey = "pt2";

/// That object; empty if the model has none or it is no JSON.
nlohmann::json read_metadata(const Model& model);

/// Names for the leaves of a result tree: keys and positions joined by dots, `output` for a lone
/// leaf. Empty if the text is no tree of `count` leaves.
std::vector<std::string> leaf_names(const std::string& out_spec, size_t count);

/// The number of leaves of a tree, or -1 if the text is none.
int64_t count_leaves(const std::string& spec);

/// The tree of a call with `count` positional arguments and no keywords.
std::string positional_spec(size_t count);
/// The tree of one result, or of a tuple of `count` results.
std::string result_spec(size_t count);

}  // namespace compress::pt2
