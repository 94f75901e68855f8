// Data sets that lie in tensor files: prepared inputs, activations, embeddings.

#pragma once

#include "compress/data/dataset.h"
#include "compress/data/normalize.h"

#include <filesystem>
#include <map>
#include <optional>

namespace compress {

/// A data set whose samples are the slices of `inputs` along dimension 0. `labels`, if defined, has
/// as many: whole numbers are classes [n] or tokens [n, ...] and become int64; floats [n, ...] are
/// the targets of a regression and keep their dtype. Throws Error(kInvalidArgument) if sizes do not
/// match, there is no sample, or a class is negative.
DatasetPtr tensor_dataset(std::vector<at::Tensor> inputs, at::Tensor labels, std::string name);

/// Which tensors of a file are what.
struct TensorFileOptions {
  std::vector<std::string> inputs = {"inputs"};  ///< names in a .safetensors file, in model order
  std::string labels =
      {};  ///< name in the file; for .npy a file beside it; empty: "labels", if there
  std::optional<Normalization> normalize = {};  ///< turns uint8 [n, c, h, w] into floats
  bool channels_last = false;                   ///< of normalised images
};

/// A data set from a .safetensors or .npy file, mapped. Throws Error(kIo / kBadFile) for the file,
/// Error(kInvalidArgument) for a name that is not in it.
DatasetPtr tensor_file(const std::filesystem::path& path, const TensorFileOptions& options);

}  // namespace compress
