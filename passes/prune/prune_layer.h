// What the calibrated pruning passes share: their options' rules, the report, the edit of a weight.

#pragma once

#include "compress/options.h"
#include "compress/pass.h"
#include "compress/pass_context.h"
#include "passes/second_order/calibrated_layers.h"
#include "passes/second_order/prune_columns.h"

#include <cstdint>
#include <string>

namespace compress {

/// Input channels of one group.
int64_t input_channels(const Weight& weight);

/// Why a weight cannot be pruned to n of `m` (0: anywhere), as the end of a sentence, or empty.
std::string unless_prunable(const Weight& weight, int64_t m);

/// Base of the options structs of passes that prune anywhere or n of m.
struct NOfMOptions {
  int64_t n = 0;
  int64_t m = 0;

  template <class Visitor>
  void visit_n_of_m(Visitor& field) {
    field("n", n, "With `m`: how many weights of each run stay, at most.").range(0, 1024);
    field("m", m, "Length of a run along the input channels; 0 for zeros anywhere.").range(0, 1024);
  }
  /// Both or neither, and n of m can stay.
  void validate_n_of_m(Problems& problems) const;
};

/// Edits layers and adds up what was done.
class LayerPruner {
 public:
  explicit LayerPruner(PassContext& context) : context_(context) {}

  /// Puts a solver's result into the layer; says so if damping had to be raised above `damping`.
  void apply(CalibratedLayer& layer, const PrunedColumns& found, double damping);
  /// Masks the layer where `keep`, bool [rows, columns], is false.
  void mask(CalibratedLayer& layer, const at::Tensor& keep);
  /// Reports the figures; whether anything changed.
  Change finish();

 private:
  PassContext& context_;
  int64_t zeroed_ = 0, fitted_ = 0;
  double error_ = 0;
  bool changed_ = false;
};

}  // namespace compress
