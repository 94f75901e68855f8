// Attention and softmax.

#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <cmath>
#include <limits>
#include <numeric>

namespace compress::onnx {
namespace {

void softmax_of(Call& call, const std::string& op) {
  const int64_t axis = call.axis("dim", std::max<int64_t>(call.rank("self"), 1));
  call.result(call.emit(op, {call.input("self", call.out_dtype())}, {{"axis", axis}}));
}

void softmax(Call& call) { softmax_of(call, "Softmax"); }
void log_softmax(Call& call) { softmax_of(call, "LogSoftmax"); }

// What is masked gets a weight of zero: LibTorch gives a row in which all is masked zeros, where
// the softmax of minus infinities would be NaN.
constexpr double kMasked = std::numeric_limits<float>::lowest();

struct Scores {
  std::string scores;
  std::string mask;  // bool; empty: none
};

// Row i sees columns up to i.
std::string causal_mask(Call& call, const std::string& query, const std::string& key) {
  const auto positions = [&](const std::string& tensor, std::string_view argument) {
    const std::vector<Dim>& sizes = call.sizes(argument);
    const Size count = call.size_of(tensor, sizes, static_cast<int64_t>(sizes.size()) - 2);
    return call.emit("Range", {call.as_scalar(0), call.as_scalar(count), call.as_scalar(1)});
  };
  const std::string rows = call.unsqueeze(positions(query, "query"), {1});
  return call.emit("GreaterOrEqual", {rows, positions(key, "key")});
}

Scores masked(Call& call, std::string scores, const std::string& query, const std::string& key) {
  Scores out{std::move(scores), {}};
  if (call.flag("is_causal")) {
    out.mask = causal_mask(call, query, key);
  } else if (call.has("attn_mask")) {
    if (call.dtype("attn_mask") != at::kBool) {
      out.scores = call.emit("Add", {out.scores, call.input("attn_mask", call.out_dtype())});
      return out;
    }
    out.mask = call.input("attn_mask");
  }
  if (out.mask.empty()) return out;
  out.scores = call.emit("Where", {out.mask, out.scores, call.constant(kMasked, call.out_dtype())});
  return out;
}

// Heads of keys and values that several queries share: [.., h, s, d] -> [.., h * times, s, d].
std::string repeated(Call& call, const std::string& name, std::string_view argument) {
  const std::vector<Dim>& sizes = call.sizes(argument);
  const size_t heads = sizes.size() - 3;
  const int64_t wanted = call.fixed(call.sizes("query").at(heads), "heads");
  const int64_t present = call.fixed(sizes[heads], "heads");
  if (wanted == present) return name;
  const auto axis = static_cast<int64_t>(heads) + 1;
  std::vector<int64_t> times(sizes.size() + 1, 1);
  times[heads + 1] = wanted / present;
  const std::string tiled =
      call.emit("Expand", {call.unsqueeze(name, {axis}), call.constant(times)});
  std::vector<int64_t> flat(sizes.size(), 0);
  flat[heads] = wanted;
  for (size_t i = heads + 1; i < sizes.size(); ++i) {
    flat[i] = sizes[i].is_symbolic() ? -1 : sizes[i].size;
  }
  return call.emit("Reshape", {tiled, call.constant(flat)});
}

// softmax(q k' scale + mask) v. Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
// equation 1.
void attention(Call& call) {
  if (call.number("dropout_p") != 0) call.refuse("attention with dropout");
  const c10::ScalarType dtype = call.out_dtype();
  const std::string query = call.input("query");
  std::string key = call.input("key"), value = call.input("value");
  const std::vector<Dim>& sizes = call.sizes("key");
  if (call.has("enable_gqa") && call.flag("enable_gqa")) {
    key = repeated(call, key, "key");
    value = repeated(call, value, "value");
  }
  double scale = 0;
  if (call.has("scale")) {
    scale = call.number("scale");
  } else {
    scale = 1 / std::sqrt(static_cast<double>(call.fixed(call.sizes("query").back(), "heads")));
  }
  std::vector<int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::swap(order.at(order.size() - 1), order.at(order.size() - 2));
  const std::string scaled = call.emit("Mul", {query, call.constant(scale, dtype)});
  const Scores scores =
      masked(call, call.emit("MatMul", {scaled, call.transpose(key, order)}), query, key);
  std::string weights = call.emit("Softmax", {scores.scores}, {{"axis", int64_t{-1}}});
  if (!scores.mask.empty()) {
    weights = call.emit("Where", {scores.mask, weights, call.constant(0, dtype)});
  }
  call.result(call.emit("MatMul", {weights, value}));
}

}  // namespace

Rules attention_rules() {
  return {{"aten::softmax.int", softmax},
          {"aten::_softmax", softmax},
          {"aten::log_softmax.int", log_softmax},
          {"aten::_log_softmax", log_softmax},
          {"aten::scaled_dot_product_attention", attention}};
}

}  // namespace compress::onnx
