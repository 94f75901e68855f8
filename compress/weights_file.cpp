// Models in files of named tensors: sets without a graph, graphs in metadata, packed weights.

#include "compress/weights_file.h"

#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/io/compressed_tensors.h"
#include "compress/io/mapped_file.h"
#include "compress/json.h"
#include "compress/weight.h"
#include "compress/zoo/zoo.h"

#include <ATen/ops/empty.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

// The graph in the text form, without tensors' contents.
constexpr const char* kGraphKey = "lathe.graph";
// The text form has symbols without the sizes that the graph was recorded with.
constexpr const char* kSymbolsKey = "lathe.symbols";

// Describes the file, not the model; what is read is not kept for the next file.
bool describes_file(const std::string& key) {
  return key == kGraphKey || key == kSymbolsKey || key == kQuantizationConfigKey ||
         key == "lathe.shapes" || key == "lathe.channel_dims";
}

template <class Visit>
void each_symbolic_dim(Graph& graph, const Visit& visit) {
  const auto look = [&](Value* value) {
    if (!value->type.sizes) return;
    for (Dim& dim : *value->type.sizes) {
      if (dim.is_symbolic()) visit(dim);
    }
  };
  for (Value* input : graph.inputs()) look(input);
  for (Node& node : graph.nodes()) {
    for (Value* output : node.outputs()) look(output);
  }
}

void add_graph(const Model& model, Metadata& metadata) {
  metadata[kGraphKey] = print(model, {.contents = false});
  Json sizes = Json::object();
  Graph& graph = const_cast<Model&>(model).graph();  // only looked at
  each_symbolic_dim(graph, [&](const Dim& dim) {
    if (dim.size > 0 && !sizes.contains(dim.symbol)) sizes[dim.symbol] = dim.size;
  });
  if (!sizes.empty()) metadata[kSymbolsKey] = sizes.dump();
}

void restore_symbols(const Metadata& metadata, Graph& graph) {
  const auto found = metadata.find(kSymbolsKey);
  if (found == metadata.end()) return;
  const Json sizes = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  each_symbolic_dim(graph, [&](Dim& dim) {
    const auto size = sizes.is_object() ? sizes.find(dim.symbol) : sizes.end();
    if (size != sizes.end() && size->is_number_integer()) dim.size = size->get<int64_t>();
  });
}

NamedTensors tensors_of(const Model& model) {
  NamedTensors tensors;
  for (const NamedTensor& tensor : model.tensors()) {
    if (!tensor.tensor.defined()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("the values of tensor `{}` are not known", tensor.name));
    }
    tensors.emplace_back(tensor.name, tensor.tensor);
    for (const std::string& alias : tensor.aliases) tensors.emplace_back(alias, tensor.tensor);
  }
  return tensors;
}

// Decodes quantized weights whose name, by which they are found again, is another tensor's.
void free_names(Model& model, std::vector<std::string>& notes) {
  std::set<std::string> seen;
  for (Weight& weight : weights(model)) {
    if (!weight.is_quantized()) continue;
    if (model.find_tensor(weight.name()) == nullptr && seen.insert(weight.name()).second) continue;
    notes.push_back(
        fmt::format("{} is written without compression: it has the name of another "
                    "tensor",
                    weight.name()));
    weight.replace(weight.effective());
  }
}

// A copy in which quantized weights are plain tensors without contents.
Model with_plain_weights(const Model& model) {
  Model copy = model.clone(/*deep=*/false);
  for (Weight& weight : weights(copy)) {
    if (!weight.is_quantized()) continue;
    weight.replace(at::empty({}, weight.dtype()).expand(weight.sizes()));
  }
  return copy;
}

// Fills a tensor of a graph from the file.
void fill(NamedTensor& tensor, const TensorType& type, const at::Tensor& stored) {
  const bool fits = type.dtype == stored.scalar_type() && type.sizes &&
                    *type.sizes == std::vector<Dim>(stored.sizes().begin(), stored.sizes().end());
  if (!fits) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("tensor `{}` is not what the graph in the metadata says", tensor.name));
  }
  tensor.tensor = stored;
}

