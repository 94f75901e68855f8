// The reverse of encoding_graph.cpp. It tolerates what other writers, and Python's exporter, make
// of the same computation: reshape for view, bitwise_and for __and__, a number where a Scalar
// overload was.

#include "compress/encoding_bits.h"
#include "compress/encoding_graph.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace compress {
namespace {

// The producer of `value` if it calls one of `ops`; else null.
const Node* producer(const Value* value, std::initializer_list<std::string_view> ops) {
  if (value == nullptr || value->producer() == nullptr) return nullptr;
  const std::string& op = value->producer()->op();
  return std::find(ops.begin(), ops.end(), op) == ops.end() ? nullptr : value->producer();
}

const Value* value_argument(const Node* node, size_t index) {
  return index < node->arguments().size() ? node->arguments()[index].value() : nullptr;
}

std::optional<int64_t> int_argument(const Node* node, size_t index) {
  if (index >= node->arguments().size()) return std::nullopt;
  const Argument& argument = node->arguments()[index];
  if (argument.is_int()) return argument.as<int64_t>();
  if (const double* number = std::get_if<double>(&argument.data())) {
    const auto whole = static_cast<int64_t>(*number);
    if (static_cast<double>(whole) == *number) return whole;
  }
  return std::nullopt;
}

const Node* reshaping(const Value* value) {
  return producer(value, {"aten::view", "aten::reshape", "aten::_unsafe_view",
                          "aten::flatten.using_ints", "aten::unflatten.int"});
}

const Value* skip_reshape(const Value* value) {
  const Node* node = reshaping(value);
  return node ? value_argument(node, 0) : value;
}

const Value* skip_slice(const Value* value) {
  const Node* node = producer(value, {"aten::slice.Tensor"});
  return node ? value_argument(node, 0) : value;
}

class Matcher {
 public:
  explicit Matcher(const Model& model) : model_(model) {}

  std::optional<Decoding> match(const Value* value) {
    if (!match_outside(value)) return std::nullopt;
    return std::move(found_);
  }

 private:
  // The tensor of a value that is one; undefined if it is not.
  at::Tensor tensor_of(const Value* value) {
    if (value == nullptr || !value->is_named_tensor()) return {};
    const NamedTensor* named = model_.find_tensor(value->name());
    return named ? named->tensor : at::Tensor();
  }

  bool use(const Value* value) {
    if (!tensor_of(value).defined()) return false;
    found_.tensors.push_back(const_cast<Value*>(value));
    return true;
  }

  // dtype, transpose, view, mul(centred, scale).
  bool match_outside(const Value* value) {
    QuantizedTensor& out = found_.quantized;
    if (const Node* cast = producer(value, {"aten::to.dtype", "aten::_to_copy"})) {
      const auto dtype = cast->argument_index("dtype");
      if (!dtype) return false;
      const auto* type = std::get_if<c10::ScalarType>(&cast->arguments()[*dtype].data());
      if (type == nullptr || !c10::isFloatingType(*type)) return false;
      out.dtype = *type;
      value = value_argument(cast, 0);
    }
    if (const Node* transpose = producer(value, {"aten::transpose.int"})) {
      const auto a = int_argument(transpose, 1), b = int_argument(transpose, 2);
      if (!a || !b || std::min(*a, *b) != 0) return false;
      out.channel_dim = std::max(*a, *b);
      value = value_argument(transpose, 0);
    }
    const Node* view = reshaping(value);
    const auto sizes = view ? view->argument_index("size") : std::nullopt;
    const auto shape = sizes ? sizes : view ? view->argument_index("shape") : std::nullopt;
    if (!shape || !view->arguments()[*shape].is_list()) return false;
    for (const Argument& size : view->arguments()[*shape].list()) {
      if (!size.is_int()) return false;
      out.sizes.push_back(size.as<int64_t>());
    }
    if (out.sizes.empty() || out.channel_dim >= static_cast<int64_t>(out.sizes.size()))
      return false;
    std::swap(out.sizes[0], out.sizes[out.channel_dim]);
    const Node* mul = producer(value_argument(view, 0), {"aten::mul.Tensor"});
    if (mul == nullptr) return false;
    for (size_t side : {0u, 1u}) {
      if (match_inside(value_argument(mul, side), value_argument(mul, 1 - side))) return true;
    }
    return false;
  }

  bool match_inside(const Value* centred, const Value* scale) {
    QuantizedTensor& out = found_.quantized;
    found_.tensors.clear();
    out.zero_point = out.codebook = out.global_scale = at::Tensor();
    ragged_ = false;
    const Node* sub = producer(centred, {"aten::sub.Scalar", "aten::sub.Tensor"});
    const std::optional<int64_t> offset = sub ? int_argument(sub, 1) : std::nullopt;
    if (!match_values(skip_reshape(sub ? value_argument(sub, 0) : centred))) return false;
    if (offset ? out.has_codebook() || *offset != out.offset() : !sub && !out.has_codebook()) {
      return false;
    }
    out.group_size = out.columns();
    if (!match_spread(scale, &out.scale) || !out.scale.is_floating_point()) return false;
    if (sub && !offset) {
      if (!match_spread(value_argument(sub, 1), &out.zero_point)) return false;
      if (!out.zero_point.sizes().equals(out.scale.sizes())) return false;
    }
    if (out.groups() > 1 && out.columns() % out.groups() == 0 && !ragged_) {
      out.group_size = out.columns() / out.groups();
    }
    const int64_t groups = (out.columns() + out.group_size - 1) / out.group_size;
    return groups == out.groups() && (out.scale.size(0) == 1 || out.scale.size(0) == out.rows());
  }

