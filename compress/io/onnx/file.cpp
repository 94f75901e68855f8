// An ONNX model in memory, and its file.

#include "compress/io/onnx/file.h"

#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/io/atomic_file.h"
#include "compress/io/onnx/wire.h"
#include "compress/version.h"

#include <fmt/format.h>

#include <optional>
#include <span>
#include <type_traits>

namespace compress::onnx {
namespace {

// AttributeProto.AttributeType.
constexpr int kFloat = 1, kInt = 2, kString = 3, kFloats = 6, kInts = 7, kStrings = 8;

// Pages, so that readers can map a tensor.
constexpr uint64_t kAlignment = 4096;

Message attribute_message(const Attribute& attribute) {
  Message out;
  out.text(1, attribute.name);
  const int type = std::visit(
      [&out](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, float>) {
          out.number(2, value);
          return kFloat;
        } else if constexpr (std::is_same_v<T, int64_t>) {
          out.integer(3, value);
          return kInt;
        } else if constexpr (std::is_same_v<T, std::string>) {
          out.text(4, value);
          return kString;
        } else if constexpr (std::is_same_v<T, std::vector<float>>) {
          for (const float element : value) out.number(7, element);
          return kFloats;
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
          for (const int64_t element : value) out.integer(8, element);
          return kInts;
        } else {
          for (const std::string& element : value) out.text(9, element);
          return kStrings;
        }
      },
      attribute.value);
  out.integer(20, type);
  return out;
}

Message node_message(const OnnxNode& node) {
  Message out;
  for (const std::string& input : node.inputs) out.text(1, input);
  for (const std::string& output : node.outputs) out.text(2, output);
  out.text(3, node.name);
  out.text(4, node.op);
  for (const Attribute& attribute : node.attributes) out.message(5, attribute_message(attribute));
  return out;
}

Message info_message(const TensorInfo& info) {
  Message shape;
  for (const Dim& dim : info.sizes) {
    Message size;
    if (dim.is_symbolic()) {
      size.text(2, dim.symbol);
    } else {
      size.integer(1, dim.size);
    }
    shape.message(1, size);
  }
  Message tensor, type, out;
  tensor.integer(1, static_cast<int64_t>(info.type));
  tensor.message(2, shape);
  type.message(1, tensor);
  out.text(1, info.name);
  out.message(2, type);
  return out;
}

Message entry_message(const std::string& key, const std::string& value) {
  Message out;
  out.text(1, key);
  out.text(2, value);
  return out;
}

// A TensorProto without its contents.
Message tensor_message(const Initializer& tensor) {
  Message out;
  for (const int64_t size : tensor.sizes) out.integer(1, size);
  out.integer(2, static_cast<int64_t>(tensor.type));
  out.text(8, tensor.name);
  return out;
}

// A TensorProto that ends with the tag and length of the contents (`raw_data`).
Message inline_message(const Initializer& tensor) {
  Message out = tensor_message(tensor);
  out.begin(9, static_cast<uint64_t>(tensor.bytes));
  return out;
}

Message external_message(const Initializer& tensor, const std::string& file, uint64_t offset) {
  Message out = tensor_message(tensor);
  out.message(13, entry_message("location", file));
  out.message(13, entry_message("offset", std::to_string(offset)));
  out.message(13, entry_message("length", std::to_string(tensor.bytes)));
  out.integer(14, 1);  // TensorProto.EXTERNAL
  return out;
}

void append_contents(AtomicFile& file, const Initializer& tensor) {
  const at::Tensor contents = tensor.load().detach().cpu().contiguous();
  COMPRESS_CHECK(static_cast<int64_t>(contents.nbytes()) == tensor.bytes,
                 fmt::format("{} has the bytes that its type says", tensor.name));
  file.append(
      std::span(static_cast<const std::byte*>(contents.const_data_ptr()), contents.nbytes()));
}

// All of a GraphProto but its tensors.
Message graph_message(const OnnxModel& model) {
  Message out;
  for (const OnnxNode& node : model.nodes) out.message(1, node_message(node));
  out.text(2, model.name);
  for (const TensorInfo& input : model.inputs) out.message(11, info_message(input));
  for (const TensorInfo& output : model.outputs) out.message(12, info_message(output));
  return out;
}

// All of a ModelProto but its graph.
Message model_message(const OnnxModel& model) {
  Message opset, out;
  opset.text(1, "");
  opset.integer(2, model.opset);
  out.integer(1, model.opset >= 21 ? 10 : 8);  // the version of the format that has the opset
  out.text(2, "lathe");
  out.text(3, version());
  out.message(8, opset);
  for (const auto& [key, value] : model.metadata) out.message(14, entry_message(key, value));
  return out;
}

uint64_t field_size(int field, uint64_t length) {
  Message header;
  header.begin(field, length);
  return header.size() + length;
}

void write_inline(const OnnxModel& model, const std::filesystem::path& path) {
  const Message graph = graph_message(model);
  uint64_t size = graph.size();
  for (const Initializer& tensor : model.initializers) {
    size += field_size(5, inline_message(tensor).size() + static_cast<uint64_t>(tensor.bytes));
  }
  Message head = model_message(model);
  head.begin(7, size);
  AtomicFile file(path);
  file.append(head.bytes());
  file.append(graph.bytes());
  for (const Initializer& tensor : model.initializers) {
    const Message inner = inline_message(tensor);
    Message outer;
    outer.begin(5, inner.size() + static_cast<uint64_t>(tensor.bytes));
    file.append(outer.bytes());
    file.append(inner.bytes());
    append_contents(file, tensor);
  }
  file.commit();
}

void write_external(const OnnxModel& model, const std::filesystem::path& path,
                    const std::filesystem::path& data) {
  AtomicFile contents(data);
  Message graph = graph_message(model);
  for (const Initializer& tensor : model.initializers) {
    contents.pad_to(kAlignment);
    graph.message(5, external_message(tensor, data.filename().string(), contents.size()));
    append_contents(contents, tensor);
  }
  Message whole = model_message(model);
  whole.message(7, graph);
  AtomicFile file(path);
  file.append(whole.bytes());
  contents.sync();
  file.sync();
  contents.commit();
  file.commit();
}

}  // namespace

