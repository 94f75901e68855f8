// The layout of the compressed-tensors library for packed weights in safetensors files.

#include "compress/io/compressed_tensors.h"

#include "compress/encoding_bits.h"
#include "compress/encoding_codebooks.h"
#include "compress/error.h"
#include "compress/io/atomic_file.h"
#include "compress/io/compressed_floats.h"
#include "compress/io/masked_codes.h"
#include "compress/weight.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace compress {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kIntLayout = "pack-quantized";

// Why the layout has no place for a quantized weight; empty if it has.
std::string obstacle(const Weight& weight) {
  const QuantizedTensor& quantized = *weight.quantized();
  if (!weight.name().ends_with(kWeight)) return "its name does not end in `.weight`";
  if (quantized.has_codebook()) {
    if (!float_layout(quantized).empty()) return "";
    const std::string format = codebook_format(quantized);
    return format == "mxfp4" || format == "nvfp4"
               ? fmt::format("{} needs rows of whole blocks, not of {}", format,
                             quantized.columns())
               : fmt::format("the library has no {}", format);
  }
  if (!quantized.symmetric() && quantized.zero_point.is_floating_point()) {
    return "its zero points are fractions";
  }
  if (quantized.columns() % quantized.group_size != 0) {
    return fmt::format("its rows of {} do not divide into groups of {}", quantized.columns(),
                       quantized.group_size);
  }
  const bool one_scale = quantized.scale.size(0) == 1 && quantized.rows() > 1;
  return one_scale && quantized.groups() > 1 ? "its rows share the scales of groups" : "";
}

// A code of the codebook that stands for 0.
int64_t zero_code(const at::Tensor& codebook) {
  const at::Tensor zeros = codebook.eq(0);
  COMPRESS_CHECK(zeros.any().item<bool>(), "a known codebook has a zero");
  return zeros.to(at::kByte).argmax().item<int64_t>();
}

std::string_view layout_of(const QuantizedTensor& quantized) {
  return quantized.has_codebook() ? float_layout(quantized) : kIntLayout;
}

std::string strategy(const QuantizedTensor& quantized) {
  const std::string_view layout = layout_of(quantized);
  if (layout == kNvfp4Layout) return "tensor_group";
  if (layout == kMxfp4Layout) return "group";
  if (quantized.groups() > 1) return "group";
  return quantized.scale.size(0) == 1 ? "tensor" : "channel";
}

// Signed, as the library has it: int8 [1], or packed down the rows.
at::Tensor zero_points(const QuantizedTensor& quantized) {
  const at::Tensor zero = quantized.zero_point;
  if (strategy(quantized) == "tensor") {
    return (zero.to(at::kInt) - quantized.offset()).to(at::kChar).view({1});
  }
  return pack_words(zero.t(), quantized.bits).t().contiguous();
}

Json weight_scheme(const QuantizedTensor& quantized) {
  const std::string how = strategy(quantized);
  Json scheme;
  scheme["num_bits"] = quantized.bits;
  scheme["type"] = quantized.has_codebook() ? "float" : "int";
  scheme["symmetric"] = quantized.symmetric();
  scheme["strategy"] = how;
  scheme["group_size"] = how.ends_with("group") ? Json(quantized.group_size) : Json(nullptr);
  scheme["dynamic"] = false;
  const std::string_view layout = layout_of(quantized);
  if (layout == kNvfp4Layout) scheme["scale_dtype"] = "torch.float8_e4m3fn";
  if (layout == kMxfp4Layout) scheme["scale_dtype"] = "torch.uint8";
  return scheme;
}

// The quantization of a layer's input that the calls of all its uses share.
struct InputQuantization {
  double scale = 1;
  int64_t zero_point = 0;  // of signed codes
  friend bool operator==(const InputQuantization&, const InputQuantization&) = default;
};

