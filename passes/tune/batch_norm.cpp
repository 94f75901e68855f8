// Fits the statistics of batch norms to the weights that stand in front of them now.
//
// Rounded or pruned weights give outputs of other mean and variance than those that the norm keeps;
// putting that right costs one run over unlabelled data and often most of what was lost. What was
// kept comes from training data with their random crops and flips, so replacing it by what a few
// plain images show harms a network that was fine. Hence `shift`: original and compressed network
// see the same images, and only the difference between them moves what was kept.
// Sun et al., "Hybrid 8-bit Floating Point Training and Inference for Deep Neural Networks",
// NeurIPS 2019, and Hubara et al., "Improving Post Training Neural Quantization: Layer-wise
// Calibration and Integer Programming", 2020, section 5, re-estimate as `data` does.

#include "compress/calibrate/walk.h"
#include "compress/graph/interpreter.h"
#include "compress/graph/kept_channels.h"
#include "compress/pass.h"
#include "passes/batch_norm_node.h"
#include "passes/tune/channel_moments.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <map>
#include <optional>
#include <set>
#include <unordered_map>

namespace compress {

enum class TuneMode {
  kShift,  ///< by what differs from the original network
  kData,   ///< replaced by what is seen
};
inline std::vector<std::string_view> option_names(TuneMode) { return {"shift", "data"}; }

struct TuneBatchNormOptions {
  TuneMode mode = TuneMode::kShift;

  template <class Visitor>
  void visit(Visitor& field) {
    field(
        "mode", mode,
        "Move the statistics by what has changed since the recipe began, or replace them by those "
        "of the `data`.");
  }
};

namespace {

// What a norm is called: the name of its running mean without the ending.
std::string norm_name(const Node& norm) {
  constexpr std::string_view kEnding = ".running_mean";
  std::string name = norm_value(norm, "running_mean")->name();
  if (name.ends_with(kEnding)) name.resize(name.size() - kEnding.size());
  return name;
}

std::vector<Node*> norms_with_statistics(Model& model) {
  std::vector<Node*> norms;
  for (Node& node : model.graph().nodes()) {
    if (!is_batch_norm(node)) continue;
    if (norm_tensor(model, node, "running_mean").defined() &&
        norm_tensor(model, node, "running_var").defined()) {
      norms.push_back(&node);
    }
  }
  return norms;
}

void require_norms(const std::vector<Node*>& norms) {
  if (norms.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "the model has no batch norm with statistics", "",
                "if fold.batch_norm comes before this step, put it behind");
  }
  for (const Node* norm : norms) {
    if (!is_training(*norm)) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "is in training mode, where its statistics move by themselves", norm_name(*norm),
                "put the model into eval mode");
  }
}

// What enters the norms of a model on data, by their names.
std::map<std::string, ChannelMoments> measure(const Model& model, const BatchSource& batches) {
  std::unordered_map<const Value*, std::vector<std::string>> names;
  for (const Node& node : model.graph().nodes()) {
    if (is_batch_norm(node) && norm_tensor(model, node, "running_mean").defined()) {
      names[node.arguments()[0].value()].push_back(norm_name(node));
    }
  }
  std::map<std::string, ChannelMoments> moments;
  const c10::NoGradGuard no_grad;
  Interpreter interpreter(model);
  batches([&](const std::vector<at::Tensor>& inputs) {
    interpreter.run(inputs, [&](const Value& value, const c10::IValue& content) {
      const auto found = names.find(&value);
      if (found == names.end()) return;
      for (const std::string& name : found->second) moments[name].add(content.toTensor());
    });
  });
  return moments;
}

}  // namespace

class TuneBatchNorm final : public PassWith<TuneBatchNormOptions> {
 public:
  static constexpr PassInfo kInfo{
      "tune.batch_norm",
      "Fits the statistics of batch norms to the weights that stand in front of them now",
      Needs::kInputs,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kModel,
      "Hubara et al., Improving Post Training Neural Quantization: Layer-wise Calibration and "
      "Integer Programming, 2020"};