DataType data_type(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float:
      return DataType::kFloat;
    case c10::ScalarType::Double:
      return DataType::kDouble;
    case c10::ScalarType::Half:
      return DataType::kFloat16;
    case c10::ScalarType::BFloat16:
      return DataType::kBfloat16;
    case c10::ScalarType::Bool:
      return DataType::kBool;
    case c10::ScalarType::Byte:
      return DataType::kUint8;
    case c10::ScalarType::Char:
      return DataType::kInt8;
    case c10::ScalarType::Short:
      return DataType::kInt16;
    case c10::ScalarType::UInt16:
      return DataType::kUint16;
    case c10::ScalarType::Int:
      return DataType::kInt32;
    case c10::ScalarType::UInt32:
      return DataType::kUint32;
    case c10::ScalarType::Long:
      return DataType::kInt64;
    case c10::ScalarType::UInt64:
      return DataType::kUint64;
    default:
      throw Error(ErrorCode::kUnsupported, fmt::format("ONNX has no type {}", dtype_name(dtype)));
  }
}

void write(const OnnxModel& model, const std::filesystem::path& path,
           const std::filesystem::path& data, int64_t external_data_over) {
  int64_t bytes = 0;
  for (const Initializer& tensor : model.initializers) bytes += tensor.bytes;
  if (bytes > external_data_over) return write_external(model, path, data);
  write_inline(model, path);
  std::error_code ignored;
  std::filesystem::remove(data, ignored);  // of a larger model that was here before
}

}  // namespace compress::onnx
