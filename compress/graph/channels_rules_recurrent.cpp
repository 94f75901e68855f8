// Recurrent layers: each gate's block of rows goes with the hidden channel that it makes.

#include "compress/graph/channels_rules.h"
#include "compress/graph/recurrent.h"
#include "compress/graph/schema.h"

#include <string>

namespace compress {
namespace {

// All layers and directions have one hidden array, since their states are one tensor.
class Recurrent {
 public:
  explicit Recurrent(RuleCall& call) : call_(call) {
    const std::string name = base_name(call.node.op());
    gates_ = name == "lstm" ? 4 : name == "gru" ? 3 : 1;
    directions_ = call.flag("bidirectional") ? 2 : 1;
    layers_ = call.integer("num_layers");
    biases_ = call.flag("has_biases") ? 2 : 0;
    parameters_ = call.list("params");
    if (static_cast<int64_t>(parameters_.size()) != layers_ * directions_ * (2 + biases_)) {
      throw NoChannelRule{"has projections"};
    }
    input_ = call.operand("input");
    hidden_ = call.labels.fresh(parameters_.at(1)->size(1));
    rows_ = repeated(gates_);
  }

  void run() {
    std::vector<const TensorChannels*> states;
    if (call_.node.has_argument("hx")) states = call_.list("hx");
    for (const TensorChannels* state : states) {
      call_.join(hidden_, state->labels.at(2));
      call_.freeze(state->labels[0], "counts layers");
      call_.freeze(state->labels[1], "is the batch");
    }
    const Labels between = repeated(directions_);
    for (int64_t block = 0; block < layers_ * directions_; ++block) {
      const size_t first = block * (2 + biases_);
      call_.join(rows_, parameters_[first]->labels[0]);
      call_.join(block < directions_ ? input_.labels.at(2) : between,
                 parameters_[first]->labels[1]);
      call_.join(rows_, parameters_[first + 1]->labels[0]);
      call_.join(hidden_, parameters_[first + 1]->labels[1]);
      for (int64_t bias = 0; bias < biases_; ++bias) {
        call_.join(rows_, parameters_[first + 2 + bias]->labels[0]);
      }
    }
    call_.freeze(input_.labels.at(0), "is a dimension of time or batch");
    call_.freeze(input_.labels.at(1), "is a dimension of time or batch");
    for (size_t i = 0; i < call_.results(); ++i) {
      TensorChannels result;
      for (int64_t d = 0; d < 2; ++d) result.add(call_.labels.stays(call_.sizes(i).at(d)), false);
      result.add(i == 0 ? between : hidden_, true);
      call_.give(std::move(result), i);
    }
  }

 private:
  Labels repeated(int64_t times) const {
    std::vector<Label> labels;
    for (int64_t i = 0; i < times; ++i) {
      labels.insert(labels.end(), hidden_->begin(), hidden_->end());
    }
    return std::make_shared<const std::vector<Label>>(std::move(labels));
  }

  RuleCall& call_;
  int64_t gates_ = 1, directions_ = 1, layers_ = 1, biases_ = 0;
  std::vector<const TensorChannels*> parameters_;
  TensorChannels input_;
  Labels hidden_, rows_;
};

void recurrent(RuleCall& call) { Recurrent(call).run(); }

}  // namespace

void add_recurrent_rules(ChannelRules& rules) {
  for (const char* op : {"lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"}) {
    rules[op] = recurrent;
  }
}

}  // namespace compress
