// Learned step sizes: quantization-aware training in which the scales are trained, too.
//
// Esser et al., "Learned Step Size Quantization", ICLR 2020. In the graph a weight goes through
// LibTorch's _fake_quantize_learnable_* with the parameter `<weight>_step`, the input of its layer
// with `<layer>_input_step`. The network sees the first batch with activations as they are; that
// batch decides their first steps and whether they have negatives.

#include "compress/train/training_pass.h"
#include "compress/weight.h"
#include "passes/quantize/activation_sites.h"
#include "passes/quantize/learned_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

namespace compress {

struct QuantizeLsqOptions {
  int bits = 4;
  int activations = 4;
  int ends = 8;
  Granularity granularity = Granularity::tensor();
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("bits", bits, "Bits of a weight's code, around zero.").range(2, 8);
    field("activations", activations,
          "Bits of the inputs of the same layers, one step a tensor; 0: they stay as they are.")
        .range(0, 8);
    field("ends", ends,
          "Bits of weights and inputs of the model's first and last layer; 0: as all others.")
        .range(0, 8);
    field("granularity", granularity, "What shares a weight's step: `tensor` or `channel`.");
    field("where", where, "The weights to quantize.");
  }
  void validate(Problems& problems) const {
    if (activations == 1) problems.add("activations", "one bit is too few", "use 2 to 8, or 0");
    if (ends == 1) problems.add("ends", "one bit is too few", "use 2 to 8, or 0");
    if (granularity.kind == Granularity::Kind::kGroup) {
      problems.add("granularity", "groups cannot share a step here", "use `tensor` or `channel`");
    }
  }
};

namespace {

constexpr double kLeastStep = 1e-8;  // a step stays positive
constexpr std::string_view kStep = "_step", kZero = "_step_zero", kInput = "_input",
                           kMean = "_mean_of_magnitudes", kLeast = "_least";
constexpr const char* kPerTensor = "aten::_fake_quantize_learnable_per_tensor_affine";
constexpr const char* kPerChannel = "aten::_fake_quantize_learnable_per_channel_affine";

class LsqHook final : public TrainingHook {
 public:
  explicit LsqHook(QuantizeLsqOptions options) : options_(std::move(options)) {}

  void attach(Training& training) override {
    Model& model = training.model;
    const std::vector<Weight> all = weights(model);
    for (Weight& weight : weights(model, options_.where)) {
      if (!weight.stored()) {
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("is {} and has no elements to train", weight.encoding()),
                    weight.name(), "train before the weights are quantized");
      }
      const bool end = is_end(all, weight);
      if (options_.activations > 0) observe_input(model, weight, all);
      round_weight(model, weight, end ? options_.ends : options_.bits);
    }
  }

  // The first steps of activations follow from the batch that has just been seen.
  void after_step(Training& training) override {
    const at::NoGradGuard no_grad;
    Model& model = training.model;
    if (const std::vector<std::string> seen = observed(model); !seen.empty()) {
      for (const std::string& base : seen) start_rounding(training, base);
      stop_observing(model);
    }
    for (const Node* node : roundings(model)) {
      at::Tensor(model.tensor(node->arguments()[1].value()->name())).clamp_min_(kLeastStep);
    }
  }

  void finish(Training& training) override {
    Model& model = training.model;
    for (const std::string& base : observed(model)) {
      training.context.message(fmt::format("{}: left alone, no step of training was made", base));
    }
    stop_observing(model);
    int64_t elements = 0, activations = 0;
    for (Node* node : roundings(model)) {
      const std::string step = node->arguments()[1].value()->name();
      const std::string base = step.substr(0, step.size() - kStep.size());
      if (base.ends_with(kInput)) {
        make_static(model, node);
        ++activations;
      } else {
        elements += pack(model, node);
      }
    }
    model.remove_dead();  // steps and their zeros
    training.context.count("weights_quantized", elements);
    training.context.count("activations_quantized", activations);
  }

 private:
  // Whether it is the first or the last layer and has bits of its own.
  bool is_end(const std::vector<Weight>& all, const Weight& weight) const {
    const auto same_layer = [&](const Weight& other) {  // a shared weight has none
      return other.layer() == nullptr ? other.name() == weight.name()
                                      : other.layer() == weight.layer();
    };
    return options_.ends > 0 && (same_layer(all.front()) || same_layer(all.back()));
  }

