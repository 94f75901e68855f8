// A quantized weight as nodes of a graph: plain ATen operators that Python runs as they are.

#include "compress/encoding_graph.h"

#include "compress/encoding_bits.h"
#include "compress/encoding_codebooks.h"
#include "compress/error.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace compress {
namespace {

// Calls operators one after the other in front of one node.
class Writer {
 public:
  Writer(Model& model, Node* before, std::string module_path)
      : model_(model), before_(before), module_path_(std::move(module_path)) {}

  Value* call(const std::string& op, std::vector<Argument> arguments,
              std::map<std::string, Argument> keywords = {}) {
    Graph::Call call{op, std::move(arguments), std::move(keywords), {}, 1, module_path_};
    return model_.graph().insert(before_, std::move(call))->output();
  }

  Value* add(const std::string& name, at::Tensor tensor, TensorRole role = TensorRole::kBuffer) {
    std::string free = name;
    for (int i = 1; model_.find_tensor(free) || model_.graph().find(free); ++i) {
      free = fmt::format("{}_{}", name, i);
    }
    return model_.add_tensor(free, std::move(tensor), role);
  }

  // One constant [0, f, 2f, ...] serves all weights with fields of that width.
  Value* shifts(int width) {
    return constant(fmt::format("shifts{}", width), at::arange(0, 8, width, at::kByte));
  }

  // A format's codebook serves all weights, another one the weight `name`.
  Value* codebook(const at::Tensor& codebook, const std::string& name) {
    const std::string_view known = known_codebook(codebook);
    return known.empty() ? add(name + "_codebook", codebook)
                         : constant(std::string(known), codebook);
  }

 private:
  Value* constant(const std::string& name, const at::Tensor& wanted) {
    const NamedTensor* present = model_.find_tensor(name);
    if (present && present->tensor.defined() &&
        present->tensor.scalar_type() == wanted.scalar_type() &&
        at::equal(present->tensor, wanted)) {
      return model_.graph().find(present->name);
    }
    return add(name, wanted, TensorRole::kConstant);
  }

  Model& model_;
  Node* before_;
  std::string module_path_;
};

Value* insert_codes(Writer& write, const QuantizedTensor& quantized, const std::string& name) {
  const std::vector<int> widths = code_fields(quantized.bits);
  const int64_t columns = quantized.columns();
  Value* codes = nullptr;
  int64_t weight = 1;
  for (size_t i = 0; i < widths.size(); ++i) {
    const int width = widths[i];
    Value* field = write.add(fmt::format("{}_codes{}", name, width), quantized.fields[i]);
    if (width < 8) {
      Value* bytes = write.call("aten::unsqueeze", {field, -1});
      Value* shifted = write.call("aten::__rshift__.Tensor", {bytes, write.shifts(width)});
      Value* masked = write.call("aten::__and__.Scalar", {shifted, (1 << width) - 1});
      field = write.call("aten::flatten.using_ints", {masked, 1, 2});
      if (columns * width % 8 != 0) {
        field = write.call("aten::slice.Tensor", {field, 1, 0, columns});
      }
    }
    codes = codes ? write.call("aten::add.Tensor", {codes, field}, {{"alpha", weight}}) : field;
    weight <<= width;
  }
  return codes;
}

// What the codes stand for, before scales and zero points.
Value* insert_values(Writer& write, const QuantizedTensor& quantized, const std::string& name) {
  Value* codes = insert_codes(write, quantized, name);
  if (!quantized.has_codebook()) return write.call("aten::to.dtype", {codes, at::kFloat});
  Value* indices = write.call("aten::to.dtype", {codes, at::kInt});
  Value* codebook = write.codebook(quantized.codebook, name);
  return write.call("aten::index.Tensor", {codebook, std::vector<Value*>{indices}});
}

Value* insert_scale(Writer& write, const QuantizedTensor& quantized, const std::string& name) {
  Value* scale = write.add(name + "_scale", quantized.scale);
  if (c10::isFloat8Type(quantized.scale.scalar_type())) {
    scale = write.call("aten::to.dtype", {scale, at::kFloat});
  }
  if (!quantized.global_scale.defined()) return scale;
  Value* global_scale = write.add(name + "_global_scale", quantized.global_scale);
  return write.call("aten::mul.Tensor", {scale, global_scale});
}

}  // namespace

Value* insert_decoding(Model& model, const QuantizedTensor& quantized, const std::string& name,
                       Node* before, const std::string& module_path) {
  Writer write(model, before, module_path);
  const int64_t rows = quantized.rows(), columns = quantized.columns();
  const int64_t groups = quantized.groups();
  const bool even = columns % quantized.group_size == 0;
  const auto spread = [&](Value* per_group) {
    if (groups == 1) return per_group;
    if (even) return write.call("aten::unsqueeze", {per_group, -1});
    Value* wide =
        write.call("aten::repeat_interleave.self_int", {per_group, quantized.group_size, 1});
    return write.call("aten::slice.Tensor", {wide, 1, 0, columns});
  };

  Value* values = insert_values(write, quantized, name);
  if (groups > 1 && even) {
    values = write.call("aten::view",
                        {values, std::vector<int64_t>{rows, groups, quantized.group_size}});
  }
  if (!quantized.symmetric()) {
    Value* zero_point = write.add(name + "_zero_point", quantized.zero_point);
    values = write.call("aten::sub.Tensor", {values, spread(zero_point)});
  } else if (!quantized.has_codebook()) {
    values = write.call("aten::sub.Scalar", {values, quantized.offset()});
  }
  Value* scale = insert_scale(write, quantized, name);
  values = write.call("aten::mul.Tensor", {values, spread(scale)});
  std::vector<int64_t> rows_first = quantized.sizes;
  std::swap(rows_first[0], rows_first[quantized.channel_dim]);
  values = write.call("aten::view", {values, rows_first});
  if (quantized.channel_dim != 0) {
    values = write.call("aten::transpose.int", {values, 0, quantized.channel_dim});
  }
  if (quantized.dtype != at::kFloat) {
    values = write.call("aten::to.dtype", {values, quantized.dtype});
  }
  values->type.dtype = quantized.dtype;
  values->type.sizes.emplace(quantized.sizes.begin(), quantized.sizes.end());
  return values;
}

}  // namespace compress
