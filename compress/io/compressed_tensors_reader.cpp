// Reads packed weights back into Lathe's own encoding.

#include "compress/encoding_bits.h"
#include "compress/encoding_graph.h"
#include "compress/error.h"
#include "compress/io/compressed_floats.h"
#include "compress/io/compressed_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <regex>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kPacked = ".weight_packed", kWeight = ".weight";

[[noreturn]] void refuse(const std::string& where, std::string message,
                         ErrorCode code = ErrorCode::kBadFile) {
  throw Error(code, std::move(message), where);
}

Json parse(const Metadata& metadata, const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return Json::object();
  Json json = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) refuse(key, "is not a JSON object");
  return json;
}

struct Scheme {
  int bits = 0;
  bool floating = false;
  bool symmetric = true;
  std::string strategy;
};

// The file's configuration, asked for one layer at a time.
class Configuration {
 public:
  explicit Configuration(const Metadata& metadata)
      : json_(parse(metadata, kQuantizationConfigKey)) {
    const std::string format = json_.value("format", "");
    if (format != "pack-quantized" && format != "int-quantized" && format != "dense" &&
        format != kMixedLayout && !is_float_layout(format)) {
      refuse(kQuantizationConfigKey, fmt::format("the format `{}` is not read", format),
             ErrorCode::kUnsupported);
    }
  }

  Scheme scheme(const std::string& module) const {
    const auto groups = json_.find("config_groups");
    if (groups == json_.end() || !groups->is_object()) refuse(module, "no group configures it");
    const Json* general = nullptr;  // by class: every layer
    for (const Json& group : *groups) {
      if (!group.is_object() || !group.contains("targets")) continue;
      for (const Json& target : group["targets"]) {
        if (!target.is_string()) continue;
        const auto name = target.get<std::string>();
        if (name == module || (name.starts_with("re:") && matches(name.substr(3), module))) {
          return read(group, module);
        }
        if (name == "Linear") general = &group;
      }
    }
    if (general == nullptr) refuse(module, "no group of the quantization_config targets it");
    return read(*general, module);
  }

 private:
  static bool matches(const std::string& pattern, const std::string& module) {
    if (pattern.size() > 256) return false;  // std::regex recurses
    try {
      return std::regex_search(module, std::regex(pattern), std::regex_constants::match_continuous);
    } catch (const std::regex_error&) {
      return false;
    }
  }

  static Scheme read(const Json& group, const std::string& module) {
    const auto weights = group.find("weights");
    if (weights == group.end() || !weights->is_object()) refuse(module, "its group has no weights");
    try {
      Scheme scheme{weights->value("num_bits", 0), weights->value("type", "int") == "float",
                    weights->value("symmetric", true), weights->value("strategy", "")};
      const bool known = scheme.floating
                             ? scheme.symmetric && (scheme.bits == 4 || scheme.bits == 8)
                             : scheme.bits >= 1 && scheme.bits <= 8;
      if (!known || (!scheme.floating && weights->value("type", "int") != "int")) {
        refuse(module, "only integers of 1 to 8 bits and floats of 4 and 8 are read",
               ErrorCode::kUnsupported);
      }
      return scheme;
    } catch (const Json::exception& error) {
      refuse(module, fmt::format("its quantization_config is malformed: {}", error.what()));
    }
  }

  Json json_;
};

using Index = std::unordered_map<std::string, at::Tensor>;

at::Tensor need(const Index& index, const std::string& name, at::ScalarType dtype, int64_t dims) {
  const auto found = index.find(name);
  if (found == index.end()) refuse(name, "is missing");
  if (found->second.scalar_type() != dtype || found->second.dim() != dims) {
    refuse(name, fmt::format("{} of {} dimensions, expected {} of {}",
                             c10::toString(found->second.scalar_type()), found->second.dim(),
                             c10::toString(dtype), dims));
  }
  return found->second;
}

void expect_sizes(const at::Tensor& tensor, const std::string& name, at::IntArrayRef sizes) {
  if (!tensor.sizes().equals(sizes)) {
    refuse(name, fmt::format("has the sizes [{}], expected [{}]", fmt::join(tensor.sizes(), ", "),
                             fmt::join(sizes, ", ")));
  }
}