// Nothing unless the input of every use is fake-quantized to 8 bits in the same way.
std::optional<InputQuantization> input_quantization(const Weight& weight) {
  std::optional<InputQuantization> shared;
  for (const WeightUse& use : weight.uses()) {
    const Value* input = use.layer ? use.layer->arguments().at(0).value() : nullptr;
    const Node* node = input ? input->producer() : nullptr;
    if (!node || node->op() != "aten::fake_quantize_per_tensor_affine") return std::nullopt;
    const auto number = [&](const char* name) { return node->argument(name).as<int64_t>(); };
    if (number("quant_max") - number("quant_min") != 255) return std::nullopt;
    const InputQuantization found{node->argument("scale").as<double>(),
                                  number("zero_point") - number("quant_min") - 128};
    if (shared && !(*shared == found)) return std::nullopt;
    shared = found;
  }
  return shared;
}

// How the file has a layer.
struct LayerScheme {
  Json weights, input_activations;
  std::string format;
  friend bool operator==(const LayerScheme&, const LayerScheme&) = default;
};

LayerScheme scheme_of(const QuantizedTensor& quantized,
                      const std::optional<InputQuantization>& input) {
  LayerScheme scheme{weight_scheme(quantized), nullptr, std::string(layout_of(quantized))};
  if (!input) return scheme;
  scheme.format = "int-quantized";
  scheme.input_activations = {
      {"num_bits", 8},        {"type", "int"},         {"symmetric", input->zero_point == 0},
      {"strategy", "tensor"}, {"group_size", nullptr}, {"dynamic", false}};
  return scheme;
}

// One group of layers for each scheme, in the order in which they come.
Json configuration(const std::vector<std::pair<std::string, LayerScheme>>& layers,
                   const std::vector<std::string>& dense) {
  std::vector<std::pair<LayerScheme, Json>> groups;  // scheme, targets
  std::set<std::string> formats;
  for (const auto& layer : layers) {
    const auto same = [&](const auto& group) { return group.first == layer.second; };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) {
      groups.emplace_back(layer.second, Json::array());
      group = groups.end() - 1;
    }
    group->second.push_back(layer.first);
    formats.insert(layer.second.format);
  }
  Json config;
  config["quant_method"] = "compressed-tensors";
  config["format"] = formats.size() == 1 ? *formats.begin() : std::string(kMixedLayout);
  config["quantization_status"] = "compressed";
  config["kv_cache_scheme"] = nullptr;
  config["global_compression_ratio"] = nullptr;
  config["ignore"] = dense;
  for (size_t i = 0; i < groups.size(); ++i) {
    Json& group = config["config_groups"][fmt::format("group_{}", i)];
    group["targets"] = groups[i].second;
    group["weights"] = groups[i].first.weights;
    group["input_activations"] = groups[i].first.input_activations;
    group["output_activations"] = nullptr;
    group["format"] = groups[i].first.format;
  }
  return config;
}

// The words of all codes. Codes of 1, 2, 4 and 8 bits are a stream of bits in a QuantizedTensor
// too, so where a row fills its last word the bytes are the same.
at::Tensor packed_words(const QuantizedTensor& quantized) {
  const at::Tensor& field = quantized.fields.front();
  const bool is_aligned =
      reinterpret_cast<uintptr_t>(field.const_data_ptr()) % sizeof(int32_t) == 0;
  if (quantized.fields.size() == 1 && field.size(1) % sizeof(int32_t) == 0 &&
      field.is_contiguous() && is_aligned) {
    return field.view(at::kInt);
  }
  return pack_words(unpack_codes(quantized.fields, quantized.bits, quantized.columns()),
                    quantized.bits);
}

void append_packed(const std::string& module, const QuantizedTensor& quantized,
                   NamedTensors& tensors) {
  if (quantized.has_codebook()) return pack_floats(module + ".weight", quantized, tensors);
  const int64_t rows = quantized.rows(), columns = quantized.columns();
  const at::Tensor scale =
      strategy(quantized) == "tensor" ? quantized.scale.view({1}) : quantized.scale;
  tensors.emplace_back(module + ".weight_packed", packed_words(quantized));
  tensors.emplace_back(module + ".weight_shape", at::tensor({rows, columns}, at::kLong));
  tensors.emplace_back(module + ".weight_scale", scale);
  if (!quantized.symmetric()) {
    tensors.emplace_back(module + ".weight_zero_point", zero_points(quantized));
  }
}

