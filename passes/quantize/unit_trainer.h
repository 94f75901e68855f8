// The loop of a reconstruction on one unit, its samples at hand.

#pragma once

#include "compress/model.h"
#include "passes/quantize/reconstruct.h"
#include "passes/quantize/reconstruction_units.h"
#include "passes/quantize/serial_workers.h"
#include "passes/quantize/weight_variable.h"

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace compress {

/// Samples of a run without gradients.
inline constexpr int64_t kRunSamples = 64;

/// What a unit is fed and what is to come out, all samples.
struct UnitSamples {
  std::vector<at::Tensor> quantized;  ///< its inputs, from the network quantized so far
  std::vector<at::Tensor> full;  ///< the same from the full-precision network; needed for a drop
  at::Tensor target;             ///< the full-precision output of `full`
  at::Tensor logits;             ///< what the network predicts; where a loss asks for it
  int64_t count() const { return target.size(0); }
};

/// A value that some layers of the unit read rounded: codes 0 .. 2^bits - 1.
struct RoundedActivation {
  std::string value;                ///< its name
  std::vector<std::string> layers;  ///< the outputs of the layers that read it
  int bits = 8;
  int64_t zero_point = 0;
  at::Tensor step;             ///< float [1], a leaf with gradients
  std::vector<int64_t> sizes;  ///< of a sample
};

/// A unit cut out of the network, to be run with weights and steps of one's choice. Every weight is
/// a plain tensor of its name.
Model extract_unit(const Model& model, const ReconstructionUnit& unit);

/// What came of a unit.
struct UnitOutcome {
  std::vector<QuantizedTensor> codes;        ///< of the weights, in their order
  std::vector<double> steps;                 ///< of the activations
  std::map<std::string, at::Tensor> biases;  ///< those that have moved
  /// Mean squared difference to the target on the inputs from the quantized network, relative to
  /// the target's mean square, elements weighed as in the loss; and what it is with nearest codes.
  double error = 0, error_nearest = 0;
  int64_t undecided = 0;  ///< elements whose rounding was still open when the loop ended
  bool improved = true;   ///< false: the nearest codes were better and are what is here
};

class UnitTrainer {
 public:
  /// Makes a generator that depends on the recipe's seed, the unit and `part`.
  using Generators = std::function<at::Generator(const std::string& part)>;
  using Progress = std::function<void(int64_t steps)>;

  /// Errors are summed over `channel_dim` of the unit's output and averaged over all else.
  UnitTrainer(const Model& unit, std::vector<RoundedWeight> weights,
              std::vector<RoundedActivation> activations, UnitSamples samples, int64_t channel_dim,
              const Reconstruction& settings, SerialWorkers& workers);

  /// What a loss of predictions needs. `suffix` leads from the unit's output, its first input, to
  /// the predictions; `beside` are its other inputs, all samples.
  void predict_with(const Model& suffix, std::vector<at::Tensor> beside);
  /// Lets a bias of the unit move.
  void train_bias(const std::string& tensor);

  /// Learns codes and steps.
  UnitOutcome train(const Generators& generators, const Progress& progress);

  /// How many steps `train` takes.
  static int64_t steps(const Reconstruction& settings, bool rounds_activations);

 private:
  enum class Rounding { kNone, kAll, kSome };  // of activations
  struct Loss {
    double power = 2;
    bool mixed = false;  // inputs are drawn from both networks
    bool predicts = false;
  };
  struct Part;

  void make_models(Rounding rounding);
  void set(const std::string& name, const at::Tensor& tensor);
  void set_weights(const std::vector<QuantizedTensor>& codes);
  void train_weights(const Generators& generators, const Progress& progress);
  void train_steps(const Generators& generators, const Progress& progress);
  std::vector<at::Tensor> gradients(const at::Tensor& rows, const Loss& loss,
                                    const std::vector<at::Tensor>& leaves,
                                    std::vector<at::Generator>& generators);
  at::Tensor part_loss(const Part& part, const Loss& loss, at::Generator& generator);
  std::vector<at::Tensor> inputs(const at::Tensor& rows, bool mixed,
                                 at::Generator& generator) const;
  at::Tensor prediction_loss(const Part& part, const at::Tensor& output);
  void each_output(
      const std::function<void(const Part& part, int64_t chunk, const at::Tensor& output)>& take);
  int64_t chunks() const;
  void weigh_outputs();
  at::Tensor weighed(const at::Tensor& errors, const at::Tensor& rows) const;
  double error();

  const Model& unit_;
  std::vector<RoundedWeight> weights_;
  std::vector<RoundedActivation> activations_;
  UnitSamples samples_;
  int64_t channel_dim_;
  Reconstruction settings_;
  SerialWorkers& workers_;
  std::vector<Model> models_, suffixes_;  // one a worker
  std::vector<at::Tensor> beside_;
  at::Tensor importance_;  // of the target's elements; undefined: all the same
  std::map<std::string, at::Tensor> biases_;
  std::vector<QuantizedTensor> codes_;
  int64_t undecided_ = 0;
};

}  // namespace compress
