// What a model costs: parameters, multiply-accumulates, bits.

#include "compress/budget/cost.h"

#include "compress/budget/macs.h"
#include "compress/encoding_bits.h"
#include "compress/error.h"
#include "compress/graph/interpreter.h"
#include "compress/graph/schema.h"
#include "compress/graph/shapes.h"
#include "compress/io/mapped_file.h"
#include "compress/weight.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/count_nonzero.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

using Sizes = std::vector<int64_t>;

// Elements that are looked at at once.
constexpr int64_t kPiece = 1 << 21;

// Sizes of all values for one sample each way: from the graph's types, or from a run.
struct KnownSizes {
  std::unordered_map<const Value*, Sizes> sizes;
  double samples = 1;  // how many samples these sizes are for
};

std::optional<Sizes> typed_sizes(const Value* value) {
  if (!value->type.sizes) return std::nullopt;
  Sizes sizes;
  for (const Dim& dim : *value->type.sizes) {
    if (dim.size <= 0) return std::nullopt;
    sizes.push_back(dim.size);
  }
  return sizes;
}

double leading_size(const Graph& graph, const SizesOf& sizes_of) {
  for (const Value* input : graph.inputs()) {
    const std::optional<Sizes> sizes = sizes_of(input);
    if (sizes && !sizes->empty()) return static_cast<double>(sizes->front());
  }
  return 1;
}

// Runs the model once on the smallest batch and notes all sizes.
std::unordered_map<const Value*, Sizes> measured_sizes(const Model& model) {
  const at::NoGradGuard no_grad;
  Model still =
      model.clone(/*deep=*/false);  // batch norm in training mode would update its buffers
  still.eval();
  std::unordered_map<std::string, Sizes> by_name;
  still.interpreter().run(example_inputs(still, 1),
                          [&](const Value& value, const c10::IValue& content) {
                            if (content.isTensor() && content.toTensor().defined()) {
                              by_name[value.name()] = content.toTensor().sizes().vec();
                            }
                          });
  std::unordered_map<const Value*, Sizes> sizes;
  const auto note = [&](const Value* value) {
    const auto found = by_name.find(value->name());
    if (found != by_name.end()) sizes[value] = found->second;
  };
  for (const Value* input : model.graph().inputs()) note(input);
  for (const Node& node : model.graph().nodes()) {
    for (const Value* output : node.outputs()) note(output);
  }
  return sizes;
}

// Multiply-accumulates of every node that has any, a sample.
std::unordered_map<const Node*, double> all_macs(const Model& model) {
  std::unordered_map<const Node*, double> macs;
  const auto count = [&](const SizesOf& sizes_of) {
    const double samples = leading_size(model.graph(), sizes_of);
    for (const Node& node : model.graph().nodes()) {
      if (!has_macs(node)) continue;
      const std::optional<double> found = node_macs(node, sizes_of);
      if (!found) return false;
      macs[&node] = *found / samples;
    }
    return true;
  };
  if (count(typed_sizes)) return macs;
  const std::unordered_map<const Value*, Sizes> measured = measured_sizes(model);
  macs.clear();
  count([&](const Value* value) -> std::optional<Sizes> {
    const auto found = measured.find(value);
    return found != measured.end() ? std::optional(found->second) : typed_sizes(value);
  });
  return macs;
}

// The named tensors that a value is computed from.
void collect_sources(const Value* value, std::unordered_set<std::string>& sources) {
  if (value->is_named_tensor()) {
    sources.insert(value->name());
  } else if (value->producer() != nullptr) {
    for (const Argument& argument : value->producer()->arguments()) {
      argument.each_value([&](Value* read) { collect_sources(read, sources); });
    }
  }
}

LayerCost layer_cost(const Weight& weight) {
  LayerCost cost;
  cost.name = weight.name();
  cost.module_path = weight.module_path();
  cost.op = weight.layer() == nullptr ? "tensor" : base_name(weight.layer()->op());
  cost.sizes = weight.sizes();
  cost.encoding = weight.encoding();
  cost.elements = weight.elements();
  cost.nonzeros = count_nonzeros(weight);
  cost.bits_on_disk = weight.bits_on_disk();
  return cost;
}

