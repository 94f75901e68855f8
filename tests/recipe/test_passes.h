// Passes that do one simple thing, honestly or not, to see what the manager makes of it.

#pragma once

#include "compress/pass.h"
#include "compress/registry.h"
#include "compress/weight.h"
#include "tests/support/errors.h"

#include <ATen/ATen.h>

#include <fmt/format.h>

#include <string>
#include <vector>

namespace compress::testing {

enum class Flavor { kSweet, kSour };
inline std::vector<std::string_view> option_names(Flavor) { return {"sweet", "sour"}; }

struct ScaleOptions {
  double factor = 2;
  int64_t times = 1;
  bool secretly = false;  // change, but say nothing
  Flavor flavor = Flavor::kSweet;
  Scope scope = Scope::kTensor;
  Granularity granularity;
  std::vector<int64_t> numbers;
  std::string label = "plain";
  Selector where = Selector::weights();

  template <class Visitor>
  void visit(Visitor& field) {
    field("factor", factor, "What weights are multiplied by.").range(-1e300, 1e300);
    field("times", times, "How often.").range(0, 8);
    field("secretly", secretly, "Whether to lie about it.");
    field("flavor", flavor, "Nothing but a name.");
    field("scope", scope, "A scope.");
    field("granularity", granularity, "A granularity.");
    field("numbers", numbers, "Some numbers.").at_least(1);
    field("label", label, "A text.");
    field("where", where, "The weights to scale.");
  }
  void validate(Problems& problems) const {
    if (secretly && times == 0) problems.add("times", "0 leaves nothing to be secret about");
  }
};

class TestScale final : public PassWith<ScaleOptions> {
 public:
  static constexpr PassInfo kInfo{"test.scale", "Scales weights", Needs::kWeights,
                                  Keeps::kShapes | Keeps::kDtypes};

  Change run(Model& model, const Options& options, PassContext& context) const override {
    if (options.times == 0) return Change::kNone;
    for (Weight& weight : weights(model, options.where)) {
      if (!context.begin(weight.name())) break;
      for (int64_t i = 0; i < options.times; ++i) {
        weight.replace(weight.effective() * options.factor);
      }
      context.count("scaled");
    }
    context.measure("factor", options.factor);
    context.message("scaled by " + fmt::format("{}", options.factor));
    return options.secretly ? Change::kNone : Change::kSome;
  }
};

struct NoOptions {
  template <class Visitor>
  void visit(Visitor&) {}
};

/// Says that it keeps outputs, and does not.
class TestLiar final : public PassWith<NoOptions> {
 public:
  static constexpr PassInfo kInfo{"test.liar", "Breaks its promise", Needs::kWeights,
                                  Keeps::kShapes | Keeps::kOutputs};
  Change run(Model& model, const Options&, PassContext&) const override {
    for (Weight& weight : weights(model)) weight.replace(weight.effective() + 1);
    return Change::kSome;
  }
};

/// Adds noise from the context's generator.
class TestNoise final : public PassWith<NoOptions> {
 public:
  static constexpr PassInfo kInfo{"test.noise", "Adds noise", Needs::kWeights, Keeps::kShapes};
  Change run(Model& model, const Options&, PassContext& context) const override {
    for (Weight& weight : weights(model)) {
      const at::Tensor old = weight.effective();
      weight.replace(old + at::randn(old.sizes(), context.generator(weight.name())));
    }
    return Change::kSome;
  }
};

/// Calls an operator with tensors that do not fit.
class TestBroken final : public PassWith<NoOptions> {
 public:
  static constexpr PassInfo kInfo{"test.broken", "Fails in an operator"};
  Change run(Model&, const Options&, PassContext& context) const override {
    context.begin("fc.weight");
    at::mm(at::zeros({2, 3}), at::zeros({2, 3}));
    return Change::kNone;
  }
};

/// Divides each weight by the greatest input that its layer saw.
class TestCalibrated final : public PassWith<NoOptions> {
 public:
  static constexpr PassInfo kInfo{"test.calibrated", "Needs data", Needs::kInputs};
  Wishes wishes(const Model&, const Options&) const override { return {{"x"}}; }
  Change run(Model& model, const Options&, PassContext& context) const override {
    const at::Tensor greatest = context.statistics().at({"x"})[1];
    for (Weight& weight : weights(model)) weight.replace(weight.effective() / greatest);
    return Change::kSome;
  }
};

inline PassRegistry test_passes() {
  PassRegistry registry;
  registry.add(make_pass<TestScale>());
  registry.add(make_pass<TestLiar>());
  registry.add(make_pass<TestNoise>());
  registry.add(make_pass<TestBroken>());
  registry.add(make_pass<TestCalibrated>());
  return registry;
}

}  // namespace compress::testing
