// Taylor scores from labelled data, for passes that do not train.

#pragma once

#include "compress/model.h"
#include "compress/pass_context.h"
#include "passes/structured/channel_scores.h"

#include <string>
#include <vector>

namespace compress {

/// TaylorScores of the cross-entropy over an entry of the recipe's data, in eval mode, 32 samples a
/// batch. The model is not changed. Throws Error(kInvalidArgument) if there is no such entry or its
/// samples have no classes.
std::vector<DimScores> gradient_scores(const Model& model, const PassContext& context,
                                       const std::string& entry);

}  // namespace compress
