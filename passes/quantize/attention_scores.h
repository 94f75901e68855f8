// Which layers compute queries and keys.

#pragma once

#include "compress/model.h"

#include <unordered_set>

namespace compress {

/// The layers whose outputs reach attention scores before another layer or norm: as query or key of
/// scaled_dot_product_attention, or through a product of two activations into a softmax. A layer
/// that computes queries, keys and values at once is one of them.
std::unordered_set<const Node*> layers_of_attention_scores(const Model& model);

}  // namespace compress
