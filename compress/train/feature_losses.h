// Losses on features that bring tensors of their own: adapters, embeddings, memory banks.

#pragma once

#include "compress/train/loss.h"
#include "compress/train/losses.h"

#include <memory>

namespace compress {

/// Parameters are `<teacher>.weight` and `<teacher>.bias` of the adapters that are needed.
std::unique_ptr<Loss> make_hint_loss(const HintOptions& options);

/// Parameters and buffers are those of `ContrastiveMemory` behind `<teacher>.`.
std::unique_ptr<Loss> make_contrastive_loss(const ContrastiveOptions& options);

}  // namespace compress
