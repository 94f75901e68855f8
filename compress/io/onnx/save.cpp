// Models as ONNX files.

#include "compress/error.h"
#include "compress/graph/shapes.h"
#include "compress/io/masked_codes.h"
#include "compress/io/onnx.h"
#include "compress/io/onnx/translator.h"
#include "compress/io/pt2_signature.h"
#include "compress/weight.h"

#include <fmt/format.h>

#include <algorithm>

namespace compress {
namespace {

using namespace onnx;

// The oldest opset that has all operators; 19 has circular padding, 21 has 4 bits and scales of
// groups, 22 has bfloat16 for convolutions, pooling and elementwise functions.
constexpr int kOpset = 17, kOpsetOfWrap = 19, kOpsetOfGroups = 21, kOpsetOfBfloat16 = 22;

using EncodedWeights = std::unordered_map<const Value*, EncodedWeight>;

void check_writable(const Model& model) {
  if (model.is_tensor_set()) {
    throw Error(ErrorCode::kInvalidArgument,
                "an .onnx file needs a graph, this is a set of tensors", {},
                "write .safetensors, or give the architecture with --arch");
  }
  for (const NamedTensor& tensor : model.tensors()) {
    if (!tensor.tensor.defined() || tensor.tensor.is_meta()) {
      throw Error(ErrorCode::kInvalidArgument, "the tensor has no contents", tensor.name,
                  "the text form only has its digest; supply its values first");
    }
    if (tensor.tensor.layout() != c10::kStrided) {
      throw Error(ErrorCode::kUnsupported, "a tensor that is not strided", tensor.name);
    }
  }
}

bool has_all_types(const Model& model) {
  for (const Node& node : model.graph().nodes()) {
    for (const Value* output : node.outputs()) {
      if (output->kind() != ValueKind::kTensor) continue;
      if (!output->type.dtype || !output->type.sizes) return false;
    }
  }
  return true;
}

// The value that a node fills its result with, whatever its input holds.
Argument filling(const Node& node) {
  for (const char* op : {"aten::new_zeros", "aten::zeros_like"}) {
    if (node.op() == op) return 0;
  }
  for (const char* op : {"aten::new_ones", "aten::ones_like"}) {
    if (node.op() == op) return 1;
  }
  const bool is_full = node.op() == "aten::new_full" || node.op() == "aten::full_like";
  return is_full ? node.argument("fill_value") : Argument();
}

// Tensors of fixed sizes that take only their type from an input become constants, and with them
// what is computed from them (masks of windowed attention).
void detach_from_inputs(Graph& graph) {
  std::vector<Node*> nodes;
  for (Node& node : graph.nodes()) {
    const std::vector<Dim>& sizes = node.outputs().empty() || !node.output()->type.sizes
                                        ? std::vector<Dim>{Dim("?", 0)}
                                        : *node.output()->type.sizes;
    const Argument value = filling(node);
    if (value.is_none() || value.is_value()) continue;
    if (std::none_of(sizes.begin(), sizes.end(), [](const Dim& d) { return d.is_symbolic(); })) {
      nodes.push_back(&node);
    }
  }
  for (Node* node : nodes) {
    std::vector<int64_t> sizes;
    for (const Dim& dim : *node->output()->type.sizes) sizes.push_back(dim.size);
    const Argument dtype = *node->output()->type.dtype;
    Graph::Call call{"aten::full", {sizes, filling(*node)}, {{"dtype", dtype}}};
    call.module_path = node->module_path;
    Value* full = graph.insert(node, std::move(call))->output();
    full->type = node->output()->type;
    graph.replace_uses(node->output(), full);
    graph.erase(node);
  }
}

EncodedWeights encoded_weights(const Model& model, std::vector<std::string>& notes) {
  EncodedWeights out;
  for (const Weight& weight : weights(model)) {
    if (!weight.is_quantized()) continue;
    if (weight.quantized()->has_codebook()) {
      notes.push_back(fmt::format("{} is written decoded: ONNX has no codebooks", weight.name()));
      continue;
    }
    const at::Tensor mask = weight.mask();
    out[weight.value()] = {
        mask.defined() ? with_mask(*weight.quantized(), mask) : *weight.quantized(), weight.name()};
  }
  return out;
}

// Masked weights are written under the name of the weight.
std::unordered_map<const Value*, std::string> masked_names(const Model& model) {
  std::unordered_map<const Value*, std::string> names;
  for (const Weight& weight : weights(model)) {
    if (weight.stored() && weight.mask().defined()) names[weight.value()] = weight.name();
  }
  return names;
}

bool computes_in(const Model& model, at::ScalarType dtype) {
  for (const Node& node : model.graph().nodes()) {
    for (const Value* output : node.outputs()) {
      if (output->kind() == ValueKind::kTensor && output->type.dtype == dtype) return true;
    }
  }
  return false;
}

int needed_opset(const Model& model, const EncodedWeights& weights,
                 std::vector<std::string>& notes) {
  int opset = kOpset;
  for (const Node& node : model.graph().nodes()) {
    if (node.op() == "aten::pad" && node.argument("mode") == Argument("circular")) {
      opset = kOpsetOfWrap;
    }
  }
  const bool needs_groups = std::any_of(weights.begin(), weights.end(), [](const auto& weight) {
    return weight.second.quantized.bits == 4 || weight.second.quantized.groups() > 1;
  });
  if (needs_groups) opset = kOpsetOfGroups;
  if (computes_in(model, at::kBFloat16)) opset = kOpsetOfBfloat16;
  if (opset != kOpset) notes.push_back(fmt::format("needs opset {}", opset));
  return opset;
}

// What is written: a shallow copy, so that the model stays as it is.
Model in_inference_mode(const Model& model) {
  check_writable(model);
  Model copy = model.clone(/*deep=*/false);
  copy.to(at::kCPU);
  copy.eval();
  if (!has_all_types(copy)) propagate_shapes(copy);
  detach_from_inputs(copy.graph());
  return copy;
}

// `model` must outlive what is returned.
OnnxModel translated(const Model& model, std::vector<std::string>& notes) {
  for (const Output& update : model.graph().updates()) {
    // Batch norm counts batches in training; nothing else reads the count.
    if (update.name.ends_with("num_batches_tracked")) continue;
    notes.push_back(fmt::format("the new content of {} after each run is left out", update.name));
  }
  EncodedWeights encoded = encoded_weights(model, notes);
  const int opset = needed_opset(model, encoded, notes);
  Translator translator(model, opset, std::move(encoded), masked_names(model));
  OnnxModel out = translator.translate();
  for (const auto& [key, value] : model.metadata) {
    if (key != pt2::kMetadataKey) out.metadata[key] = value;
  }
  notes.insert(notes.end(), translator.notes().begin(), translator.notes().end());
  return out;
}

}  // namespace

std::filesystem::path onnx_data_path(const std::filesystem::path& path) {
  return path.string() + ".data";
}

std::vector<std::string> save_onnx(const Model& model, const std::filesystem::path& path,
                                   const OnnxOptions& options) {
  Model copy = in_inference_mode(model);
  std::vector<std::string> notes;
  const OnnxModel out = translated(copy, notes);
  write(out, path, onnx_data_path(path), options.external_data_over);
  return notes;
}

void check_onnx(const Model& model) {
  Model copy = in_inference_mode(model);
  std::vector<std::string> notes;
  translated(copy, notes);
}

}  // namespace compress
