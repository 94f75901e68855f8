// Embeddings and gathering.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <algorithm>
#include <numeric>

namespace compress::onnx {
namespace {

void embedding(Call& call) {
  call.result(
      call.emit("Gather", {call.input("weight"), call.input("indices")}, {{"axis", int64_t{0}}}));
}

void index_select(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  call.result(call.emit("Gather", {call.input("self"), call.input("index")}, {{"axis", axis}}));
}

void gather(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  call.result(
      call.emit("GatherElements", {call.input("self"), call.input("index")}, {{"axis", axis}}));
}

void scatter(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  call.result(call.emit("ScatterElements",
                        {call.input("self"), call.input("index"), call.input("src")},
                        {{"axis", axis}}));
}

// x[a, b, :]: GatherND wants the indexed dimensions first, and one tensor of index tuples.
void index_many(Call& call, const std::string& x, const std::vector<size_t>& dims) {
  const Argument::List& indices = call.argument("indices").list();
  const bool together = dims.back() - dims.front() + 1 == dims.size();
  size_t rank = 0;  // of the index tensors, broadcast
  for (const size_t dim : dims) rank = std::max(rank, call.sizes_of(indices[dim]).size());
  // Broadcasting by a sum of zeros costs nothing next to the gathering.
  std::string common;
  std::vector<std::string> wide;
  for (const size_t dim : dims) wide.push_back(call.operand(indices[dim], at::kLong));
  const std::string zero = call.as_scalar(Size(0));
  for (const std::string& index : wide) {
    const std::string zeros = call.emit("Mul", {index, zero});
    common = common.empty() ? zeros : call.emit("Add", {common, zeros});
  }
  for (std::string& index : wide) {
    index = call.unsqueeze(call.emit("Add", {index, common}), {-1});
  }
  const std::string tuples = call.emit("Concat", wide, {{"axis", int64_t{-1}}});
  const auto all = static_cast<size_t>(call.rank("self"));
  std::vector<int64_t> order(dims.begin(), dims.end());
  for (size_t dim = 0; dim < all; ++dim) {
    if (std::find(dims.begin(), dims.end(), dim) == dims.end()) {
      order.push_back(static_cast<int64_t>(dim));
    }
  }
  const bool is_first = dims.front() == 0 && together;
  std::string out = call.emit("GatherND", {is_first ? x : call.transpose(x, order), tuples});
  // Indexed dimensions that stand together stay where they were.
  if (together && !is_first) {
    std::vector<int64_t> back;
    for (size_t i = 0; i < dims.front(); ++i) back.push_back(static_cast<int64_t>(rank + i));
    for (size_t i = 0; i < rank; ++i) back.push_back(static_cast<int64_t>(i));
    for (size_t i = rank + dims.front(); i < rank + all - dims.size(); ++i) {
      back.push_back(static_cast<int64_t>(i));
    }
    out = call.transpose(out, back);
  }
  call.result(out);
}

void index(Call& call) {
  const Argument::List& indices = call.argument("indices").list();
  std::vector<size_t> dims;
  for (size_t dim = 0; dim < indices.size(); ++dim) {
    if (indices[dim].is_none()) continue;
    if (!c10::isIntegralType(call.dtype_of(indices[dim]), /*includeBool=*/false) ||
        call.dtype_of(indices[dim]) == at::kByte) {
      call.refuse("indexing by a mask, which gives a size that the data decide");
    }
    dims.push_back(dim);
  }
  const std::string x = call.input("self");
  if (dims.size() == 1) {
    return call.result(call.emit("Gather", {x, call.operand(indices[dims[0]], at::kLong)},
                                 {{"axis", static_cast<int64_t>(dims[0])}}));
  }
  index_many(call, x, dims);
}

void one_hot(Call& call) {
  const int64_t classes = call.integer("num_classes");
  if (classes < 0) call.refuse("one_hot of a number of classes that the data decide");
  const std::string positions = call.constant([&] {
    std::vector<int64_t> numbers(static_cast<size_t>(classes));
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  }());
  const std::string equal =
      call.emit("Equal", {call.unsqueeze(call.input("self"), {-1}), positions});
  call.result(call.cast(equal, at::kBool, at::kLong));
}

template <bool upper>
void triangle(Call& call) {
  call.result(call.emit("Trilu",
                        {call.input("self"), call.as_scalar(Size(call.integer("diagonal")))},
                        {{"upper", int64_t{upper}}}));
}

}  // namespace

Rules index_rules() {
  return {{"aten::embedding", embedding},  {"aten::index_select", index_select},
          {"aten::gather", gather},        {"aten::scatter.src", scatter},
          {"aten::index.Tensor", index},   {"aten::one_hot", one_hot},
          {"aten::tril", triangle<false>}, {"aten::triu", triangle<true>}};
}

}  // namespace compress::onnx