  // What the tensors of a layer's input begin with: its module, or its output where the module has
  // several layers.
  static std::string input_base(const std::vector<Weight>& all, const Weight& weight) {
    const bool shared = std::any_of(all.begin(), all.end(), [&](const Weight& other) {
      return other.module_path() == weight.module_path() && other.layer() != weight.layer();
    });
    const std::string name =
        shared ? std::string(weight.layer()->output()->name()) : weight.module_path();
    return name + std::string(kInput);
  }

  static std::vector<Node*> roundings(Model& model) {
    std::vector<Node*> found;
    for (Node& node : model.graph().nodes()) {
      if (node.op() == kPerTensor || node.op() == kPerChannel) found.push_back(&node);
    }
    return found;
  }

  void round_weight(Model& model, const Weight& weight, int bits) const {
    const at::NoGradGuard no_grad;
    const CodeRange codes = code_range(bits, true);
    const bool whole = options_.granularity.kind == Granularity::Kind::kTensor;
    const at::Tensor magnitudes = as_matrix(weight.effective(), weight.output_dim()).abs();
    const at::Tensor mean = whole ? magnitudes.mean().view({1}) : magnitudes.mean(1);
    const double factor = step_gradient_factor(weight.elements() / mean.numel(), codes);
    Graph::Call call{
        whole ? kPerTensor : kPerChannel, {weight.value()}, {}, {}, 1, weight.module_path()};
    add_step(model, weight.name(), first_step(mean.to(at::kFloat), codes), call);
    if (!whole) call.arguments.emplace_back(weight.output_dim());
    add_range(codes, factor, call);
    Node* first = UseMap(model.graph()).first_node(weight.value());
    Node* rounding = model.graph().insert(first, std::move(call));
    rounding->output()->type = weight.value()->type;
    model.graph().replace_uses(weight.value(), rounding->output(), rounding);
  }

  // The parameter `<base>_step` and the zero that goes with it, as arguments.
  static void add_step(Model& model, const std::string& base, const at::Tensor& start,
                       Graph::Call& call) {
    call.arguments.emplace_back(model.add_tensor(
        base + std::string(kStep), start.clone().set_requires_grad(true), TensorRole::kParameter));
    call.arguments.emplace_back(
        model.add_tensor(base + std::string(kZero), at::zeros_like(start), TensorRole::kBuffer));
  }

  static void add_range(const CodeRange& codes, double factor, Graph::Call& call) {
    for (const Argument& more : {Argument(codes.low), Argument(codes.high), Argument(factor)}) {
      call.arguments.push_back(more);
    }
  }

  // Watches the input of the layer until there was a batch. The step is there for the optimizer,
  // and gets its value, and gradients, afterwards.
  static void observe_input(Model& model, const Weight& weight, const std::vector<Weight>& all) {
    Node* layer = weight.layer();
    Value* input = layer == nullptr ? nullptr : activation_of(*layer).value();
    if (input == nullptr || input->is_named_tensor() || input == weight.value()) return;
    if (input->type.dtype && !c10::isFloatingType(*input->type.dtype)) return;
    features_of(*input);
    const std::string base = input_base(all, weight);
    if (model.find_tensor(base + std::string(kStep))) return;  // a layer of several weights
    const auto numbers = weight.effective().options().dtype(at::kFloat);
    Graph::Call unused;
    add_step(model, base, at::ones({1}, numbers), unused);
    Graph& graph = model.graph();
    const auto insert = [&](const char* op, std::vector<Argument> arguments) {
      return graph.insert(layer, {op, std::move(arguments), {}, {}, 1, layer->module_path})
          ->output();
    };
    Value* wide = insert("aten::to.dtype", {input, at::kFloat});
    Value* mean = insert("aten::mean", {insert("aten::abs", {wide})});
    Value* least = insert("aten::min", {wide});
    std::vector<Output> updates = graph.updates();
    for (const auto& [what, value] : {std::pair(kMean, mean), std::pair(kLeast, least)}) {
      const std::string name = base + std::string(what);
      model.add_tensor(name, at::zeros({}, numbers), TensorRole::kBuffer);
      updates.push_back({name, value});
    }
    graph.set_updates(std::move(updates));
  }

  static const Argument& activation_of(const Node& layer) {
    return layer.arguments()[layer.op() == "aten::addmm" ? 1 : 0];
  }

  // Elements of a sample.
  static int64_t features_of(const Value& input) {
    int64_t features = 1;
    bool known = input.type.sizes.has_value() && !input.type.sizes->empty();
    for (size_t i = 1; known && i < input.type.sizes->size(); ++i) {
      const Dim& dim = (*input.type.sizes)[i];
      known = dim.size > 0;
      features *= dim.size;
    }
    if (known) return features;
    throw Error(ErrorCode::kUnsupported, "has sizes that are not known before it runs",
                input.name(), "set `activations` to 0");
  }

