// Keeps n of every m weights along the input channels.
//
// The pattern that sparse tensor cores and other hardware speed up (2:4): in a linear layer m
// neighbours in a row of [out, in]; in a convolution m neighbouring input channels at each position
// of the kernel. Zhou et al., ICLR 2021, name it N:M.

#include "compress/pass.h"
#include "compress/weight.h"
#include "passes/prune/keep_n_of_m.h"

#include <fmt/format.h>

namespace compress {

struct PruneNMOptions {
  int64_t n = 2;
  int64_t m = 4;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("n", n, "How many weights of each run stay, at most.").range(1, 1024);
    field("m", m, "Length of a run along the input channels; the last may be shorter.")
        .range(1, 1024);
    field("where", where,
          "The weights to prune; those with fewer than `m` input channels (of a group) are left "
          "alone, and a message says so.");
  }
  void validate(Problems& problems) const {
    if (n > m) problems.add("n", fmt::format("{} of {} cannot stay", n, m), "n is at most m");
  }
};

class PruneNM final : public PassWith<PruneNMOptions> {
 public:
  static constexpr PassInfo kInfo{
      "prune.n_m",
      "Keeps the n largest of every m weights along the input channels",
      Needs::kWeights,
      Keeps::kShapes | Keeps::kDtypes,
      Locality::kTensor,
      "Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch, ICLR "
      "2021"};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    std::vector<Weight> selected = weights(model, options.where);
    int64_t zeroed = 0, done = 0;
    for (Weight& weight : selected) {
      const int64_t inputs = input_channels(weight);
      if (inputs < options.m) {
        context.message(fmt::format("{}: left alone, its {} input channels make no run of {}",
                                    weight.name(), inputs, options.m));
        context.count("weights_left_alone");
        continue;
      }
      if (!context.begin(weight.name())) break;
      const at::Tensor effective = weight.effective();
      zeroed += weight.set_mask(keep(weight, effective, options));
      context.progress(++done, static_cast<int64_t>(selected.size()));
    }
    context.count("weights_zeroed", zeroed);
    return zeroed > 0 ? Change::kSome : Change::kNone;
  }

 private:
  // A transposed convolution has the input channels of all its groups in one dimension.
  static int64_t dense_groups(const Weight& weight) {
    const bool joined = weight.kind() == OperatorKind::kConv && weight.input_dim() == 0;
    return joined ? weight.groups() : 1;
  }

  static int64_t input_channels(const Weight& weight) {
    return weight.sizes()[weight.input_dim()] / dense_groups(weight);
  }

  static at::Tensor keep(const Weight& weight, const at::Tensor& effective,
                         const Options& options) {
    const int64_t groups = dense_groups(weight);
    const std::string& name = weight.name();
    if (groups == 1) return keep_n_of_m(effective, options.n, options.m, weight.input_dim(), name);
    const at::Tensor split = effective.reshape({groups, effective.size(0) / groups, -1});
    return keep_n_of_m(split, options.n, options.m, 1, name).view(effective.sizes());
  }
};

COMPRESS_PASS(PruneNM)

}  // namespace compress
