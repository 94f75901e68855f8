// Frees a batch size that an exporter fixed.

#include "compress/graph/batch.h"

#include "compress/model.h"

namespace compress {

void generalize_batch(Model& model, const BatchOptions& options) {}

}  // namespace compress