// Sizes and row dimension of the weight, whose matrix is [rows, columns].
void read_layout(const Metadata& metadata, const std::string& name, int64_t rows, int64_t columns,
                 QuantizedTensor& out) {
  out.sizes = {rows, columns};
  const Json shapes = parse(metadata, "lathe.shapes"), dims = parse(metadata, "lathe.channel_dims");
  try {
    if (dims.contains(name)) out.channel_dim = dims.at(name).get<int64_t>();
    if (shapes.contains(name)) {
      out.sizes = shapes.at(name).get<std::vector<int64_t>>();
    } else if (out.channel_dim == 1) {
      out.sizes = {columns, rows};
    }
  } catch (const Json::exception&) {
    refuse(name, "lathe.shapes or lathe.channel_dims is malformed");
  }
  const bool fits = out.channel_dim >= 0 &&
                    out.channel_dim < static_cast<int64_t>(out.sizes.size()) &&
                    out.rows() == rows && out.columns() == columns;
  if (!fits)
    refuse(name, fmt::format("its shape does not fit its matrix of {} x {}", rows, columns));
}

QuantizedTensor read_floats(const Index& index, const std::string& module,
                            const Metadata& metadata) {
  const std::string base = module + ".weight";
  const auto find = [&](const std::string& name) {
    const auto found = index.find(name);
    return found == index.end() ? at::Tensor() : found->second;
  };
  const at::Tensor packed = find(base + "_packed");
  QuantizedTensor out = unpack_floats(base, {packed.defined() ? packed : find(base),
                                             find(base + "_scale"), find(base + "_global_scale")});
  read_layout(metadata, base, out.sizes[0], out.sizes[1], out);
  return out;
}

void read_scale(const Index& index, const std::string& base, const Scheme& scheme,
                QuantizedTensor& out) {
  const auto scale = index.find(base + "_scale");
  if (scale == index.end()) refuse(base + "_scale", "is missing");
  if (!scale->second.is_floating_point()) refuse(base + "_scale", "is not floating point");
  const bool whole = scheme.strategy == "tensor";
  if (whole && scale->second.numel() != 1) refuse(base + "_scale", "has more than one element");
  out.scale = whole ? scale->second.reshape({1, 1}) : scale->second;
  out.dtype = out.scale.scalar_type();
  if (out.scale.dim() != 2 || out.scale.size(0) != (whole ? 1 : out.rows()) ||
      out.scale.size(1) < 1 || out.columns() % out.scale.size(1) != 0) {
    refuse(base + "_scale", "does not fit the rows and groups of its weight");
  }
  out.group_size = out.columns() / out.groups();
}

QuantizedTensor read_packed(const Index& index, const std::string& module, const Scheme& scheme,
                            const Metadata& metadata) {
  const std::string base = module + ".weight";
  const at::Tensor shape = need(index, base + "_shape", at::kLong, 1);
  expect_sizes(shape, base + "_shape", {2});
  const int64_t rows = shape[0].item<int64_t>(), columns = shape[1].item<int64_t>();
  const at::Tensor words = need(index, base + "_packed", at::kInt, 2);
  if (rows <= 0 || columns <= 0 || columns > (int64_t{1} << 56)) {
    refuse(base + "_shape", fmt::format("{} x {} is no matrix", rows, columns));
  }
  expect_sizes(words, base + "_packed", {rows, (columns * scheme.bits + 31) / 32});
  QuantizedTensor out;
  out.bits = scheme.bits;
  read_layout(metadata, base, rows, columns, out);
  out.fields = pack_codes(unpack_words(words, scheme.bits, columns), scheme.bits);

  read_scale(index, base, scheme, out);
  const bool whole = scheme.strategy == "tensor";
  if (scheme.symmetric) return out;
  if (whole) {
    const at::Tensor zero = need(index, base + "_zero_point", at::kChar, 1);
    expect_sizes(zero, base + "_zero_point", {1});
    out.zero_point = (zero.to(at::kInt) + out.offset()).to(at::kByte).view({1, 1});
    return out;
  }
  const at::Tensor zero = need(index, base + "_zero_point", at::kInt, 2);
  expect_sizes(zero, base + "_zero_point", {(rows * scheme.bits + 31) / 32, out.groups()});
  out.zero_point = unpack_words(zero.t(), scheme.bits, rows).t().contiguous();
  return out;
}

