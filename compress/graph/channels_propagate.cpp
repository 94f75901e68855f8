// Labels of all channels of a model, as its operators demand them.

#include "compress/graph/channels_propagate.h"

#include "compress/error.h"
#include "compress/graph/boxing.h"
#include "compress/graph/concrete_sizes.h"
#include "compress/graph/scalar_ops.h"
#include "compress/graph/schema.h"

#include <ATen/core/jit_type.h>

#include <fmt/format.h>

namespace compress {
namespace {

class Propagation {
 public:
  explicit Propagation(const Model& model) : model_(model) { all_.sizes = concrete_sizes(model); }

  PropagatedChannels run() {
    const Graph& graph = model_.graph();
    for (const Value* input : graph.inputs()) {
      if (input->kind() == ValueKind::kTensor) give_input(input);
    }
    for (const Value* value : graph.named_tensors()) {
      TensorChannels& channels = all_.values[value];
      for (const int64_t size : all_.sizes.at(value)) {
        channels.add(all_.labels.fresh(size), true);
      }
    }
    for (const Node& node : graph.nodes()) follow(node);
    for (const Output& output : graph.outputs()) {
      output.value.each_value([&](const Value* value) {
        if (value->kind() == ValueKind::kTensor) {
          freeze(value, nullptr, fmt::format("is the output `{}`", output.name));
        }
      });
    }
    for (const Output& update : graph.updates()) join_update(update);
    const UseMap uses(graph);
    for (const Value* value : graph.named_tensors()) {
      if (uses.of(value).empty()) freeze(value, nullptr, "is used by nothing");
    }
    all_.labels.solve();
    return std::move(all_);
  }

 private:
  // Labels of its own, so that what meets them can say why it stays; the batch is no channel.
  void give_input(const Value* input) {
    constexpr int64_t kMostChannels = 4096;
    TensorChannels channels;
    for (const int64_t size : all_.sizes[input]) {
      const bool counts = !channels.labels.empty() && size <= kMostChannels;
      channels.add(counts ? all_.labels.fresh(size) : all_.labels.stays(size), false);
    }
    all_.values[input] = std::move(channels);
    freeze(input, nullptr, fmt::format("meets the input `{}`", input->name()));
  }

  void give_fixed(const Value* value) {
    TensorChannels channels;
    for (const int64_t size : all_.sizes[value]) channels.add(all_.labels.stays(size), false);
    all_.values[value] = std::move(channels);
  }

  void freeze(const Value* value, const Node* node, const std::string& why) {
    for (const Labels& labels : all_.values.at(value).labels) {
      all_.labels.freeze(labels, node, why);
    }
  }

  void follow(const Node& node) {
    follow_scalars(node);
    const ChannelRule rule = node.schema() == nullptr && is_scalar_op(node.op())
                                 ? [](RuleCall&) {}
                                 : find_channel_rule(node.op());
    if (rule == nullptr) return give_up(node, "has no rule for channels");
    try {
      RuleCall call(model_, node, all_.labels, all_.values, all_.sizes, scalars_);
      rule(call);
      call.finish();
      for (const Value* output : node.outputs()) {
        if (output->kind() == ValueKind::kTensor && !all_.values.contains(output)) {
          throw NoChannelRule{"has results that its rule does not know"};
        }
      }
    } catch (const NoChannelRule& no_rule) {
      give_up(node, no_rule.why);
    } catch (const std::out_of_range&) {  // an argument or a dimension that is not there
      give_up(node, "has another form than its rule expects");
    } catch (const std::bad_variant_access&) {
      give_up(node, "has other arguments than its rule expects");
    }
  }

  void give_up(const Node& node, const std::string& why) {
    for (const Argument& argument : node.arguments()) {
      argument.each_value([&](const Value* value) {
        if (value->kind() == ValueKind::kTensor) freeze(value, &node, why);
      });
    }
    for (const Value* output : node.outputs()) {
      if (output->kind() == ValueKind::kTensor) give_fixed(output);
    }
  }

  // Numbers that are computed from sizes, as views need them.
  void follow_scalars(const Node& node) {
    if (node.op() == "aten::sym_size.int") {
      const auto found = all_.sizes.find(node.argument("self").value());
      const Argument& dim = node.argument("dim");
      if (found == all_.sizes.end() || !dim.is_int()) return;
      const auto rank = static_cast<int64_t>(found->second.size());
      scalars_[node.output()] = found->second.at(from_front(dim.as<int64_t>(), rank));
    } else if (is_scalar_op(node.op())) {
      std::vector<c10::IValue> operands;
      for (const Argument& argument : node.arguments()) {
        bool known = true;
        argument.each_value([&](const Value* value) { known = known && scalars_.contains(value); });
        if (!known) return;
        operands.push_back(
            box(argument, c10::AnyType::get(),
                [&](const Value* value) -> const c10::IValue& { return scalars_.at(value); }));
      }
      try {
        scalars_[node.output()] = apply_scalar_op(node.op(), operands);
      } catch (const Error&) {
        // Stays unknown; whoever needs it has no rule then.
      }
    }
  }

  // What a buffer becomes has the sizes of the buffer.
  void join_update(const Output& update) {
    const Value* buffer = model_.graph().find(update.name);
    if (buffer == nullptr) buffer = model_.graph().find(model_.find_tensor(update.name)->name);
    const Value* value = update.value.value();
    if (value == nullptr || value->kind() != ValueKind::kTensor) return;
    const TensorChannels &old = all_.values.at(buffer), &now = all_.values.at(value);
    for (int64_t d = 0; d < old.rank() && old.rank() == now.rank(); ++d) {
      all_.labels.join(old.labels[d], now.labels[d], nullptr);
    }
  }

  const Model& model_;
  PropagatedChannels all_;
  ScalarMap scalars_;
};

}  // namespace

PropagatedChannels propagate_channels(const Model& model) { return Propagation(model).run(); }

}  // namespace compress