// Layers with weights, then the products of activations, in the order of the graph.
void add_layers(const Model& model, ModelCost& total, std::unordered_set<std::string>& sources) {
  std::unordered_map<const Node*, double> macs;
  if (!model.is_tensor_set()) macs = all_macs(model);
  std::unordered_set<const Node*> counted;
  for (const Weight& weight : weights(model)) {
    LayerCost cost = layer_cost(weight);
    collect_sources(weight.value(), sources);
    for (const WeightUse& use : weight.uses()) {
      const auto found = macs.find(use.layer);
      if (found == macs.end() || !counted.insert(use.layer).second) continue;
      cost.macs = cost.macs.value_or(0) + found->second;
    }
    total.weight_elements += cost.elements;
    total.weight_nonzeros += cost.nonzeros;
    total.bits_per_weight += static_cast<double>(cost.bits_on_disk);
    total.layers.push_back(std::move(cost));
  }
  for (const Node& node : model.graph().nodes()) {
    const auto found = macs.find(&node);
    if (found == macs.end() || !counted.insert(&node).second) continue;
    LayerCost cost;
    cost.name = node.output()->name();
    cost.module_path = node.module_path;
    cost.op = base_name(node.op());
    cost.macs = found->second;
    total.layers.push_back(std::move(cost));
  }
  if (model.is_tensor_set()) return;
  total.macs = 0;
  for (const LayerCost& layer : total.layers) *total.macs += layer.macs.value_or(0);
}

double share_of_zeros(int64_t nonzeros, int64_t elements) {
  return elements == 0 ? 0.0 : 1.0 - static_cast<double>(nonzeros) / static_cast<double>(elements);
}

}  // namespace

double ModelCost::weight_sparsity() const {
  return share_of_zeros(weight_nonzeros, weight_elements);
}
double ModelCost::sparsity() const { return share_of_zeros(nonzeros, parameters); }

int64_t count_nonzeros(const at::Tensor& tensor) {
  if (!tensor.is_contiguous() || tensor.numel() <= kPiece) {
    const int64_t count = tensor.numel() == 0 ? 0 : tensor.count_nonzero().item<int64_t>();
    release_pages(tensor);
    return count;
  }
  const at::Tensor flat = tensor.view({-1});
  int64_t count = 0;
  for (int64_t start = 0; start < flat.numel(); start += kPiece) {
    const at::Tensor piece = flat.narrow(0, start, std::min(kPiece, flat.numel() - start));
    count += piece.count_nonzero().item<int64_t>();
    release_pages(piece);
  }
  return count;
}

namespace {

// Rows [first, first + size) of a matrix, or the one row that stands for all.
at::Tensor rows_of(const at::Tensor& matrix, int64_t first, int64_t size) {
  return matrix.size(0) == 1 ? matrix : matrix.narrow(0, first, size);
}

// Which codes do not stand for 0, where that is the same in all groups.
std::vector<bool> nonzero_codes(const QuantizedTensor& quantized) {
  std::vector<bool> nonzero(size_t{1} << quantized.bits, true);
  if (!quantized.has_codebook()) {
    nonzero[quantized.offset()] = false;
    return nonzero;
  }
  const at::Tensor codebook = quantized.codebook.to(at::kFloat).contiguous();
  for (size_t code = 0; code < nonzero.size(); ++code) {
    nonzero[code] = codebook.const_data_ptr<float>()[code] != 0;
  }
  return nonzero;
}

// Of symmetric codes in one field: a byte has as many as its value tells.
int64_t count_bytes(const QuantizedTensor& quantized) {
  const int width = quantized.bits, codes = 8 / width;
  const std::vector<bool> nonzero = nonzero_codes(quantized);
  std::array<uint8_t, 256> nonzeros{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < codes; ++i) {
      const int code = (byte >> (i * width)) & ((1 << width) - 1);
      nonzeros[byte] = static_cast<uint8_t>(nonzeros[byte] + nonzero[code]);
    }
  }
  const at::Tensor& field = quantized.fields.front();
  const int64_t rows = field.size(0), bytes = field.size(1);
  const int64_t padding = bytes * codes - quantized.columns();  // of zero bits
  int64_t count = nonzero[0] ? -padding * rows : 0;
  const uint8_t* data = field.const_data_ptr<uint8_t>();
  const int64_t step = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, bytes));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t last = std::min(rows, first + step);
    for (int64_t i = first * bytes; i < last * bytes; ++i) count += nonzeros[data[i]];
    release_pages(field.narrow(0, first, last - first));
  }
  return count;
}