// Whether a tensor holds the integers of a layer whose input is rounded too.
bool holds_integers(const Index& index, const std::string& name, const at::Tensor& tensor) {
  return name.ends_with(kWeight) && tensor.scalar_type() == at::kChar &&
         index.count(name + "_scale") > 0;
}

QuantizedTensor read_integers(const Index& index, const std::string& name, const Scheme& scheme,
                              const Metadata& metadata) {
  const at::Tensor codes = need(index, name, at::kChar, 2);
  if (scheme.bits != 8 || !scheme.symmetric) {
    refuse(name, "only integers of 8 bits around zero are read in this format",
           ErrorCode::kUnsupported);
  }
  QuantizedTensor out;
  read_layout(metadata, name, codes.size(0), codes.size(1), out);
  out.fields = pack_codes((codes.to(at::kShort) + out.offset()).to(at::kByte), out.bits);
  read_scale(index, name, scheme, out);
  return out;
}

}  // namespace

UnpackedTensors read_compressed_tensors(const NamedTensors& tensors, const Metadata& metadata) {
  const Configuration configuration(metadata);
  const Index index(tensors.begin(), tensors.end());
  UnpackedTensors out;
  // `M` if the tensor holds the codes of `M.weight`.
  const auto module_of = [&](const std::string& name, const at::Tensor& tensor) {
    if (name.ends_with(kPacked)) return name.substr(0, name.size() - kPacked.size());
    const bool fp8 = tensor.scalar_type() == at::kFloat8_e4m3fn && name.ends_with(kWeight) &&
                     index.contains(name + "_scale");
    const bool codes = fp8 || holds_integers(index, name, tensor);
    return codes ? name.substr(0, name.size() - kWeight.size()) : std::string();
  };
  std::set<std::string> parts;  // of those weights, besides the codes
  for (const auto& [name, tensor] : tensors) {
    const std::string module = module_of(name, tensor);
    if (module.empty()) continue;
    const Scheme scheme = configuration.scheme(module);
    const std::string weight = module + std::string(kWeight);
    out.weights.emplace_back(weight, scheme.floating ? read_floats(index, module, metadata)
                                     : holds_integers(index, name, tensor)
                                         ? read_integers(index, weight, scheme, metadata)
                                         : read_packed(index, module, scheme, metadata));
    parts.insert(name);
    for (const char* part : {"_packed", "_shape", "_scale", "_zero_point", "_global_scale"}) {
      parts.insert(module + ".weight" + part);
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (!parts.contains(name)) out.rest.emplace_back(name, tensor);
  }
  return out;
}

bool is_compressed_tensors(const Metadata& metadata) {
  return metadata.count(kQuantizationConfigKey) > 0;
}

NamedTensors unpack_compressed_tensors(const NamedTensors& tensors, const Metadata& metadata) {
  UnpackedTensors unpacked = read_compressed_tensors(tensors, metadata);
  NamedTensors out = std::move(unpacked.rest);
  // The graph has them as arguments of its fake quantization.
  std::unordered_set<std::string> of_inputs;
  for (const auto& [name, quantized] : unpacked.weights) {
    const std::string module = name.substr(0, name.size() - kWeight.size());
    of_inputs.insert({module + ".input_scale", module + ".input_zero_point"});
  }
  std::erase_if(out, [&](const auto& tensor) { return of_inputs.contains(tensor.first); });
  Model names;  // gives each tensor the name that it has in a graph
  for (const auto& [name, quantized] : unpacked.weights) {
    insert_decoding(names, quantized, name, nullptr);
  }
  for (const NamedTensor& named : names.tensors()) out.emplace_back(named.name, named.tensor);
  return out;
}

Model compressed_tensor_set(const NamedTensors& tensors, const Metadata& metadata) {
  const UnpackedTensors unpacked = read_compressed_tensors(tensors, metadata);
  Model model;
  std::vector<Output> outputs;
  for (const auto& [name, tensor] : unpacked.rest) {
    outputs.push_back({name, model.add_tensor(name, tensor, TensorRole::kParameter)});
  }
  for (const auto& [name, quantized] : unpacked.weights) {
    outputs.push_back({name, insert_decoding(model, quantized, name, nullptr)});
  }
  model.graph().set_outputs(std::move(outputs));
  return model;
}

}  // namespace compress
