// Sums, means, extremes, norms.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <limits>

namespace compress::onnx {
namespace {

bool keeps(Call& call) { return call.has("keepdim") && call.flag("keepdim"); }

std::vector<int64_t> all_or_dim(Call& call) { return call.axes("dim", call.rank("self")); }

template <const char* const& op>
void reduce(Call& call) {
  // ONNX Runtime sums neither booleans nor bytes.
  call.result(call.reduce(op, call.input("self", call.out_dtype()), all_or_dim(call), keeps(call)));
}

template <const char* const& op>
void reduce_all(Call& call) {
  const int64_t rank = call.rank("self");
  call.result(
      call.reduce(op, call.input("self", call.out_dtype()), call.axes("none", rank), false));
}

// Extreme and where it is.
template <const char* const& op, const char* const& where>
void extreme(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const std::string x = call.input("self");
  call.result(call.reduce(op, x, {axis}, keeps(call)));
  call.result(call.emit(where, {x}, {{"axis", axis}, {"keepdims", int64_t{keeps(call)}}}), 1);
}

template <const char* const& op>
void position(Call& call) {
  if (!call.has("dim")) call.refuse("a position in the flattened tensor");
  const int64_t axis = call.axis("dim", call.rank("self"));
  call.result(
      call.emit(op, {call.input("self")}, {{"axis", axis}, {"keepdims", int64_t{keeps(call)}}}));
}

void vector_norm(Call& call) {
  const Argument& order = call.find("ord").is_none() ? call.find("p") : call.find("ord");
  const double power = order.is_none()  ? 2.0
                       : order.is_int() ? static_cast<double>(order.as<int64_t>())
                                        : order.as<double>();
  const std::string x = call.input("self", call.out_dtype());
  const std::vector<int64_t> axes = all_or_dim(call);
  if (power == 2) return call.result(call.reduce("ReduceL2", x, axes, keeps(call)));
  if (power == 1) return call.result(call.reduce("ReduceL1", x, axes, keeps(call)));
  if (power == std::numeric_limits<double>::infinity()) {
    return call.result(call.reduce("ReduceMax", call.emit("Abs", {x}), axes, keeps(call)));
  }
  call.refuse("a norm other than 1, 2 and the largest");
}

// Mean square distance from the mean, times n / (n - correction).
std::string variance(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  const std::string x = call.input("self");
  const std::vector<int64_t> axes = all_or_dim(call);
  double correction = 1;
  if (call.has("correction")) {
    correction = call.number("correction");
  } else if (call.has("unbiased")) {
    correction = call.flag("unbiased") ? 1 : 0;
  }
  double count = 1;
  for (const int64_t axis : axes) {
    const Dim& dim = call.sizes("self").at(static_cast<size_t>(axis));
    count *= static_cast<double>(correction == 0 ? 1 : call.fixed(dim, "a variance"));
  }
  const std::string gap = call.emit("Sub", {x, call.reduce("ReduceMean", x, axes, true)});
  const std::string mean =
      call.reduce("ReduceMean", call.emit("Mul", {gap, gap}), axes, keeps(call));
  if (correction == 0) return mean;
  return call.emit("Mul", {mean, call.constant(count / (count - correction), dtype)});
}

void variance_rule(Call& call) { call.result(variance(call)); }
void deviation(Call& call) { call.result(call.emit("Sqrt", {variance(call)})); }

void cumulative_sum(Call& call) {
  const int64_t axis = call.axis("dim", std::max<int64_t>(call.rank("self"), 1));
  call.result(
      call.emit("CumSum", {call.input("self", call.out_dtype()), call.as_scalar(Size(axis))}));
}

// Differences of neighbours, once, of what stands before, the tensor, and what stands behind.
void difference(Call& call) {
  if (call.integer("n") != 1) call.refuse("differences of differences");
  const int64_t axis = call.axis("dim", call.rank("self"));
  std::vector<std::string> parts;
  if (call.has("prepend")) parts.push_back(call.input("prepend", call.out_dtype()));
  parts.push_back(call.input("self"));
  if (call.has("append")) parts.push_back(call.input("append", call.out_dtype()));
  const std::string all =
      parts.size() == 1 ? parts[0] : call.emit("Concat", parts, {{"axis", axis}});
  const std::string later = call.slice(all, axis, 1, std::numeric_limits<int64_t>::max());
  const std::string earlier = call.slice(all, axis, 0, -1);
  if (call.out_dtype() == at::kBool) {
    return call.result(call.emit("Xor", {later, earlier}));
  }
  call.result(call.emit("Sub", {later, earlier}));
}

// Of any and all: as numbers, which ONNX can reduce.
template <const char* const& op>
void boolean(Call& call) {
  const std::string numbers = call.cast(call.input("self", at::kBool), at::kBool, at::kInt);
  call.result(
      call.cast(call.reduce(op, numbers, all_or_dim(call), keeps(call)), at::kInt, at::kBool));
}

void cosine_similarity(Call& call) {
  const c10::ScalarType dtype = call.out_dtype();
  const int64_t axis = call.axis("dim", call.rank("x1"));
  const std::string a = call.input("x1"), b = call.input("x2");
  const auto norm = [&](const std::string& x) {
    return call.emit("Max", {call.reduce("ReduceL2", x, {axis}, false),
                             call.constant(call.number("eps"), dtype)});
  };
  const std::string product = call.reduce("ReduceSum", call.emit("Mul", {a, b}), {axis}, false);
  call.result(call.emit("Div", {product, call.emit("Mul", {norm(a), norm(b)})}));
}

void top(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const auto found =
      call.emit_list("TopK", {call.input("self"), call.as_tensor(call.size(call.argument("k")))},
                     {{"axis", axis},
                      {"largest", int64_t{call.flag("largest")}},
                      {"sorted", int64_t{call.flag("sorted")}}},
                     2);
  call.result(found[0], 0);
  call.result(found[1], 1);
}

// All of a dimension, in order.
std::vector<std::string> sorted(Call& call) {
  const int64_t axis = call.axis("dim", call.rank("self"));
  const std::string x = call.input("self");
  const std::string count = call.as_tensor(call.size_of(x, call.sizes("self"), axis));
  return call.emit_list("TopK", {x, count},
                        {{"axis", axis}, {"largest", int64_t{call.flag("descending")}}}, 2);
}

void sort(Call& call) {
  const auto found = sorted(call);
  call.result(found[0], 0);
  call.result(found[1], 1);
}

void sort_positions(Call& call) { call.result(sorted(call)[1]); }

constexpr const char* kSum = "ReduceSum";
constexpr const char* kMean = "ReduceMean";
constexpr const char* kMax = "ReduceMax";
constexpr const char* kMin = "ReduceMin";
constexpr const char* kProduct = "ReduceProd";
constexpr const char* kLogSumExp = "ReduceLogSumExp";
constexpr const char* kArgMax = "ArgMax";
constexpr const char* kArgMin = "ArgMin";

}  // namespace

Rules reduce_rules() {
  return {{"aten::sum", reduce_all<kSum>},
          {"aten::sum.dim_IntList", reduce<kSum>},
          {"aten::mean", reduce_all<kMean>},
          {"aten::mean.dim", reduce<kMean>},
          {"aten::amax", reduce<kMax>},
          {"aten::amin", reduce<kMin>},
          {"aten::max", reduce_all<kMax>},
          {"aten::min", reduce_all<kMin>},
          {"aten::max.dim", extreme<kMax, kArgMax>},
          {"aten::min.dim", extreme<kMin, kArgMin>},
          {"aten::argmax", position<kArgMax>},
          {"aten::argmin", position<kArgMin>},
          {"aten::prod.dim_int", reduce<kProduct>},
          {"aten::logsumexp", reduce<kLogSumExp>},
          {"aten::linalg_vector_norm", vector_norm},
          {"aten::norm.ScalarOpt_dim", vector_norm},
          {"aten::norm.Scalar", vector_norm},
          {"aten::var.correction", variance_rule},
          {"aten::var.dim", variance_rule},
          {"aten::std.correction", deviation},
          {"aten::std.dim", deviation},
          {"aten::cumsum", cumulative_sum},
          {"aten::diff", difference},
          {"aten::any", boolean<kMax>},
          {"aten::any.dim", boolean<kMax>},
          {"aten::all", boolean<kMin>},
          {"aten::all.dim", boolean<kMin>},
          {"aten::cosine_similarity", cosine_similarity},
          {"aten::topk", top},
          {"aten::sort", sort},
          {"aten::sort.stable", sort},
          {"aten::argsort", sort_positions}};
}

}  // namespace compress::onnx