int64_t count_codes(const QuantizedTensor& quantized, const at::Tensor& mask) {
  if (quantized.symmetric() && quantized.fields.size() == 1 && !mask.defined() &&
      quantized.fields.front().is_contiguous()) {
    return count_bytes(quantized);
  }
  const int64_t rows = quantized.rows(), columns = quantized.columns();
  const at::Tensor keep = mask.defined() ? as_matrix(mask, quantized.channel_dim) : at::Tensor();
  const int64_t step = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, columns));
  int64_t count = 0;
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t size = std::min(step, rows - first);
    std::vector<at::Tensor> fields;
    for (const at::Tensor& field : quantized.fields) fields.push_back(field.narrow(0, first, size));
    const at::Tensor codes = unpack_codes(fields, quantized.bits, columns);
    at::Tensor counted;
    if (quantized.has_codebook()) {
      counted = quantized.codebook.index_select(0, codes.flatten().to(at::kInt)).ne(0);
      counted = counted.view(codes.sizes());
    } else if (quantized.symmetric()) {
      counted = codes.ne(quantized.offset());
    } else {
      counted = codes.ne(rows_of(quantized.zero_point, first, size)
                             .repeat_interleave(quantized.group_size, 1)
                             .narrow(1, 0, columns));
    }
    if (keep.defined()) counted.logical_and_(keep.narrow(0, first, size));
    count += counted.count_nonzero().item<int64_t>();
    for (const at::Tensor& field : fields) release_pages(field);
  }
  return count;
}

}  // namespace

int64_t count_nonzeros(const Weight& weight) {
  const at::NoGradGuard no_grad;
  const at::Tensor mask = weight.mask();
  // A scale of 0 makes any code a zero; Lathe writes none, others may.
  if (weight.is_quantized() && weight.quantized()->scale.all().item<bool>()) {
    return count_codes(*weight.quantized(), mask);
  }
  if (weight.stored() == nullptr || !mask.defined()) return count_nonzeros(weight.effective());
  const at::Tensor elements = weight.stored()->tensor.detach().reshape({-1});
  const at::Tensor keep = mask.reshape({-1});
  int64_t count = 0;
  for (int64_t start = 0; start < elements.numel(); start += kPiece) {
    const int64_t size = std::min(kPiece, elements.numel() - start);
    const at::Tensor piece = elements.narrow(0, start, size), kept = keep.narrow(0, start, size);
    count += piece.ne(0).logical_and_(kept).count_nonzero().item<int64_t>();
    release_pages(piece);
    release_pages(kept);
  }
  return count;
}

ModelCost measure_cost(const Model& model) {
  const at::NoGradGuard no_grad;
  ModelCost cost;
  std::unordered_set<std::string> in_weights;
  add_layers(model, cost, in_weights);
  cost.parameters = cost.weight_elements;
  cost.nonzeros = cost.weight_nonzeros;
  cost.bits_per_weight = cost.weight_elements == 0
                             ? 0.0
                             : cost.bits_per_weight / static_cast<double>(cost.weight_elements);
  for (const NamedTensor& tensor : model.tensors()) {
    cost.payload_bytes += static_cast<int64_t>(tensor.tensor.nbytes());
    if (tensor.role != TensorRole::kParameter || in_weights.contains(tensor.name)) continue;
    cost.parameters += tensor.tensor.numel();
    cost.nonzeros += count_nonzeros(tensor.tensor);
  }
  return cost;
}

}  // namespace compress
