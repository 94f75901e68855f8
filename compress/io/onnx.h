// Models as ONNX files.

#pragma once

#include "compress/model.h"

#include <filesystem>
#include <string>
#include <vector>

namespace compress {

struct OnnxOptions {
  /// Tensors go into `<name>.data` beside the file when they have more bytes than this in all: one
  /// protobuf message cannot exceed 2 GiB.
  int64_t external_data_over = 1'900'000'000;
};

/// Writes the network in inference mode. Inputs and outputs keep their names, symbolic sizes stay
/// free. Opset 17; 21 where weights have 4 bits or groups that share a scale, 22 for bfloat16.
///
/// Masks are multiplied out. Quantized weights become integers with DequantizeLinear, and fake
/// quantization of activations becomes QuantizeLinear and DequantizeLinear, the form from which
/// ONNX Runtime and others choose integer kernels. The file appears whole or not at all; tensors
/// are written one at a time. Returns what the reader of the file should know, a sentence each.
///
/// Throws Error(kUnsupported) that names every operator without a translation and where it stands,
/// Error(kInvalidArgument) for a set of tensors or a tensor without contents, Error(kIo).
std::vector<std::string> save_onnx(const Model& model, const std::filesystem::path& path,
                                   const OnnxOptions& options = {});

/// Throws what `save_onnx` would throw for the network, and writes nothing.
void check_onnx(const Model& model);

/// The file that holds the tensors of a large model beside `path`.
std::filesystem::path onnx_data_path(const std::filesystem::path& path);

}  // namespace compress
