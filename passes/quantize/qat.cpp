// Quantization-aware training: the network learns with the weights that it will be stored with.
//
// Forward sees the rounded weight, gradients pass straight through to the stored one (Bengio et
// al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013). In the graph that
// is `add(w, error)`: the buffer `error` is set to rounded(w) - w before each step, so the rounding
// is that of quantize.weights to the last bit, whatever grid and granularity. Activations go
// through LibTorch's fused observer, whose range is a moving average of each batch's minimum and
// maximum (Jacob et al., CVPR 2018, section 3.1).

#include "compress/graph/interpreter.h"
#include "compress/train/training_pass.h"
#include "compress/weight.h"
#include "passes/quantize/activation_sites.h"
#include "passes/quantize/grid.h"
#include "passes/quantize/round_to_nearest.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace compress {

struct QuantizeQatOptions {
  int bits = 4;
  Grid grid = Grid::kSymmetric;
  Granularity granularity = Granularity::channel();
  RangeMethod range = RangeMethod::kMinmax;
  double percentile = 99.9;
  int activations = 0;
  double averaging = 0.01;
  double begin = 0;
  double freeze_ranges = -1;
  double freeze_batch_norm = -1;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a weight's code.").range(2, 8);
    field("grid", grid, "Codes around zero, or with a zero point where the range is lopsided.");
    field("granularity", granularity,
          "What shares one scale; a group is a run of weights in one output channel.");
    field("range", range, "How the range that the codes cover is chosen, anew at each step.");
    field("percentile", percentile,
          "Share of the weights inside the range, if that is `percentile`.")
        .range(50, 100);
    field("activations", activations,
          "Bits of the inputs of the same layers, one range a tensor; 0: they stay as they are.")
        .range(0, 8);
    field("averaging", averaging, "How much of an activation's range a new batch replaces.")
        .range(0.0, 1.0);
    field("begin", begin, "Epoch from which the network sees rounded values.").at_least(0);
    field("freeze_ranges", freeze_ranges,
          "Epoch from which the ranges of activations stay; -1: after three quarters of the time "
          "behind `begin`.")
        .at_least(-1);
    field("freeze_batch_norm", freeze_batch_norm,
          "Epoch from which batch norm uses its running statistics; -1: never.")
        .at_least(-1);
    field("where", where, "The weights to quantize.");
  }
  void validate(Problems& problems) const {
    if (activations == 1) problems.add("activations", "one bit is too few", "use 2 to 8, or 0");
    if (freeze_ranges >= 0 && freeze_ranges <= begin) {
      problems.add("freeze_ranges", "does not lie behind `begin`: no range would ever be seen");
    }
  }
};

namespace {

class QatHook final : public TrainingHook {
 public:
  explicit QatHook(QuantizeQatOptions options) : options_(std::move(options)) {}

  void attach(Training& training) override {
    Model& model = training.model;
    std::vector<ActivationRead> reads;
    for (Weight& weight : weights(model, options_.where)) {
      if (!weight.stored()) {
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("is {} and has no elements to train", weight.encoding()),
                    weight.name(), "train before the weights are quantized");
      }
      const std::string error = error_name(weight.name());
      Value* buffer =
          model.add_tensor(error, at::zeros_like(weight.effective()), TensorRole::kBuffer);
      Node* layer = UseMap(model.graph()).first_node(weight.value());
      Node* sum = model.graph().insert(layer, {"aten::add.Tensor",
                                               {weight.value(), buffer},
                                               {},
                                               weight.name() + "_rounded",
                                               1,
                                               weight.module_path()});
      sum->output()->type = buffer->type;
      model.graph().replace_uses(weight.value(), sum->output(), sum);
      if (options_.activations == 0) continue;
      for (ActivationRead& read : layer_reads(weight, options_.activations)) {
        reads.push_back(std::move(read));
      }
    }
    for (const ActivationSite& site : activation_sites(model.graph(), reads)) observe(model, site);
    find(training);
  }

