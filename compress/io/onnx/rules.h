// Which rule translates which ATen operator.

#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

namespace compress::onnx {

class Call;

/// Translates one call.
using Rule = void (*)(Call&);
/// Operators by name: `aten::relu`, `aten::add.Tensor`.
using Rules = std::map<std::string, Rule>;

/// The rule of an operator, or null.
Rule find_rule(const std::string& op);

/// One table a family, each in a file of its own.
Rules layer_rules();        // convolutions, linear layers, matrix products
Rules norm_rules();         // normalisations
Rules elementwise_rules();  // arithmetic and activations
Rules compare_rules();      // comparisons, logic, where, casts
Rules shape_rules();        // views and permutations
Rules movement_rules();     // slices, joins, pads
Rules attention_rules();    // attention, softmax
Rules pool_rules();         // pooling, resizing
Rules reduce_rules();       // sums, means, extremes, norms
Rules index_rules();        // embeddings, gathering
Rules create_rules();       // tensors from sizes
Rules recurrent_rules();    // LSTM, GRU, RNN
Rules scalar_rules();       // arithmetic on sizes
Rules quantize_rules();     // fake quantization

}  // namespace compress::onnx
