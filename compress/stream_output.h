// The file that a streamed run writes, and what its metadata will say.

#pragma once

#include "compress/io/safetensors.h"
#include "compress/json.h"
#include "compress/model.h"
#include "compress/stream_jobs.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace compress {

/// Tensors are queued and written on a thread of their own, while the next ones are worked on; an
/// error of the file system comes out of a later call. Pages of mapped tensors are given back when
/// they are written. Only `finish` makes the file appear.
class StreamOutput {
 public:
  /// `header_room` as of SafetensorsWriter.
  StreamOutput(const std::filesystem::path& path, uint64_t header_room);

  void add(const std::string& name, const at::Tensor& tensor);
  /// The product of a weight and its mask. How many elements of it are not zero is added to
  /// `nonzeros`, which must live, and may be read, until all is written.
  void add_masked(const std::string& name, const at::Tensor& weight, const at::Tensor& mask,
                  int64_t* nonzeros);
  /// The tensors and the configuration of a model in the layout of compressed-tensors.
  void add_packed(const Model& model);
  void add_tie(std::string alias, std::string name);
  /// Notes a layer that is not packed, for the configuration.
  void add_dense(const std::string& name);
  bool is_packed() const;

  /// Waits until at most `bytes` of tensors are not yet written.
  void wait(int64_t bytes) { jobs_.wait(bytes); }
  /// Waits for everything and writes the metadata.
  void finish(const Metadata& metadata);

 private:
  void write_masked(const at::Tensor& elements, const at::Tensor& keep, int64_t* nonzeros);
  void merge(const std::string& key, const std::string& text);

  SafetensorsWriter writer_;  // of the jobs until they are done
  std::vector<uint64_t> block_;
  NamedTensors waiting_;
  std::vector<std::pair<std::string, std::string>> ties_;
  std::vector<std::string> order_, dense_;
  std::map<std::string, Json> merged_;
  StreamJobs jobs_;  // last: they use the others
};

}  // namespace compress
