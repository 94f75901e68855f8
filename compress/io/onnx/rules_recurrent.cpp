// LSTM, GRU and RNN.
//
// ONNX has one layer an operator, all gates of a direction in one matrix, and its own order of the
// gates: i o f c where LibTorch has i f g o, and z r h where LibTorch has r z n.

#include "compress/encoding.h"
#include "compress/io/onnx/rules.h"
#include "compress/io/onnx/translator.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <limits>
#include <optional>

namespace compress::onnx {
namespace {

struct Cell {
  std::string op;
  std::vector<int64_t> gates;  // where ONNX's n-th gate is among LibTorch's
  std::string activation;      // of a plain RNN
};

// Blocks of rows in another order.
at::Tensor reordered(const at::Tensor& rows, const std::vector<int64_t>& gates) {
  std::vector<at::Tensor> parts;
  const std::vector<at::Tensor> blocks = rows.chunk(static_cast<int64_t>(gates.size()), 0);
  for (const int64_t gate : gates) parts.push_back(blocks.at(static_cast<size_t>(gate)));
  return at::cat(parts, 0);
}

class Stack {
 public:
  Stack(Call& call, Cell cell) : call_(call), cell_(std::move(cell)) {
    has_biases_ = call.flag("has_biases");
    directions_ = call.flag("bidirectional") ? 2 : 1;
    if (call.flag("train") && call.number("dropout") != 0) call.refuse("dropout in training mode");
    for (const Argument& parameter : call.argument("params").list()) {
      const EncodedWeight* codes = call.encoded(parameter);
      const auto stored =
          codes ? std::optional(dequantize(codes->quantized)) : call.stored(parameter);
      if (codes) {
        call.note(fmt::format("{} is written in floating point: {} has no integer weights",
                              codes->name, cell_.op));
      }
      if (!stored) call.refuse("weights that are computed when the network runs");
      parameters_.push_back(*stored);
    }
    const auto layers = static_cast<size_t>(call.integer("num_layers") * directions_);
    if (parameters_.size() != layers * (has_biases_ ? 4 : 2)) call.refuse("projected states");
  }

  void translate() {
    const bool is_lstm = cell_.op == "LSTM";
    const bool batch_first = call_.flag("batch_first");
    if (call_.rank("input") != 3) call_.refuse("a sequence without a batch");
    std::string x = call_.input("input");
    if (batch_first) x = call_.transpose(x, {1, 0, 2});
    std::vector<std::string> hidden, cells;
    const std::string h = is_lstm ? call_.tensor(call_.argument("hx").list().at(0))
                                  : call_.tensor(call_.argument("hx"));
    const std::string c = is_lstm ? call_.tensor(call_.argument("hx").list().at(1)) : "";
    for (int64_t layer = 0; layer < call_.integer("num_layers"); ++layer) {
      const auto initial = [&](const std::string& states) {
        return states.empty()
                   ? states
                   : call_.slice(states, 0, layer * directions_, (layer + 1) * directions_);
      };
      const auto out = run_layer(layer, x, initial(h), initial(c));
      // [sequence, directions, batch, size] -> [sequence, batch, directions * size]
      x = call_.transpose(out[0], {0, 2, 1, 3});
      x = call_.emit("Reshape", {x, call_.constant(std::vector<int64_t>{0, 0, -1})});
      hidden.push_back(out[1]);
      if (is_lstm) cells.push_back(out[2]);
    }
    call_.result(call_.emit("Concat", hidden, {{"axis", int64_t{0}}}), 1);
    if (is_lstm) call_.result(call_.emit("Concat", cells, {{"axis", int64_t{0}}}), 2);
    call_.result(batch_first ? call_.transpose(x, {1, 0, 2}) : x, 0);
  }

 private:
  const at::Tensor& parameter(int64_t layer, int64_t direction, size_t which) const {
    const size_t each = has_biases_ ? 4 : 2;
    return parameters_.at(static_cast<size_t>(layer * directions_ + direction) * each + which);
  }

  // The matrices of both directions, [directions, gates * size, columns].
  std::string weights(int64_t layer, size_t which) {
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < directions_; ++i) {
      parts.push_back(reordered(parameter(layer, i, which), cell_.gates));
    }
    return call_.constant(at::stack(parts));
  }

  std::string biases(int64_t layer) {
    if (!has_biases_) return "";
    std::vector<at::Tensor> parts;
    for (int64_t i = 0; i < directions_; ++i) {
      parts.push_back(at::cat({reordered(parameter(layer, i, 2), cell_.gates),
                               reordered(parameter(layer, i, 3), cell_.gates)}));
    }
    return call_.constant(at::stack(parts));
  }

  std::vector<std::string> run_layer(int64_t layer, const std::string& x, const std::string& h,
                                     const std::string& c) {
    std::vector<Attribute> attributes{
        {"hidden_size", parameter(layer, 0, 1).size(1)},
        {"direction", directions_ == 2 ? "bidirectional" : "forward"}};
    if (cell_.op == "GRU") attributes.push_back({"linear_before_reset", int64_t{1}});
    if (cell_.op == "RNN") {
      attributes.push_back(
          {"activations",
           std::vector<std::string>(static_cast<size_t>(directions_), cell_.activation)});
    }
    return call_.emit_list(cell_.op,
                           {x, weights(layer, 0), weights(layer, 1), biases(layer), "", h, c},
                           std::move(attributes), cell_.op == "LSTM" ? 3 : 2);
  }

  Call& call_;
  Cell cell_;
  bool has_biases_ = true;
  int64_t directions_ = 1;
  std::vector<at::Tensor> parameters_;
};

void lstm(Call& call) { Stack(call, {"LSTM", {0, 3, 1, 2}, ""}).translate(); }
void gru(Call& call) { Stack(call, {"GRU", {1, 0, 2}, ""}).translate(); }
void rnn_tanh(Call& call) { Stack(call, {"RNN", {0}, "Tanh"}).translate(); }
void rnn_relu(Call& call) { Stack(call, {"RNN", {0}, "Relu"}).translate(); }

}  // namespace

Rules recurrent_rules() {
  return {{"aten::lstm.input", lstm},
          {"aten::gru.input", gru},
          {"aten::rnn_tanh.input", rnn_tanh},
          {"aten::rnn_relu.input", rnn_relu}};
}

}  // namespace compress::onnx