  // Codes as floats, or entries of a codebook.
  bool match_values(const Value* value) {
    QuantizedTensor& out = found_.quantized;
    const Value* integers = value;
    if (const Node* index = producer(value, {"aten::index.Tensor"})) {
      const Argument& indices = index->arguments()[1];
      if (!indices.is_list() || indices.list().size() != 1) return false;
      out.codebook = tensor_of(value_argument(index, 0));
      integers = indices.list()[0].value();
    }
    const Node* cast = producer(integers, {"aten::to.dtype", "aten::_to_copy"});
    if (cast == nullptr || !match_codes(value_argument(cast, 0))) return false;
    if (integers == value) return true;
    return out.codebook.defined() && out.codebook.is_floating_point() && out.codebook.dim() == 1 &&
           out.codebook.size(0) == int64_t{1} << out.bits;
  }

  // add(add(field, field, alpha), field, alpha) of unpacked fields.
  bool match_codes(const Value* value) {
    std::vector<std::pair<const Value*, int64_t>> fields;  // the highest first
    while (const Node* add = producer(value, {"aten::add.Tensor"})) {
      const std::optional<int64_t> alpha = int_argument(add, 2);
      if (!alpha) return false;
      fields.emplace_back(value_argument(add, 1), *alpha);
      value = value_argument(add, 0);
    }
    fields.emplace_back(value, 1);
    std::reverse(fields.begin(), fields.end());
    std::vector<int> widths;
    found_.quantized.bits = 0;
    found_.quantized.fields.clear();
    for (const auto& [field, alpha] : fields) {
      if (alpha != int64_t{1} << found_.quantized.bits) return false;
      const int width = match_field(field);
      if (width == 0) return false;
      widths.push_back(width);
      found_.quantized.bits += width;
    }
    return found_.quantized.bits <= 8 && widths == code_fields(found_.quantized.bits);
  }

  // The width of an unpacked field, 0 if it is none.
  int match_field(const Value* value) {
    int width = 8;
    if (!value->is_named_tensor()) {
      const Node* mask = producer(skip_reshape(skip_slice(value)),
                                  {"aten::__and__.Scalar", "aten::bitwise_and.Scalar",
                                   "aten::bitwise_and.Tensor", "aten::__and__.Tensor"});
      const auto ones = mask ? int_argument(mask, 1) : std::nullopt;
      if (!ones || (*ones != 15 && *ones != 3 && *ones != 1)) return 0;
      width = *ones == 15 ? 4 : *ones == 3 ? 2 : 1;
      const Node* shift = producer(value_argument(mask, 0),
                                   {"aten::__rshift__.Tensor", "aten::bitwise_right_shift.Tensor"});
      if (shift == nullptr) return 0;
      const at::Tensor shifts = tensor_of(value_argument(shift, 1));
      if (!shifts.defined() || !at::equal(shifts.to(at::kLong), at::arange(0, 8, width))) return 0;
      const Node* bytes = producer(value_argument(shift, 0), {"aten::unsqueeze"});
      value = bytes ? value_argument(bytes, 0) : nullptr;
    }
    if (!use(value)) return 0;
    const at::Tensor field = tensor_of(value);
    const QuantizedTensor& out = found_.quantized;
    if (field.scalar_type() != at::kByte || field.dim() != 2 || field.size(0) != out.rows() ||
        field.size(1) != packed_bytes(out.columns(), width)) {
      return 0;
    }
    found_.quantized.fields.push_back(field);
    return width;
  }

  // The scales behind a multiplication with a global one and a cast to float.
  const Value* skip_to_stored(const Value* value) {
    if (const Node* mul = producer(value, {"aten::mul.Tensor"})) {
      const Value* factor = value_argument(mul, 1);
      const at::Tensor global_scale = tensor_of(factor);
      if (!global_scale.defined() || global_scale.numel() != 1 || !use(factor)) return nullptr;
      found_.quantized.global_scale = global_scale;
      value = value_argument(mul, 0);
    }
    const Node* cast = producer(value, {"aten::to.dtype", "aten::_to_copy"});
    return cast ? value_argument(cast, 0) : value;
  }

  // A matrix [rows or 1, groups], as it is, by unsqueeze, or by repeat_interleave and slice.
  bool match_spread(const Value* value, at::Tensor* matrix) {
    if (const Node* unsqueeze = producer(value, {"aten::unsqueeze"})) {
      value = value_argument(unsqueeze, 0);
    } else if (const Node* repeat =
                   producer(skip_slice(value), {"aten::repeat_interleave.self_int"})) {
      const std::optional<int64_t> size = int_argument(repeat, 1);
      if (!size || *size <= 0) return false;
      found_.quantized.group_size = *size;
      ragged_ = true;
      value = value_argument(repeat, 0);
    }
    value = skip_to_stored(value);
    if (!use(value)) return false;
    *matrix = tensor_of(value);
    return matrix->dim() == 2;
  }

  const Model& model_;
  Decoding found_;
  bool ragged_ = false;
};

}  // namespace

std::optional<Decoding> match_decoding(const Model& model, const Value* value) {
  return Matcher(model).match(value);
}

}  // namespace compress
