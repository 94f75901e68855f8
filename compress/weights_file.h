// Models in files of named tensors: sets without a graph, graphs in metadata, packed weights.
//
// A .safetensors file of Lathe is one that other programs read: tensors under their own names,
// masks as zeros, quantized weights in the layout of compressed-tensors. Beside them the metadata
// holds the graph in the text form, in which a quantized weight is a plain tensor; reading puts its
// codes back in that place.

#pragma once

#include "compress/io/safetensors.h"
#include "compress/io/state_dict.h"
#include "compress/model.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace compress {

/// A bare set: every tensor is returned under its name, floating-point ones are parameters.
Model tensor_set(const StateDict& weights);

/// The tensors and metadata by which a .safetensors file says all of a model.
struct ModelTensors {
  NamedTensors tensors;
  Metadata metadata;
  std::vector<std::string> notes;  ///< what the layout had no place for, a sentence each
};
/// In the layout of compressed-tensors, for other programs.
ModelTensors pack_model(const Model& model);
/// Exactly as the model is in memory, encodings and masks under their own names.
ModelTensors exact_tensors(const Model& model);

/// Whether the metadata are those of `pack_model` or `exact_tensors`, or of packed weights: names
/// must then be taken as they are.
bool has_own_names(const Metadata& metadata);
/// A file with such metadata, its names as they are.
StateDict read_own_file(const std::shared_ptr<MappedFile>& file);

/// Adds the `quantization_config` of the config.json in `folder` to weights that are packed and
/// lack one.
void add_configuration(StateDict& weights, const std::filesystem::path& folder);
/// Whether a file with this metadata is unreadable without a config.json beside it.
bool needs_configuration(const StateDict& weights);

/// The model of weights: their own graph, or else a bare set; packed weights encoded.
Model model_of_weights(const StateDict& weights);
/// An architecture of the zoo with these weights; packed ones stay packed where the architecture
/// keeps their names.
Model model_of_weights(const StateDict& weights, const std::string& architecture);

}  // namespace compress
