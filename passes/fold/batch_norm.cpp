// Folds batch norms into the convolution or linear layer in front of them.
//
// In eval mode a batch norm multiplies each channel by a constant and adds another, so that it can
// be part of the weights: the same outputs up to rounding, with fewer operators and tensors.
// Integer codes stay what they are, or are mirrored, and their scales take up the constant.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/batch_norm_node.h"
#include "passes/fold/fold_batch_norm.h"
#include "passes/layer_bias.h"
#include "passes/require_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

namespace compress {

struct FoldBatchNormOptions {
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("where", where, "The weights of the layers to fold into.");
  }
};

namespace {

// One batch norm with the layer in front of it.
struct Fold {
  Node* layer = nullptr;
  Node* norm = nullptr;
  Weight* weight = nullptr;
  std::optional<QuantizedTensor> codes;  // the folded weight, if it is quantized
  std::string obstacle;                  // why it cannot be done; empty if it can
};

class Folder {
 public:
  Folder(Model& model, std::vector<Weight>& weights) : model_(model) {
    for (Weight& weight : weights) {
      for (const WeightUse& use : weight.uses()) {
        if (use.layer) weight_of_.emplace(use.layer, &weight);
      }
    }
  }

  // All batch norms behind a layer with a selected weight, in the graph's order.
  std::vector<Fold> find() {
    const UseMap uses(model_.graph());
    std::vector<Fold> folds;
    for (Node& norm : model_.graph().nodes()) {
      if (!is_batch_norm(norm)) continue;
      const Value* input = norm.arguments()[0].value();
      Node* layer = input ? input->producer() : nullptr;
      const auto weight = weight_of_.find(layer);
      if (layer == nullptr || weight == weight_of_.end()) continue;
      const OperatorKind kind = operator_kind(*layer);
      if (kind != OperatorKind::kConv && layer->op() != "aten::linear" &&
          layer->op() != "aten::addmm") {
        continue;
      }
      Fold fold{layer, &norm, weight->second, {}, {}};
      fold.obstacle = obstacle(fold, uses);
      if (fold.obstacle.empty() && fold.weight->is_quantized()) find_codes(fold);
      folds.push_back(std::move(fold));
    }
    return folds;
  }

  void apply(const Fold& fold) {
    const BatchNorm norm = read_batch_norm(model_, *fold.norm);
    if (fold.codes) {
      const at::Tensor mask = fold.weight->mask();
      fold.weight->encode(*fold.codes);
      if (mask.defined()) fold.weight->set_mask(mask);
    } else {
      const at::Tensor stored = model_.tensor(fold.weight->stored()->name).detach();
      const bool grouped = fold.weight->kind() == OperatorKind::kConv;
      fold.weight->set_stored(scale_output_channels(stored, channel_factors(norm),
                                                    fold.weight->output_dim(),
                                                    grouped ? fold.weight->groups() : 1));
    }
    set_bias(model_, fold.layer, fold.weight->name(),
             folded_bias(bias_of(model_, *fold.layer), norm, fold.weight->dtype()));
    remove(fold.norm);
  }

 private:
  // Codes whose rows are not the channels, and those without a mirror image, cannot be folded into.
  void find_codes(Fold& fold) const {
    const QuantizedTensor& codes = *fold.weight->quantized();
    const at::Tensor factors = channel_factors(read_batch_norm(model_, *fold.norm));
    if (codes.channel_dim == fold.weight->output_dim() && codes.rows() == factors.numel()) {
      fold.codes = scale_rows(codes, factors);
    }
    if (!fold.codes) {
      fold.obstacle = "the weight's codes cannot express it; fold before quantizing";
    }
  }

