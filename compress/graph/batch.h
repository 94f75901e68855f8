// Frees a batch size that an exporter fixed.

#pragma once

#include <cstdint>

namespace compress {

class Model;

/// How far `generalize_batch` goes to prove that a model works at another batch size.
struct BatchOptions {
  /// A model is left alone if the proof would need more memory than this for its inputs and
  /// weights.
  int64_t most_bytes = int64_t{1} << 30;
  /// ... or more multiplications than this in one run at twice the batch.
  int64_t most_macs = int64_t{4} << 30;
};

/// Makes the leading dimension of the inputs free (symbol `batch`) if all sizes of all inputs are
/// numbers and the graph gives the same results for each sample at twice the size.
///
/// Sizes in the graph that are the batch (`view(x, [8, -1])`, `zeros([1, 8, 64])`) are
/// replaced by the size of the first input. The result is held against the graph as it was on
/// random inputs in evaluation mode, sample by sample, within 1e-5 relative. Where anything differs
/// the model stays as it was, and a note says why. A model with a symbolic size is left alone.
void generalize_batch(Model& model, const BatchOptions& options = {});

}  // namespace compress