// Integers of the sizes of the matrix, and what the layer's input is rounded by.
void append_integers(const std::string& module, const QuantizedTensor& quantized,
                     const InputQuantization& input, NamedTensors& tensors) {
  const at::Tensor codes = unpack_codes(quantized.fields, quantized.bits, quantized.columns());
  const at::Tensor scale =
      strategy(quantized) == "tensor" ? quantized.scale.view({1}) : quantized.scale;
  tensors.emplace_back(module + ".weight",
                       (codes.to(at::kShort) - quantized.offset()).to(at::kChar));
  tensors.emplace_back(module + ".weight_scale", scale);
  tensors.emplace_back(module + ".input_scale", at::full({1}, input.scale, at::kFloat));
  if (input.zero_point == 0) return;
  tensors.emplace_back(module + ".input_zero_point", at::full({1}, input.zero_point, at::kChar));
}

// Whether integer kernels take the weight: one scale a channel or tensor, 8 bits around zero.
bool fits_integers(const QuantizedTensor& quantized) {
  return quantized.bits == 8 && quantized.symmetric() && quantized.groups() == 1 &&
         !quantized.has_codebook();
}

}  // namespace

QuantizedTensor with_mask(const QuantizedTensor& quantized, const at::Tensor& mask) {
  QuantizedTensor out = quantized;
  const int64_t rows = out.rows(), columns = out.columns();
  const at::Tensor keep = as_matrix(mask, out.channel_dim);
  const int64_t code = out.has_codebook() ? zero_code(out.codebook) : out.offset();
  at::Tensor zero = at::full({1, 1}, code, at::kByte);
  if (!out.symmetric()) {
    zero = out.zero_point.repeat_interleave(out.group_size, 1).narrow(1, 0, columns);
  }
  const at::Tensor codes = unpack_codes(out.fields, out.bits, columns);
  out.fields = pack_codes(at::where(keep, codes, zero.expand({rows, columns})), out.bits);
  return out;
}

at::Tensor pack_words(const at::Tensor& codes, int bits) {
  const at::Tensor matrix = codes.contiguous();
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const int64_t words = (columns * bits + 31) / 32;
  at::Tensor packed = at::zeros({rows, words}, at::kInt);
  const uint8_t* in = matrix.const_data_ptr<uint8_t>();
  auto* out = reinterpret_cast<uint32_t*>(packed.mutable_data_ptr<int32_t>());
  for (int64_t row = 0; row < rows; ++row) {
    uint64_t stream = 0;
    int filled = 0;
    uint32_t* word = out + row * words;
    for (int64_t column = 0; column < columns; ++column) {
      stream |= static_cast<uint64_t>(in[row * columns + column]) << filled;
      filled += bits;
      if (filled < 32) continue;
      *word++ = static_cast<uint32_t>(stream);
      stream >>= 32;
      filled -= 32;
    }
    if (filled > 0) *word = static_cast<uint32_t>(stream);
  }
  return packed;
}

at::Tensor unpack_words(const at::Tensor& words, int bits, int64_t columns) {
  const at::Tensor matrix = words.contiguous();
  const int64_t rows = matrix.size(0), stride = matrix.size(1);
  COMPRESS_CHECK(stride == (columns * bits + 31) / 32, "words of a row");
  at::Tensor codes = at::empty({rows, columns}, at::kByte);
  const auto* in = reinterpret_cast<const uint32_t*>(matrix.const_data_ptr<int32_t>());
  uint8_t* out = codes.mutable_data_ptr<uint8_t>();
  const unsigned mask = (1u << bits) - 1;
  for (int64_t row = 0; row < rows; ++row) {
    uint64_t stream = 0;
    int filled = 0;
    const uint32_t* word = in + row * stride;
    for (int64_t column = 0; column < columns; ++column) {
      if (filled < bits) {
        stream |= static_cast<uint64_t>(*word++) << filled;
        filled += 32;
      }
      out[row * columns + column] = static_cast<uint8_t>(stream & mask);
      stream >>= bits;
      filled -= bits;
    }
  }
  return codes;
}