  void restore(Training& training, const State&) override { find(training); }

  void before_forward(Training& training) override {
    const at::NoGradGuard no_grad;
    const double epoch = training.clock.epoch();
    if (epoch < options_.begin) return;
    round_weights(training.model);
    set_observers(training.model, epoch < freeze_at(training.clock), true);
    if (options_.freeze_batch_norm >= 0 && epoch >= options_.freeze_batch_norm) {
      freeze_batch_norm(training.model);
    }
  }

  // Validation and everything else between two steps must not move the ranges.
  void after_step(Training& training) override {
    if (training.clock.epoch() >= options_.begin) set_observers(training.model, false, true);
  }

  void before_evaluation(Training& training) override {
    const at::NoGradGuard no_grad;
    if (training.clock.epoch() >= options_.begin) round_weights(training.model);
  }

  void finish(Training& training) override {
    Model& model = training.model;
    for (const Target& target : targets_) {
      model.graph().replace_uses(target.sum->output(), target.weight);
      model.graph().erase(target.sum);
      model.remove_tensor(error_name(target.name));
    }
    int64_t activations = 0;
    for (Node* observer : observers_) activations += make_static(model, observer);
    if (const auto left = static_cast<int64_t>(observers_.size()) - activations; left > 0) {
      training.context.message(fmt::format(
          "{} inputs of layers stay as they are: the training ended before `begin`, and their "
          "ranges were never seen",
          left));
    }
    if (!observers_.empty()) model.remove_dead();  // the observers' buffers
    int64_t quantized = 0;
    for (Weight& weight : weights(model, options_.where)) {
      weight.encode(round_to_nearest(weight.effective().contiguous(), weight.output_dim(),
                                     rounding(), weight.name()));
      quantized += weight.elements();
    }
    training.context.count("weights_quantized", quantized);
    training.context.count("activations_quantized", activations);
  }

 private:
  static constexpr std::string_view kErrorSuffix = "_rounding_error";
  static constexpr const char* kObserver = "aten::fused_moving_avg_obs_fake_quant";

  struct Target {
    std::string name;
    Value* weight = nullptr;  // before rounding, masked
    Node* sum = nullptr;      // adds the rounding error
    int64_t channel_dim = 0;
  };

  static std::string error_name(const std::string& weight) {
    return weight + std::string(kErrorSuffix);
  }

  RoundToNearest rounding() const {
    return {options_.bits, options_.grid == Grid::kSymmetric, options_.granularity, options_.range,
            options_.percentile};
  }

  // Three quarters of the time behind `begin` where the option says -1.
  double freeze_at(const TrainingClock& clock) const {
    if (options_.freeze_ranges >= 0) return options_.freeze_ranges;
    return options_.begin + 0.75 * (clock.epochs() - options_.begin);
  }

  // What rounding makes of the weights as they are now.
  void round_weights(Model& model) const {
    const RoundToNearest how = rounding();
    for (const Target& target : targets_) {
      const at::Tensor weight = evaluate(model, target.weight).detach().contiguous();
      const at::Tensor rounded =
          dequantize(round_to_nearest(weight, target.channel_dim, how, target.name));
      model.tensor(error_name(target.name)).copy_(rounded.sub_(weight));
    }
  }

  // Finds what `attach` has left in the graph.
  void find(Training& training) {
    targets_.clear();
    observers_.clear();
    for (Node& node : training.model.graph().nodes()) {
      if (node.op() == kObserver) observers_.push_back(&node);
      if (node.op() != "aten::add.Tensor") continue;
      const Value* error = node.arguments()[1].value();
      if (error == nullptr || !error->is_named_tensor()) continue;
      if (!error->name().ends_with(kErrorSuffix)) continue;
      const std::string name = error->name().substr(0, error->name().size() - kErrorSuffix.size());
      targets_.push_back({name, node.arguments()[0].value(), &node, 0});
    }
    for (const Weight& weight : weights(std::as_const(training.model))) {
      for (Target& target : targets_) {
        if (weight.value() == target.sum->output()) target.channel_dim = weight.output_dim();
      }
    }
  }