  // The layers, as `<layer>_input`, whose inputs are being watched.
  static std::vector<std::string> observed(const Model& model) {
    std::vector<std::string> found;
    for (const Output& update : model.graph().updates()) {
      if (!update.name.ends_with(std::string(kInput) + std::string(kMean))) continue;
      found.push_back(update.name.substr(0, update.name.size() - kMean.size()));
    }
    return found;
  }

  void start_rounding(Training& training, const std::string& base) const {
    Model& model = training.model;
    Node* layer = nullptr;
    bool end = false;
    const std::vector<Weight> all = weights(model);
    for (const Weight& weight : all) {
      if (weight.layer() == nullptr || input_base(all, weight) != base) continue;
      layer = weight.layer();
      end = is_end(all, weight);
    }
    COMPRESS_CHECK(layer != nullptr, "the layer whose input was observed");
    const CodeRange codes = code_range(end ? options_.ends : options_.activations,
                                       model.tensor(base + std::string(kLeast)).item<float>() < 0);
    Value* step = model.graph().find(base + std::string(kStep));
    const at::Tensor first = first_step(model.tensor(base + std::string(kMean)), codes).view({1});
    at::Tensor(model.tensor(step->name())).copy_(first);
    // A moving average must not begin at the placeholder; the optimizer has no state of it yet.
    if (training.replaced) {
      training.replaced(step->name(), [&](const at::Tensor&) { return first.clone(); });
    }
    Value* wide = nullptr;
    for (const Output& update : model.graph().updates()) {
      if (update.name != base + std::string(kLeast)) continue;
      wide = update.value.value()->producer()->arguments()[0].value();
    }
    Value* input = wide->producer()->arguments()[0].value();
    Graph::Call call{kPerTensor, {wide, step, model.graph().find(base + std::string(kZero))},
                     {},         {},
                     1,          layer->module_path};
    add_range(codes, step_gradient_factor(features_of(*input), codes), call);
    Node* rounding = model.graph().insert(layer, std::move(call));
    rounding->output()->type = input->type;
    model.graph().set_argument(layer, layer->op() == "aten::addmm" ? 1 : 0, rounding->output());
  }

  static void stop_observing(Model& model) {
    std::vector<Output> updates = model.graph().updates();
    std::erase_if(updates, [](const Output& update) {
      return update.name.ends_with(std::string(kInput) + std::string(kMean)) ||
             update.name.ends_with(std::string(kInput) + std::string(kLeast));
    });
    model.graph().set_updates(std::move(updates));
    model.remove_dead();
  }

  // A learned step becomes a plain fake quantization.
  static void make_static(Model& model, Node* rounding) {
    const std::vector<Argument>& arguments = rounding->arguments();
    const double step = model.tensor(arguments[1].value()->name()).item<double>();
    Value* fixed = fake_quantize(
        model.graph(), rounding, arguments[0].value()->producer()->arguments()[0].value(),
        {step, 0, std::get<int64_t>(arguments[3].data()), std::get<int64_t>(arguments[4].data())});
    model.graph().replace_uses(rounding->output(), fixed);
    model.graph().erase(rounding);
  }

  // Returns how many weights it has packed.
  static int64_t pack(Model& model, Node* rounding) {
    Value* value = rounding->arguments()[0].value();
    const bool whole = rounding->op() == kPerTensor;
    const int64_t high = rounding->arguments()[whole ? 4 : 5].as<int64_t>();
    const int bits = static_cast<int>(std::lround(std::log2(high + 1))) + 1;
    const at::Tensor step = model.tensor(rounding->arguments()[1].value()->name()).detach();
    model.graph().replace_uses(rounding->output(), value);
    model.graph().erase(rounding);
    for (Weight& weight : weights(model)) {
      if (weight.value() != value) continue;
      weight.encode(quantize_with_step(weight.effective(), step, weight.output_dim(), bits));
      return weight.elements();
    }
    return 0;
  }

  QuantizeLsqOptions options_;
};

}  // namespace

class QuantizeLsq final : public TrainingPassWith<QuantizeLsqOptions> {
 public:
  static constexpr PassInfo kInfo{
      "quantize.lsq",   "Trains with rounded weights and activations whose steps are trained, too",
      Needs::kTraining, Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel, "Esser et al., Learned Step Size Quantization, ICLR 2020"};

  std::unique_ptr<TrainingHook> hook(const Options& options) const override {
    return std::make_unique<LsqHook>(options);
  }
};

COMPRESS_PASS(QuantizeLsq)

}  // namespace compress