// Puts codes in the places of plain weights of the same names; returns the names without a place.
std::vector<std::string> encode_by_name(Model& model,
                                        const std::map<std::string, QuantizedTensor>& packed) {
  std::set<std::string> done;
  for (Weight& weight : weights(model)) {
    const auto found = packed.find(weight.name());
    if (found == packed.end() || weight.is_quantized()) continue;
    QuantizedTensor quantized = found->second;
    if (quantized.sizes != weight.sizes()) {
      throw Error(ErrorCode::kBadFile, "the packed weight has other sizes than the graph says",
                  weight.name());
    }
    quantized.dtype = weight.dtype();
    weight.encode(quantized);
    done.insert(found->first);
  }
  std::vector<std::string> left;
  for (const auto& [name, quantized] : packed) {
    if (!done.contains(name)) left.push_back(name);
  }
  return left;
}

using Packed = std::map<std::string, QuantizedTensor>;

// The graph of the metadata with the tensors of the file.
Model with_own_graph(const NamedTensors& tensors, const Packed& packed, const Metadata& metadata) {
  Model model = parse_model(metadata.at(kGraphKey));
  restore_symbols(metadata, model.graph());
  std::unordered_map<std::string_view, const at::Tensor*> by_name;
  for (const auto& [name, tensor] : tensors) by_name.emplace(name, &tensor);
  std::vector<std::string> missing;
  for (NamedTensor& tensor : model.mutable_tensors()) {
    const auto stored = by_name.find(tensor.name);
    if (stored != by_name.end()) {
      fill(tensor, model.graph().find(tensor.name)->type, *stored->second);
    } else if (!packed.contains(tensor.name)) {
      missing.push_back(tensor.name);
    }
  }
  const std::vector<std::string> left = encode_by_name(model, packed);
  for (const std::string& name : left) {
    if (model.find_tensor(name) != nullptr) missing.push_back(name);
  }
  if (!missing.empty()) {
    throw Error(
        ErrorCode::kBadFile,
        fmt::format(
            "the graph in the metadata needs tensor `{}`, which the file lacks ({} are missing)",
            missing.front(), missing.size()));
  }
  return model;
}

// A bare set whose packed weights are decoded by its graph.
Model set_of(const StateDict& weights, const NamedTensors& tensors, const Packed& packed) {
  StateDict plain;
  plain.tensors = tensors;
  plain.ties = weights.ties;
  for (const auto& [name, quantized] : packed) {
    plain.tensors.emplace_back(name, at::empty({}, quantized.dtype).expand(quantized.sizes));
  }
  Model model = tensor_set(plain);
  encode_by_name(model, packed);
  return model;
}

Packed take_packed(const StateDict& weights, NamedTensors& rest) {
  if (!is_compressed_tensors(weights.metadata)) {
    rest = weights.tensors;
    return {};
  }
  UnpackedTensors unpacked = read_compressed_tensors(weights.tensors, weights.metadata);
  rest = std::move(unpacked.rest);
  return {unpacked.weights.begin(), unpacked.weights.end()};
}

bool has_packed_tensors(const StateDict& weights) {
  return std::any_of(weights.tensors.begin(), weights.tensors.end(), [](const auto& entry) {
    return entry.first.ends_with(".weight_packed") ||
           (entry.first.ends_with(".weight_scale") && entry.second.is_floating_point());
  });
}

}  // namespace

Model tensor_set(const StateDict& weights) {
  Model model;
  const std::map<std::string, std::string> tied_to(weights.ties.begin(), weights.ties.end());
  std::vector<Output> outputs;
  for (const auto& [name, tensor] : weights.tensors) {
    const auto tie = tied_to.find(name);
    if (tie != tied_to.end()) {
      model.add_alias(tie->second, name);
      continue;
    }
    // Roles are not in such a file: what nobody trains is told by its type, or by its usual name.
    const bool is_parameter = (tensor.is_floating_point() || tensor.is_complex()) &&
                              !name.ends_with("running_mean") && !name.ends_with("running_var");
    Value* value =
        model.add_tensor(name, tensor, is_parameter ? TensorRole::kParameter : TensorRole::kBuffer);
    outputs.push_back({name, value});
  }
  model.graph().set_outputs(std::move(outputs));
  return model;
}

