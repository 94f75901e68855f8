// What a pass is: options, a card, and a function that edits a model.
//
// A pass is a file passes/<family>/<name>.cpp with a class `<Family><Name>` that derives from
// `PassWith<its options>`, has a `static constexpr PassInfo kInfo`, overrides `run`, and ends in
// COMPRESS_PASS(Class). One CMake line, `lathe_pass(family name)`, builds, tests and registers it.

#pragma once

#include "compress/calibrate/statistics.h"
#include "compress/error.h"
#include "compress/model.h"
#include "compress/options.h"
#include "compress/pass_context.h"
#include "compress/selector.h"

#include <memory>
#include <string_view>
#include <utility>

namespace compress {

struct Step;
struct TrainingEnvironment;

/// Whether `run` changed the model. The manager checks the answer by hash.
enum class Change { kNone, kSome };

/// What a pass needs to do its work.
enum class Needs : unsigned {
  kWeights = 0,    ///< nothing but the model
  kInputs = 1,     ///< calibration inputs
  kLabels = 2,     ///< their labels
  kGradients = 4,  ///< gradients of a loss
  kTraining = 8,   ///< a training loop
};
/// What a pass promises to keep. The manager checks it after every run.
enum class Keeps : unsigned {
  kNothing = 0,
  kShapes = 1,   ///< sizes of the model's inputs and outputs and of every weight's effective value
  kDtypes = 2,   ///< dtypes of the same
  kOutputs = 4,  ///< the outputs in eval mode, up to rounding
};
/// How much of the model a pass must see at once.
enum class Locality {
  kModel,   ///< all of it
  kTensor,  ///< one weight at a time: a model larger than memory can be streamed through the pass
};

constexpr Needs operator|(Needs a, Needs b) { return Needs(unsigned(a) | unsigned(b)); }
constexpr Keeps operator|(Keeps a, Keeps b) { return Keeps(unsigned(a) | unsigned(b)); }
constexpr bool has(Needs set, Needs flag) { return (unsigned(set) & unsigned(flag)) != 0; }
constexpr bool has(Keeps set, Keeps flag) { return (unsigned(set) & unsigned(flag)) != 0; }

/// The card of a pass.
struct PassInfo {
  std::string_view id;       ///< `prune.magnitude`
  std::string_view summary;  ///< a sentence without a full stop
  Needs needs = Needs::kWeights;
  Keeps keeps = Keeps::kNothing;
  Locality locality = Locality::kModel;
  std::string_view paper = {};  ///< authors, title, venue, year, for the pass's page
};

/// A pass as the manager sees it. Write passes with `PassWith`.
class Pass {
 public:
  virtual ~Pass() = default;
  const PassInfo& info() const { return *info_; }

  virtual std::unique_ptr<AnyOptions> default_options() const = 0;
  virtual Change run_any(Model& model, const AnyOptions& options, PassContext& context) const = 0;
  virtual Wishes wishes_any(const Model& model, const AnyOptions& options) const = 0;
  virtual void check_any(const Model& model, const AnyOptions& options) const = 0;
  virtual Locality locality_any(const AnyOptions& options) const = 0;
  /// Whether it works under `during` of a train step, and not as a step of its own.
  virtual bool is_hook() const { return false; }
  /// What a pass that trains finds wrong with its whole step before any work; `where` is its
  /// pointer.
  virtual void check_training(const Model&, const Step&, const TrainingEnvironment&,
                              const std::string& where, Problems&) const {}

 private:
  template <class Class>
  friend std::unique_ptr<Pass> make_pass();
  const PassInfo* info_ = nullptr;
};

/// The base of a pass with options of the given struct.
template <class OptionsStruct>
class PassWith : public Pass {
 public:
  using Options = OptionsStruct;

  /// Edits the model. Throws Error for what the user can change; the manager adds step and pass.
  /// Same model, options and context seed: same result, whatever the number of threads.
  virtual Change run(Model& model, const Options& options, PassContext& context) const = 0;
  /// The statistics that `run` wants to find in the context; asked right before `run`.
  virtual Wishes wishes(const Model&, const Options&) const { return {}; }
  /// Throws Error if the pass cannot work on this model; called before any step runs. Cheap.
  virtual void check(const Model&, const Options&) const {}
  /// How much it must see with these options (a threshold over the whole model sees all).
  virtual Locality locality(const Options&) const { return info().locality; }

  std::unique_ptr<AnyOptions> default_options() const final {
    return std::make_unique<OptionsOf<Options>>();
  }
  Change run_any(Model& model, const AnyOptions& options, PassContext& context) const final {
    return run(model, unwrap(options), context);
  }
  Wishes wishes_any(const Model& model, const AnyOptions& options) const final {
    return wishes(model, unwrap(options));
  }
  void check_any(const Model& model, const AnyOptions& options) const final {
    check(model, unwrap(options));
  }
  Locality locality_any(const AnyOptions& options) const final { return locality(unwrap(options)); }

 private:
  static const Options& unwrap(const AnyOptions& options) {
    return dynamic_cast<const OptionsOf<Options>&>(options).value;
  }
};

/// A pass object of a class that has a `kInfo`.
template <class Class>
std::unique_ptr<Pass> make_pass() {
  auto pass = std::make_unique<Class>();
  static_cast<Pass&>(*pass).info_ = &Class::kInfo;
  return pass;
}

}  // namespace compress

/// Ends the file of a pass: defines the function by which the generated registry finds it.
#define COMPRESS_PASS(Class)            \
  std::unique_ptr<Pass> make_##Class(); \
  std::unique_ptr<Pass> make_##Class() { return make_pass<Class>(); }
