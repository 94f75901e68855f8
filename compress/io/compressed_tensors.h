// The layout of the compressed-tensors library for packed weights in safetensors files.
//
// A quantized layer `M` has, in the place of `M.weight`: `M.weight_packed` (int32 [rows, words];
// codes in a little-endian stream of bits a row), `M.weight_shape`, `M.weight_scale`, and for
// affine codes `M.weight_zero_point`; a JSON `quantization_config` says bits, symmetry and
// grouping. Read by the library from version 0.18 (2, 4 and 8 bits by older ones too), and with it
// by transformers and vLLM. Floating codes have layouts of their own (compressed_floats.h). What
// these have no words for travels in metadata: `lathe.shapes` (sizes of weights that are not
// matrices) and `lathe.channel_dims` (rows that are not dimension 0).

#pragma once

#include "compress/encoding.h"
#include "compress/io/safetensors.h"
#include "compress/model.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace compress {

/// Metadata key of the JSON object that config.json has under the same key.
inline constexpr const char* kQuantizationConfigKey = "quantization_config";
/// The format that the configuration names where its layers have several.
inline constexpr const char* kMixedLayout = "mixed-precision";

/// A model's tensors in this layout.
struct CompressedTensors {
  NamedTensors tensors;  ///< quantized weights packed, all else as it is; no constants
  /// `quantization_config`, `lathe.shapes`, `lathe.channel_dims`, `format`; empty if nothing is
  /// quantized.
  Metadata metadata;
};

/// A copy of the model (tensors shared) that the layout can express: masks become zeros in the
/// weights, and weights whose encoding has no place in it are decoded. Adds a sentence to `notes`
/// for each of those.
Model for_compressed_tensors(const Model& model, std::vector<std::string>* notes = nullptr);

/// The tensors of a model that `for_compressed_tensors` returned.
CompressedTensors pack_compressed_tensors(const Model& model);

/// Whether a file's metadata says that its tensors are in this layout.
bool is_compressed_tensors(const Metadata& metadata);

/// A file's packed weights, and its other tensors as they are.
struct UnpackedTensors {
  std::vector<std::pair<std::string, QuantizedTensor>> weights;
  NamedTensors rest;
};
/// Throws as `unpack_compressed_tensors` does.
UnpackedTensors read_compressed_tensors(const NamedTensors& tensors, const Metadata& metadata);

/// Puts the tensors of Lathe's own encoding (compress/encoding_graph.h) in the place of the packed
/// ones, under the names that a graph of Lathe has for them. Throws Error(kBadFile) naming the
/// tensor if sizes, types or the configuration do not fit, Error(kUnsupported) for other formats
/// than `pack-quantized`, `dense` and those of compressed_floats.h.
NamedTensors unpack_compressed_tensors(const NamedTensors& tensors, const Metadata& metadata);

/// The same as a set of tensors whose quantized weights are decoded by its graph.
Model compressed_tensor_set(const NamedTensors& tensors, const Metadata& metadata);

/// Writes the folder `<folder>/model.safetensors` with `<folder>/config.json`, as the library and
/// those built on it want it. The folder is made if it is missing. Returns notes.
std::vector<std::string> save_compressed_tensors(const Model& model,
                                                 const std::filesystem::path& folder);

/// Packs codes uint8 [rows, columns] below 2^bits into int32 [rows, words], each row a
/// little-endian stream of bits; the inverse takes the number of columns.
at::Tensor pack_words(const at::Tensor& codes, int bits);
at::Tensor unpack_words(const at::Tensor& words, int bits, int64_t columns);

}  // namespace compress
