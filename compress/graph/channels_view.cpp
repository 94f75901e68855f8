// Where the elements of a view come from, found by making the view.

#include "compress/graph/channels_view.h"

#include "compress/graph/boxing.h"
#include "compress/graph/schema.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/function_schema.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <set>

namespace compress {
namespace {

using Sizes = std::vector<int64_t>;

std::vector<at::Tensor> views_of(const Node& node, const at::Tensor& base,
                                 const ScalarMap& scalars) {
  std::vector<c10::IValue> stack;
  for (size_t i = 0; i < node.arguments().size(); ++i) {
    if (i == 0) {
      stack.emplace_back(base);
      continue;
    }
    stack.push_back(box(node.arguments()[i], node.schema()->arguments()[i].type(),
                        [&](const Value* value) -> const c10::IValue& {
                          const auto found = scalars.find(value);
                          if (found == scalars.end()) throw NoChannelRule{"computes its bounds"};
                          return found->second;
                        }));
  }
  c10::Dispatcher::singleton().findSchema(node.schema()->operator_name())->callBoxed(stack);
  std::vector<at::Tensor> views;
  for (const c10::IValue& value : stack) {
    if (value.isTensorList()) {
      for (const at::Tensor& view : value.toTensorVector()) views.push_back(view);
    } else {
      views.push_back(value.toTensor());
    }
  }
  return views;
}

// The operand is contiguous, so its strides tell its dimensions apart, and each offset is an index.
ViewOutput locate(const at::Tensor& view, const at::Tensor& base) {
  ViewOutput output;
  for (int64_t d = 0; d < base.dim(); ++d) {
    const int64_t index =
        base.size(d) > 1 ? view.storage_offset() / base.stride(d) % base.size(d) : 0;
    output.origin.push_back(index);
  }
  for (int64_t e = 0; e < view.dim(); ++e) {
    ViewDim dim;
    if (view.size(e) > 1 && view.stride(e) > 0) {
      for (int64_t d = 0; d < base.dim(); ++d) {
        if (base.size(d) > 1 && base.stride(d) <= view.stride(e)) {
          dim.from = d;
          break;
        }
      }
      if (dim.from < 0 || view.stride(e) % base.stride(dim.from) != 0) {
        throw NoChannelRule{"is a view across dimensions"};
      }
      dim.step = view.stride(e) / base.stride(dim.from);
      dim.start = output.origin[dim.from];
    }
    output.dims.push_back(dim);
  }
  std::set<int64_t> used;
  for (const ViewDim& dim : output.dims) {
    if (dim.from >= 0 && !used.insert(dim.from).second) {
      throw NoChannelRule{"is a view of overlapping windows"};
    }
  }
  return output;
}

Sizes suffix_products(const Sizes& sizes) {
  Sizes products{1};
  for (size_t i = sizes.size(); i-- > 0;) products.push_back(products.back() * sizes[i]);
  return products;
}

}  // namespace

std::vector<ViewOutput> trace_view(const Node& node, const Sizes& sizes, const ScalarMap& scalars) {
  // No element is ever read: a view only computes sizes, strides and an offset.
  static uint8_t no_element = 0;
  const at::Tensor base = at::from_blob(&no_element, sizes, at::TensorOptions().dtype(at::kByte));
  std::vector<ViewOutput> outputs;
  try {
    for (const at::Tensor& view : views_of(node, base, scalars)) {
      outputs.push_back(locate(view, base));
    }
  } catch (const c10::Error&) {
    throw NoChannelRule{"cannot be followed"};
  }
  return outputs;
}

std::optional<Sizes> common_factors(const Sizes& a, const Sizes& b) {
  std::set<int64_t> cuts;
  for (const Sizes& sizes : {a, b}) {
    for (const int64_t product : suffix_products(sizes)) cuts.insert(product);
  }
  Sizes factors;
  int64_t inner = 0;
  for (const int64_t cut : cuts) {
    if (inner > 0) {
      if (cut % inner != 0) return std::nullopt;
      factors.push_back(cut / inner);
    }
    inner = cut;
  }
  if (cuts.contains(0)) return std::nullopt;
  std::reverse(factors.begin(), factors.end());
  return factors;
}

}  // namespace compress
