// The tensors of a .pt2 archive: payloads mapped from the file, or the nested checkpoints of old
// files.

#pragma once

#include "compress/io/pt2_json.h"
#include "compress/io/zip.h"

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>

namespace compress::pt2 {

/// Tensors by name, as one config (weights, or constants) or one nested checkpoint has them.
class Payloads {
 public:
  /// Adds what a payload config lists. `folder` is the prefix of the payloads' entries. Tensors
  /// over one payload share its storage. What cannot be read (pickled objects) is an error only
  /// when `at` asks for it.
  void add_config(const ZipReader& zip, const std::string& folder, const JsonDocument& config);
  /// Adds the tensors of a `torch.save`d dict that is an entry of the archive (torch < 2.9).
  void add_checkpoint(const ZipReader& zip, const ZipEntry& entry);

  /// The tensor; throws Error(kBadFile) naming `asker` if there is none of that name.
  at::Tensor at(const std::string& name, const JsonCursor& asker) const;
  size_t size() const { return tensors_.size(); }

 private:
  struct Payload {
    at::Tensor tensor;
    std::string problem;  ///< why there is no tensor
  };
  std::map<std::string, Payload> tensors_;
};

}  // namespace compress::pt2