  std::string obstacle(const Fold& fold, const UseMap& uses) const {
    const Weight& weight = *fold.weight;
    if (uses.of(fold.layer->output()).size() > 1) {
      return "the layer's output is used elsewhere too";
    }
    if (is_training(*fold.norm)) {
      return "the batch norm is in training mode, where it depends on the batch; put the model "
             "into "
             "eval mode";
    }
    if (!norm_tensor(model_, *fold.norm, "running_mean").defined())
      return "the batch norm keeps no statistics";
    for (size_t i = 1; i < fold.norm->outputs().size(); ++i) {
      if (!uses.of(fold.norm->outputs()[i]).empty()) return "its statistics are used elsewhere";
    }
    if (!weight.stored() && !weight.is_quantized()) {
      return "the weight is computed from other tensors";
    }
    if (weight.uses().size() > 1 ||
        (weight.stored() && uses.of(model_.graph().find(weight.stored()->name)).size() > 1)) {
      return "the weight is shared with another layer";
    }
    if (std::string why = bias_obstacle(model_, *fold.layer); !why.empty()) return why;
    const auto& sizes = fold.layer->output()->type.sizes;
    const bool conv = weight.kind() == OperatorKind::kConv;
    const size_t rank = conv ? weight.sizes().size() : 2;
    if (sizes && sizes->size() != rank) return "the channels are not dimension 1 of the output";
    if (!sizes && fold.layer->op() == "aten::linear") {
      return "it is unknown whether the channels are dimension 1 of the output";
    }
    const int64_t channels = norm_tensor(model_, *fold.norm, "running_mean").numel();
    const int64_t outputs = weight.sizes()[weight.output_dim()] *
                            (conv && weight.output_dim() == 1 ? weight.groups() : 1);
    return channels == outputs ? "" : "the numbers of channels differ";
  }

  // The node, its tensors if nothing else uses them, and the counter of its batches.
  void remove(Node* norm) {
    std::vector<std::string> names;
    for (std::string_view argument : {"weight", "bias", "running_mean", "running_var"}) {
      const Value* value = norm_value(*norm, argument);
      if (value && value->is_named_tensor()) names.push_back(value->name());
    }
    const Value* mean = norm_value(*norm, "running_mean");
    const std::string suffix = "running_mean";
    if (mean && mean->name().ends_with(suffix)) {
      std::string counter = mean->name();
      counter.replace(counter.size() - suffix.size(), suffix.size(), "num_batches_tracked");
      stop_update(counter);
      names.push_back(counter);
    }
    model_.graph().replace_uses(norm->output(), norm->arguments()[0].value());
    model_.graph().erase(norm);
    const UseMap uses(model_.graph());
    for (const std::string& name : names) {
      const NamedTensor* tensor = model_.find_tensor(name);
      const Value* value = tensor ? model_.graph().find(tensor->name) : nullptr;
      if (tensor && (!value || uses.of(value).empty())) model_.remove_tensor(name);
    }
  }

  void stop_update(const std::string& buffer) {
    Graph& graph = model_.graph();
    std::vector<Output> updates = graph.updates();
    const auto update = std::find_if(updates.begin(), updates.end(),
                                     [&](const Output& output) { return output.name == buffer; });
    if (update == updates.end()) return;
    Value* value = update->value.value();
    updates.erase(update);
    graph.set_updates(std::move(updates));
    if (value && value->producer() && UseMap(graph).of(value).empty())
      graph.erase(value->producer());
  }

  Model& model_;
  std::unordered_map<const Node*, Weight*> weight_of_;
};

}  // namespace

class FoldBatchNorm final : public PassWith<FoldBatchNormOptions> {
 public:
  static constexpr PassInfo kInfo{
      "fold.batch_norm",
      "Folds batch norms into the convolution or linear layer in front of them",
      Needs::kWeights,
      Keeps::kShapes | Keeps::kDtypes | Keeps::kOutputs,
      Locality::kModel,
      "Jacob et al., Quantization and Training of Neural Networks for Efficient "
      "Integer-Arithmetic-Only Inference, CVPR 2018"};

  void check(const Model& model, const Options&) const override {
    require_graph(model, "batch norms");
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    Folder folder(model, selected);
    int64_t folded = 0;
    for (const Fold& fold : folder.find()) {
      if (!fold.obstacle.empty()) {
        context.message(fmt::format("{}: left alone, {}", fold.weight->name(), fold.obstacle));
        context.count("batch_norms_left_alone");
        continue;
      }
      if (!context.begin(fold.weight->name())) break;
      folder.apply(fold);
      ++folded;
    }
    context.count("batch_norms_folded", folded);
    return folded > 0 ? Change::kSome : Change::kNone;
  }
};

COMPRESS_PASS(FoldBatchNorm)

}  // namespace compress
