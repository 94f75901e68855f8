// An ONNX model in memory, and its file. Field numbers are those of onnx.proto.

#pragma once

#include "compress/graph/graph.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace compress::onnx {

/// TensorProto.DataType.
enum class DataType {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kBfloat16 = 16,
  kUint4 = 21,
  kInt4 = 22,
};

/// The type for a dtype; throws Error(kUnsupported) where ONNX has none.
DataType data_type(c10::ScalarType dtype);

struct Attribute {
  std::string name;
  std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
               std::vector<std::string>>
      value;
};

struct OnnxNode {
  std::string op;
  std::vector<std::string> inputs;  ///< an empty name: not given
  std::vector<std::string> outputs;
  std::vector<Attribute> attributes;
  std::string name;
};

/// A constant tensor. `load` makes its contents when they are written, so that one is in memory at
/// a time; they have `bytes` bytes (two elements in a byte for four bits).
struct Initializer {
  std::string name;
  DataType type = DataType::kFloat;
  std::vector<int64_t> sizes;
  int64_t bytes = 0;
  std::function<at::Tensor()> load;
};

/// An input or output of the graph.
struct TensorInfo {
  std::string name;
  DataType type = DataType::kFloat;
  std::vector<Dim> sizes;
};

struct OnnxModel {
  int opset = 17;
  std::string name;
  std::vector<OnnxNode> nodes;
  std::vector<Initializer> initializers;
  std::vector<TensorInfo> inputs, outputs;
  std::map<std::string, std::string> metadata;
};

/// Writes the model, with tensors of more than `external_data_over` bytes in all in the file `data`
/// beside it. Both appear whole or not at all; a `data` that is not needed is removed.
void write(const OnnxModel& model, const std::filesystem::path& path,
           const std::filesystem::path& data, int64_t external_data_over);

}  // namespace compress::onnx