  // Puts an observer behind the value of a site.
  void observe(Model& model, const ActivationSite& site) {
    const ActivationRead& first = site.reads.front();
    // A module may have several layers.
    const bool taken =
        model.find_tensor(fmt::format("{}_input_observing", first.module_path)) != nullptr;
    const std::string base =
        fmt::format("{}_input", taken ? first.node->output()->name() : first.module_path);
    const auto buffer = [&](const char* what, const at::Tensor& initial) {
      return model.add_tensor(fmt::format("{}_{}", base, what), initial, TensorRole::kBuffer);
    };
    const auto numbers = at::TensorOptions().dtype(at::kFloat);
    const double infinity = std::numeric_limits<double>::infinity();
    Graph::Call call{kObserver, {}, {}, {}, 1, first.module_path};
    call.arguments = {site.value,
                      buffer("observing", at::zeros({1}, at::kLong)),
                      buffer("rounding", at::zeros({1}, at::kLong)),
                      buffer("min", at::full({1}, infinity, numbers)),
                      buffer("max", at::full({1}, -infinity, numbers)),
                      buffer("scale", at::full({1}, 1.0, numbers)),
                      buffer("zero_point", at::zeros({1}, at::kInt)),
                      options_.averaging,
                      int64_t{0},
                      (int64_t{1} << options_.activations) - 1,
                      int64_t{0}};
    Node* observer = model.graph().insert(first.node, std::move(call));
    observer->output()->type = site.value->type;
    redirect(model.graph(), site, observer->output());
  }

  void set_observers(Model& model, bool observing, bool rounding) {
    for (const Node* observer : observers_) {
      const auto set = [&](size_t argument, bool on) {
        const std::string& flag = observer->arguments()[argument].value()->name();
        model.tensor(flag).fill_(on ? 1 : 0);
      };
      set(1, observing);
      set(2, rounding);
    }
  }

  // An observer becomes a plain fake quantization with the range that it has found; false, and
  // nothing, if it has found none.
  static bool make_static(Model& model, Node* observer) {
    const auto tensor = [&](size_t argument) {
      return model.tensor(observer->arguments()[argument].value()->name());
    };
    const auto bound = [&](size_t argument) {
      return observer->arguments()[argument].as<int64_t>();
    };
    if (tensor(3).item<double>() > tensor(4).item<double>()) {
      model.graph().replace_uses(observer->output(), observer->arguments()[0].value());
      model.graph().erase(observer);
      return false;
    }
    const ActivationGrid grid{tensor(5).item<double>(), tensor(6).item<int64_t>(), bound(8),
                              bound(9)};
    Value* fixed = fake_quantize(model.graph(), observer, observer->arguments()[0].value(), grid);
    model.graph().replace_uses(observer->output(), fixed);
    model.graph().erase(observer);
    return true;
  }

  static void freeze_batch_norm(Model& model) {
    for (Node& node : model.graph().nodes()) {
      if (node.op() != "aten::batch_norm" || !node.argument("training").as<bool>()) continue;
      model.graph().set_argument(&node, "training", false);
    }
  }

  QuantizeQatOptions options_;
  std::vector<Target> targets_;
  std::vector<Node*> observers_;
};

}  // namespace

class QuantizeQat final : public TrainingPassWith<QuantizeQatOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.qat",
      "Trains with rounded weights and activations, and packs the weights",
      Needs::kTraining,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Jacob et al., Quantization and Training of Neural Networks for Efficient "
      "Integer-Arithmetic-Only Inference, CVPR 2018"};

  std::unique_ptr<TrainingHook> hook(const Options& options) const override {
    return std::make_unique<QatHook>(options);
  }
};

COMPRESS_PASS(QuantizeQat)

}  // namespace compress
