// Files of torch.save: the zip layout (PyTorch 1.6 and later) and the legacy one before it.

#pragma once

#include "compress/io/mapped_file.h"
#include "compress/io/pickle.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <memory>
#include <string>
#include <vector>

namespace compress {

/// What one torch.save file holds. Tensors view the file's mapping; those that shared a storage in
/// Python share it here.
class TorchFile {
 public:
  /// Reads zip and legacy files. Throws `kBadFile` for damaged ones, `kUnsupported` for TorchScript
  /// archives, exported programs and big-endian files.
  explicit TorchFile(const std::shared_ptr<MappedFile>& file);

  const Pickle& pickle() const { return pickle_; }
  PickleValue root() const { return pickle_.root; }
  /// The tensor that a kTensor value describes. Throws `kBadFile` if it reaches out of its storage.
  at::Tensor tensor(PickleValue value) const;

 private:
  void read_zip(const std::shared_ptr<MappedFile>& file);
  void read_legacy(const std::shared_ptr<MappedFile>& file);

  std::string name_;
  Pickle pickle_;
  std::vector<at::Storage> storages_;  // for each of pickle_.storages
};

/// True if `file` begins like a legacy torch.save file (pickled magic number).
bool is_legacy_torch_file(const MappedFile& file);

}  // namespace compress