Model for_compressed_tensors(const Model& model, std::vector<std::string>* notes) {
  Model copy = model.clone(/*deep=*/false);
  for (Weight& weight : weights(copy)) {
    const at::Tensor mask = weight.mask();
    if (!weight.is_quantized()) {
      if (mask.defined() && weight.stored()) weight.replace(weight.effective());
      continue;
    }
    const std::string reason = obstacle(weight);
    if (!reason.empty()) {
      if (notes) {
        notes->push_back(
            fmt::format("{} is written without compression, since the layout of compressed-tensors "
                        "has no place "
                        "for it: {}",
                        weight.name(), reason));
      }
      weight.replace(weight.effective());
    } else if (mask.defined()) {
      weight.encode(with_mask(*weight.quantized(), mask));
    }
  }
  return copy;
}

CompressedTensors pack_compressed_tensors(const Model& model) {
  CompressedTensors out;
  std::vector<std::pair<std::string, LayerScheme>> layers;
  std::vector<std::string> dense;
  Json shapes = Json::object(), channel_dims = Json::object();
  std::unordered_set<std::string> encoded;  // tensors of encodings
  for (const Weight& weight : weights(model)) {
    const std::string module = weight.name().substr(0, weight.name().rfind('.'));
    if (!weight.is_quantized()) {
      if (weight.name().ends_with(kWeight)) dense.push_back(module);
      continue;
    }
    const QuantizedTensor& quantized = *weight.quantized();
    COMPRESS_CHECK(obstacle(weight).empty() && !weight.mask().defined(),
                   "the model was prepared by for_compressed_tensors");
    const auto input =
        fits_integers(quantized) ? input_quantization(weight) : std::optional<InputQuantization>();
    if (input) {
      append_integers(module, quantized, *input, out.tensors);
    } else {
      append_packed(module, quantized, out.tensors);
    }
    layers.emplace_back(module, scheme_of(quantized, input));
    if (weight.sizes().size() != 2) shapes[weight.name()] = weight.sizes();
    if (quantized.channel_dim != 0) channel_dims[weight.name()] = quantized.channel_dim;
    for (const std::string& name : weight.sources()) encoded.insert(name);
  }
  for (const NamedTensor& named : model.tensors()) {
    if (encoded.count(named.name) || named.role == TensorRole::kConstant) continue;
    out.tensors.emplace_back(named.name, named.tensor);
    for (const std::string& alias : named.aliases) out.tensors.emplace_back(alias, named.tensor);
  }
  if (layers.empty()) return out;
  out.metadata["format"] = "pt";
  out.metadata[kQuantizationConfigKey] = configuration(layers, dense).dump();
  if (!shapes.empty()) out.metadata["lathe.shapes"] = shapes.dump();
  if (!channel_dims.empty()) out.metadata["lathe.channel_dims"] = channel_dims.dump();
  return out;
}

std::vector<std::string> save_compressed_tensors(const Model& model,
                                                 const std::filesystem::path& folder) {
  std::vector<std::string> notes;
  const CompressedTensors packed = pack_compressed_tensors(for_compressed_tensors(model, &notes));
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) throw Error(ErrorCode::kIo, failure.message(), folder.string());
  Metadata metadata = packed.metadata;
  metadata["format"] = "pt";
  save_safetensors(folder / "model.safetensors", packed.tensors, metadata);
  Json config = Json::object();
  const auto found = packed.metadata.find(kQuantizationConfigKey);
  if (found != packed.metadata.end()) config[kQuantizationConfigKey] = Json::parse(found->second);
  write_file(folder / "config.json", config.dump(1) + "\n");
  return notes;
}

}  // namespace compress
