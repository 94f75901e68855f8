// The losses that a recipe can name, and their options.
//
//   "losses": [{"cross_entropy": {"weight": 0.1}},
//              {"distill_logits": {"teacher": "original", "temperature": 4}},
//              {"attention": {"taps": ["layer1", "layer2", "layer3"]}}]
//
// Default weights and constants are those under which the methods' results were published
// (RepDistiller, mdistiller). A loss with several teachers is the mean of its terms. For
// `distill_logits` that has the gradient of the divergence from the mean of the teachers'
// distributions (which differ by a constant), so teachers are averaged as probabilities.

#pragma once

#include "compress/train/distill_losses.h"
#include "compress/train/loss_types.h"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace compress {

class Loss;

/// `cross_entropy` (compress/train/label_losses.h) of the first output against the labels.
struct CrossEntropyOptions {
  static constexpr std::string_view kName = "cross_entropy";
  double weight = 1;
  double label_smoothing = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("label_smoothing", label_smoothing, "Share of each label spread over all classes.")
        .range(0.0, 1.0);
  }
};

/// `mean_squared_error` of the first output against float labels, or against the first input where
/// the data has no labels (an autoencoder).
struct MeanSquaredErrorOptions {
  static constexpr std::string_view kName = "mean_squared_error";
  double weight = 1;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
  }
};

/// `kd_logits` of the first outputs.
struct DistillLogitsOptions {
  static constexpr std::string_view kName = "distill_logits";
  double weight = 0.9;  ///< beside 0.1 of the cross-entropy
  TeacherNames teacher;
  double temperature = 4;
  KlReduction reduction = KlReduction::kBatchMean;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose logits to follow; the mean over several teachers.");
    field("temperature", temperature, "Divides both sides' logits; the term grows by its square.")
        .at_least(1e-3);
    field("reduction", reduction,
          "Mean over predictions, or over predictions times classes as torch's default has it.");
  }
};

/// Whether a feature passes through a layer of its own before it is compared.
enum class AdapterKind { kAuto, kNone };
inline std::vector<std::string_view> option_names(AdapterKind) { return {"auto", "none"}; }

/// FitNets: `hint` at one place. Where the numbers of channels differ, the student's feature goes
/// through an adapter that is trained with it: a 1x1 convolution of [n, c, h, w], a linear layer on
/// the last dimension otherwise.
struct HintOptions {
  static constexpr std::string_view kName = "hint";
  double weight = 100;
  TeacherNames teacher;
  TapPair tap;
  AdapterKind adapter = AdapterKind::kAuto;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose feature to follow; the mean over several teachers.");
    field("tap", tap, "Where the feature is.");
    field("adapter", adapter, "A trained layer where numbers of channels differ, or none.");
  }
  void validate(Problems& problems) const { require_taps({tap}, "tap", problems); }
};

/// `attention_transfer`, summed over places.
struct AttentionOptions {
  static constexpr std::string_view kName = "attention";
  double weight = 1000;
  TeacherNames teacher;
  std::vector<TapPair> taps;
  AttentionForm form = AttentionForm::kSquared;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose attention to follow; the mean over several teachers.");
    field("taps", taps, "The places; their terms are summed.");
    field("form", form,
          "Mean of squared differences, or the paper's 2-norm (whose factor is beta/2).");
  }
  void validate(Problems& problems) const { require_taps(taps, "taps", problems); }
};

/// `similarity_preserving` at one place.
struct SimilarityOptions {
  static constexpr std::string_view kName = "similarity";
  double weight = 3000;
  TeacherNames teacher;
  TapPair tap;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose similarities to follow; the mean over several teachers.");
    field("tap", tap, "Where the features are.");
  }
  void validate(Problems& problems) const { require_taps({tap}, "tap", problems); }
};

/// Relational distillation: `relational_distance` and `relational_angle` at one place.
struct RelationsOptions {
  static constexpr std::string_view kName = "relations";
  double weight = 1;
  TeacherNames teacher;
  TapPair tap;
  double distance = 25;
  double angle = 50;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose relations to follow; the mean over several teachers.");
    field("tap", tap, "Where the features are.");
    field("distance", distance, "Factor of the relations between two samples.").at_least(0);
    field("angle", angle, "Factor of those between three; 0 saves their cost.").at_least(0);
  }
  void validate(Problems& problems) const { require_taps({tap}, "tap", problems); }
};

/// `decoupled_kd` of the first outputs. During the warm-up of W epochs the term counts 1/W in the
/// first epoch, 2/W in the second and so on.
struct DecoupledOptions {
  static constexpr std::string_view kName = "decoupled";
  double weight = 1;
  TeacherNames teacher;
  double alpha = 1;
  double beta = 8;
  double temperature = 4;
  int64_t warmup_epochs = 20;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose logits to follow; the mean over several teachers.");
    field("alpha", alpha, "Factor of the label's class against the rest.").at_least(0);
    field("beta", beta, "Factor of the rest among itself.").at_least(0);
    field("temperature", temperature, "Divides both sides' logits; the term grows by its square.")
        .at_least(1e-3);
    field("warmup_epochs", warmup_epochs,
          "Epochs until the term counts in full; 0: from the start.")
        .at_least(0);
  }
};

/// Contrastive representation distillation (compress/train/contrastive.h) at one place.
struct ContrastiveOptions {
  static constexpr std::string_view kName = "contrastive";
  double weight = 0.8;
  TeacherNames teacher;
  TapPair tap;
  int64_t dim = 128;
  int64_t negatives = 16384;
  double temperature = 0.07;
  double momentum = 0.5;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose features to follow; the mean over several teachers.");
    field("tap", tap, "Where the features are; best what enters the classifier.");
    field("dim", dim, "Dimensions of the space in which both sides are compared.").range(1, 65536);
    field("negatives", negatives, "Other samples that each sample is told from.").range(1, 1 << 20);
    field("temperature", temperature, "Divides the cosines.").at_least(1e-3);
    field("momentum", momentum, "What a remembered embedding keeps when its sample comes again.")
        .range(0.0, 1.0);
  }
  void validate(Problems& problems) const { require_taps({tap}, "tap", problems); }
};

/// How two features of equal sizes are compared.
enum class FeatureMetric { kRelative, kCosine };
inline std::vector<std::string_view> option_names(FeatureMetric) { return {"relative", "cosine"}; }

/// Block-wise errors: `feature_error` or `cosine_error`, summed over places.
struct FeatureErrorOptions {
  static constexpr std::string_view kName = "feature_error";
  double weight = 1;
  TeacherNames teacher;
  std::vector<TapPair> taps;
  FeatureMetric metric = FeatureMetric::kRelative;

  template <class Visitor>
  void visit(Visitor& field) {
    field("weight", weight, "Factor of the term.").at_least(0);
    field("teacher", teacher, "Whose features to follow; the mean over several teachers.");
    field("taps", taps, "The places; their terms are summed.");
    field("metric", metric,
          "Squared error relative to the teacher's energy, or 1 minus the cosine.");
  }
  void validate(Problems& problems) const { require_taps(taps, "taps", problems); }
};

using LossOptions = OneOf<CrossEntropyOptions, MeanSquaredErrorOptions, DistillLogitsOptions,
                          HintOptions, AttentionOptions, SimilarityOptions, RelationsOptions,
                          DecoupledOptions, ContrastiveOptions, FeatureErrorOptions>;

/// A term of the training loss. Throws Error(kInvalidArgument) with everything that is wrong with
/// the options (a bare name such as "hint" names no place).
std::unique_ptr<Loss> make_loss(const LossOptions& options);

}  // namespace compress
