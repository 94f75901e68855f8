// Named tensors out of whatever file people keep them in.

#pragma once

#include "compress/io/mapped_file.h"

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress {

/// The weights of a model by name, with an account of how they were found.
struct StateDict {
  /// In the order of the file. Tied names are entries of their own that share one tensor.
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  /// (further name, first name) of entries that are the same elements of the same storage.
  std::vector<std::pair<std::string, std::string>> ties;
  /// Text that came along (safetensors metadata).
  std::map<std::string, std::string> metadata;
  /// What was done to get here, a sentence each: "took the tensors under `state_dict`", "removed
  /// the prefix `module.` from 97 names", "left out `optimizer` (65 tensors of optimizer state)".
  std::vector<std::string> notes;
  /// "torch.save (zip)", "torch.save (legacy)", "safetensors", "sharded safetensors".
  std::string format;

  /// Null if there is none of this name.
  const at::Tensor* find(std::string_view name) const;
};

/// Loads weights from a torch.save file (zip or legacy), a safetensors file, or a
/// `*.safetensors.index.json`, told apart by their contents. Tensors are views of the file. Throws
/// `kIo` if there is no such file, `kBadFile` if it is damaged, `kUnsupported` if it is of another
/// kind (named, with what to do) or holds no tensors.
StateDict load_state_dict(const std::filesystem::path& path);

/// The same for bytes that are mapped already; an index of shards is refused, as it needs its
/// folder.
StateDict load_state_dict(const std::shared_ptr<MappedFile>& file);

}  // namespace compress