  void check(const Model& model, const Options&) const override {
    if (!model.is_tensor_set()) require_norms(norms_with_statistics(const_cast<Model&>(model)));
  }

  Change run(Model& model, const Options& options, PassContext& context) const override {
    const std::vector<Node*> norms = norms_with_statistics(model);
    require_norms(norms);
    std::map<std::string, ChannelMoments> originals;
    if (options.mode == TuneMode::kShift) {
      if (context.original == nullptr) {
        throw Error(ErrorCode::kInvalidArgument, "there is no original network to compare with",
                    "mode", "use `data`");
      }
      originals = measure(*context.original, context.calibration());
    }
    // Norm after norm: those behind see the outputs of those that are tuned already.
    Walk walk(model, context.calibration());
    int64_t tuned = 0, channels = 0, far_channels = 0;
    std::map<std::string, int64_t> uses;
    for (const Node* norm : norms) ++uses[norm_name(*norm)];
    std::set<std::string> done;
    for (Node* norm : norms) {
      const std::string name = norm_name(*norm);
      if (!done.insert(name).second) continue;
      if (!context.begin(name)) break;
      ChannelMoments seen;
      if (uses[name] > 1) {  // the walk has not come to all of them
        seen = measure(model, context.calibration()).at(name);
      } else {
        walk.advance(norm);
        for (const at::Tensor& batch : walk.at(norm->arguments()[0].value())) seen.add(batch);
      }
      const RunningStatistics kept{norm_tensor(model, *norm, "running_mean"),
                                   norm_tensor(model, *norm, "running_var")};
      RunningStatistics fitted{seen.mean.to(kept.mean.scalar_type()),
                               seen.unbiased_variance().to(kept.variance.scalar_type())};
      if (options.mode == TuneMode::kShift) {
        const auto original = original_of(*norm, name, originals, *context.original, model);
        if (!original) {
          context.message(fmt::format(
              "{}: statistics are those of the data, the original network has no such norm", name));
          context.count("norms_not_compared");
        } else {
          int64_t far = 0;
          fitted = moved_statistics(original->running, original->moments, seen, &far);
          far_channels += far;
        }
      }
      channels += seen.mean.numel();
      tuned += put(model, *norm, kept, fitted) ? 1 : 0;
    }
    context.count("norms_tuned", tuned);
    if (far_channels > 0) {
      context.count("channels_replaced", far_channels);
      context.message(fmt::format(
          "{} of {} channels are too far from the original's and have the statistics of the data",
          far_channels, channels));
    }
    return tuned > 0 ? Change::kSome : Change::kNone;
  }

 private:
  // What the same channels were in the original network.
  struct OriginalNorm {
    ChannelMoments moments;
    RunningStatistics running;  // not those of `model`, which a pass before may have moved
  };

  static std::optional<OriginalNorm> original_of(
      const Node& norm, const std::string& name,
      const std::map<std::string, ChannelMoments>& originals, const Model& original,
      const Model& model) {
    const auto found = originals.find(name);
    if (found == originals.end()) return std::nullopt;
    const auto places = channels_in(original, model, norm_value(norm, "running_mean")->name());
    if (!places) return std::nullopt;
    const at::Tensor index = at::tensor(*places, at::kLong);
    const ChannelMoments& all = found->second;
    const auto kept = [&](const char* argument) {
      return original.tensor(norm_value(norm, argument)->name()).detach().index_select(0, index);
    };
    return OriginalNorm{
        {all.mean.index_select(0, index), all.variance.index_select(0, index), all.count},
        {kept("running_mean"), kept("running_var")}};
  }

  // Whether anything has changed.
  static bool put(Model& model, const Node& norm, const RunningStatistics& kept,
                  const RunningStatistics& fitted) {
    if (at::equal(kept.mean, fitted.mean) && at::equal(kept.variance, fitted.variance)) {
      return false;
    }
    model.set_tensor(norm_value(norm, "running_mean")->name(), fitted.mean);
    model.set_tensor(norm_value(norm, "running_var")->name(), fitted.variance);
    return true;
  }
};

COMPRESS_PASS(TuneBatchNorm)

}  // namespace compress