ModelTensors exact_tensors(const Model& model) {
  ModelTensors out;
  out.tensors = tensors_of(model);
  out.metadata.insert(model.metadata.begin(), model.metadata.end());
  add_graph(model, out.metadata);
  return out;
}

ModelTensors pack_model(const Model& model) {
  ModelTensors out;
  tensors_of(model);  // refuses tensors without contents before they are looked at
  Model tight = for_compressed_tensors(model, &out.notes);
  free_names(tight, out.notes);
  CompressedTensors packed = pack_compressed_tensors(tight);
  out.tensors = std::move(packed.tensors);
  out.metadata = std::move(packed.metadata);
  for (const auto& [key, value] : model.metadata) {
    if (!describes_file(key)) out.metadata.emplace(key, value);
  }
  if (tight.is_tensor_set() && !is_compressed_tensors(out.metadata)) {
    out.tensors = tensors_of(tight);
    return out;
  }
  const Model plain = with_plain_weights(tight);
  add_graph(plain, out.metadata);
  // Constants of the graph, less those that decodings shared.
  for (const NamedTensor& tensor : plain.tensors()) {
    if (tensor.role == TensorRole::kConstant) out.tensors.emplace_back(tensor.name, tensor.tensor);
  }
  return out;
}

bool has_own_names(const Metadata& metadata) {
  return metadata.contains(kGraphKey) || is_compressed_tensors(metadata);
}

StateDict read_own_file(const std::shared_ptr<MappedFile>& file) {
  const SafetensorsFile safetensors(file);
  StateDict weights;
  weights.tensors = safetensors.tensors();
  weights.ties = safetensors.ties();
  weights.metadata = safetensors.metadata();
  weights.format = "safetensors";
  return weights;
}

bool needs_configuration(const StateDict& weights) {
  return !is_compressed_tensors(weights.metadata) && has_packed_tensors(weights);
}

void add_configuration(StateDict& weights, const std::filesystem::path& folder) {
  if (!needs_configuration(weights)) return;
  const std::filesystem::path path = folder / "config.json";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    weights.notes.push_back(
        "the weights are packed, but there is no config.json that says how; they stay as they are");
    return;
  }
  const auto file = MappedFile::open(path);
  const Json json = parse_json(file->text(0, file->size()), path.string());
  const auto config = json.find(kQuantizationConfigKey);
  if (config == json.end()) {
    weights.notes.push_back(fmt::format("the weights are packed, but {} has no {}", path.string(),
                                        kQuantizationConfigKey));
    return;
  }
  weights.metadata[kQuantizationConfigKey] = config->dump();
}

Model model_of_weights(const StateDict& weights) {
  NamedTensors rest;
  const Packed packed = take_packed(weights, rest);
  Model model = weights.metadata.contains(kGraphKey)
                    ? with_own_graph(rest, packed, weights.metadata)
                    : set_of(weights, rest, packed);
  for (const auto& [key, value] : weights.metadata) {
    if (!describes_file(key)) model.metadata[key] = value;
  }
  return model;
}

Model model_of_weights(const StateDict& weights, const std::string& architecture) {
  StateDict dense = weights;
  const Packed packed = take_packed(weights, dense.tensors);
  for (const auto& [name, quantized] : packed) {
    dense.tensors.emplace_back(name, dequantize(quantized));
  }
  Model model = zoo::build_for(architecture, dense);
  const std::vector<std::string> left = encode_by_name(model, packed);
  if (!left.empty()) {
    model.notes.push_back(
        fmt::format("{} packed weights, such as {}, were decoded: the architecture names them "
                    "otherwise",
                    left.size(), left.front()));
  }
  return model;
}

}  // namespace compress
