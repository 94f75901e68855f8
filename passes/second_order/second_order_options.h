// What the second-order passes have in common, as options.

#pragma once

#include "compress/options.h"
#include "compress/selector.h"
#include "passes/second_order/calibrated_layers.h"

namespace compress {

/// Base of the options structs of the passes; each adds what is its own.
struct SecondOrderOptions {
  LayerTarget target = LayerTarget::kOriginal;
  double damping = 0.01;
  Selector where = Selector::weights();

  template <class Visitor>
  void visit_common(Visitor& field) {
    field("target", target,
          "What a layer is to give: what its weights make of the inputs that it gets now (layer, "
          "the paper's), or what it gave in the model that the pass began with (original), which "
          "also makes up for what the layers before it have got wrong.");
    field("damping", damping,
          "Share of the mean diagonal that is added to the diagonal of the inputs' Gram matrix; "
          "raised tenfold where that is not enough, and a message says so.")
        .range(0, 1);
    field("where", where,
          "The weights to change; those that have no input matrix (embeddings, recurrent layers) "
          "are left alone, and a message says so.");
  }
};

}  // namespace compress
