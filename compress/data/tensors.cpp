// Data sets that lie in tensor files: prepared inputs, activations, embeddings.

#include "compress/data/tensors.h"

#include "compress/data/images.h"
#include "compress/data/npy.h"
#include "compress/error.h"
#include "compress/io/safetensors.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace compress {
namespace {

// Copies slices itself: ATen's index_select would start a thread team in every loader thread.
at::Tensor gather(const at::Tensor& from, const std::vector<int64_t>& indices) {
  std::vector<int64_t> sizes = from.sizes().vec();
  const auto slice = static_cast<size_t>(from.numel() / sizes[0]) * from.element_size();
  sizes[0] = static_cast<int64_t>(indices.size());
  at::Tensor result = at::empty(sizes, from.options());
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* out = static_cast<char*>(result.mutable_data_ptr());
  for (const int64_t index : indices) {
    COMPRESS_CHECK(index >= 0 && index < from.size(0), "sample index out of range");
    std::memcpy(out, source + static_cast<size_t>(index) * slice, slice);
    out += slice;
  }
  return result;
}

class Tensors final : public Dataset {
 public:
  Tensors(DatasetInfo info, std::vector<at::Tensor> inputs, at::Tensor labels)
      : Dataset(std::move(info)), inputs_(std::move(inputs)), labels_(std::move(labels)) {}

  int64_t size() const override { return inputs_[0].size(0); }

  Batch get(const std::vector<int64_t>& indices, const Draw&) const override {
    Batch batch;
    batch.indices = indices;
    for (const at::Tensor& input : inputs_) batch.inputs.push_back(gather(input, indices));
    if (labels_.defined()) batch.labels = gather(labels_, indices);
    return batch;
  }

 private:
  std::vector<at::Tensor> inputs_;
  at::Tensor labels_;
};

// Normalised images whose labels are the targets of a regression.
class ImagesWithTargets final : public Dataset {
 public:
  ImagesWithTargets(DatasetInfo info, DatasetPtr images, at::Tensor targets)
      : Dataset(std::move(info)), images_(std::move(images)), targets_(std::move(targets)) {}

  int64_t size() const override { return images_->size(); }

  Batch get(const std::vector<int64_t>& indices, const Draw& draw) const override {
    Batch batch = images_->get(indices, draw);
    batch.labels = gather(targets_, indices);
    return batch;
  }

 private:
  DatasetPtr images_;
  at::Tensor targets_;
};

void check_samples(const at::Tensor& tensor, int64_t samples, const std::string& what,
                   const std::string& name) {
  if (tensor.dim() >= 1 && tensor.size(0) == samples && samples > 0) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} are of shape [{}], expected {} along dimension 0", what,
                          fmt::join(tensor.sizes(), ", "),
                          samples > 0 ? fmt::format("{} samples", samples)
                                      : std::string("at least one sample")),
              name);
}

// Labels that number classes: int64 from 0.
int64_t count_classes(const at::Tensor& labels, const std::string& name) {
  if (!labels.defined() || labels.dim() != 1 || labels.scalar_type() != at::kLong) return 0;
  const auto* values = labels.const_data_ptr<int64_t>();
  const auto [least, most] = std::minmax_element(values, values + labels.numel());
  if (*least < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("label {} of sample {} is negative", *least, least - values), name);
  }
  return *most + 1;
}

at::Tensor as_labels(const at::Tensor& labels) {
  if (!labels.defined()) return labels;
  const bool whole = at::isIntegralType(labels.scalar_type(), /*includeBool=*/true);
  return (whole ? labels.to(at::kLong) : labels).contiguous();
}

struct Loaded {
  std::vector<at::Tensor> inputs;
  at::Tensor labels;
};

at::Tensor find(const NamedTensors& tensors, const std::string& name, const std::string& option,
                const std::string& file) {
  std::vector<std::string> names;
  for (const auto& [known, tensor] : tensors) {
    if (known == name) return tensor;
    names.push_back(known);
  }
  std::string hint = did_you_mean(name, names);
  if (hint.empty() && names.size() <= 8) hint = fmt::format("it has {}", fmt::join(names, ", "));
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("`{}`, which `{}` names, is not in the file", name, option), file, hint);
}

Loaded load_safetensors(const std::filesystem::path& path, const TensorFileOptions& options) {
  const NamedTensors tensors = SafetensorsFile::open(path).tensors();
  Loaded loaded;
  for (const std::string& name : options.inputs) {
    loaded.inputs.push_back(find(tensors, name, "inputs", path.string()));
  }
  const bool by_default = options.labels.empty() &&
                          std::any_of(tensors.begin(), tensors.end(),
                                      [](const auto& entry) { return entry.first == "labels"; });
  if (by_default) loaded.labels = find(tensors, "labels", "labels", path.string());
  if (!options.labels.empty()) {
    loaded.labels = find(tensors, options.labels, "labels", path.string());
  }
  return loaded;
}

Loaded load_npy(const std::filesystem::path& path, const TensorFileOptions& options) {
  Loaded loaded;
  loaded.inputs.push_back(read_npy(path));
  if (!options.labels.empty()) loaded.labels = read_npy(path.parent_path() / options.labels);
  return loaded;
}

DatasetPtr normalized(const Loaded& loaded, const TensorFileOptions& options, DatasetInfo info) {
  const at::Tensor& images = loaded.inputs[0];
  if (loaded.inputs.size() != 1 || images.dim() != 4 || images.scalar_type() != at::kByte) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("{} of shape [{}] cannot be normalised, expected one uint8 [n, c, h, w]",
                    c10::toString(images.scalar_type()), fmt::join(images.sizes(), ", ")),
        info.name, "leave `normalize` out if the values are what the model takes");
  }
  check_samples(images, images.size(0), "inputs", info.name);
  const at::Tensor labels = as_labels(loaded.labels);
  if (labels.defined()) check_samples(labels, images.size(0), "labels", info.name);
  const bool targets = labels.defined() && at::isFloatingType(labels.scalar_type());
  if (labels.defined() && !targets && (labels.dim() != 1 || labels.scalar_type() != at::kLong)) {
    throw Error(ErrorCode::kInvalidArgument,
                "labels of images are one whole number each, or floats: targets", info.name);
  }
  info.classes = count_classes(labels, info.name);
  const DatasetPtr data =
      memory_images(images.permute({0, 2, 3, 1}).contiguous(), targets ? at::Tensor() : labels,
                    std::move(info), {*options.normalize, {}, options.channels_last});
  if (!targets) return data;
  DatasetInfo labeled = data->info();
  labeled.labeled = true;
  return std::make_shared<ImagesWithTargets>(std::move(labeled), data, labels);
}

}  // namespace

DatasetPtr tensor_dataset(std::vector<at::Tensor> inputs, at::Tensor labels, std::string name) {
  COMPRESS_CHECK(!inputs.empty(), "a data set has inputs");
  const int64_t samples = inputs[0].dim() >= 1 ? inputs[0].size(0) : 0;
  DatasetInfo info;
  info.name = std::move(name);
  for (at::Tensor& input : inputs) {
    check_samples(input, samples, "inputs", info.name);
    input = input.contiguous();
    info.input_sizes.push_back(input.sizes().slice(1).vec());
  }
  labels = as_labels(labels);
  if (labels.defined()) check_samples(labels, samples, "labels", info.name);
  info.classes = count_classes(labels, info.name);
  info.labeled = labels.defined();
  return std::make_shared<Tensors>(std::move(info), std::move(inputs), std::move(labels));
}

DatasetPtr tensor_file(const std::filesystem::path& path, const TensorFileOptions& options) {
  const std::string extension = path.extension().string();
  if (extension != ".safetensors" && extension != ".npy") {
    throw Error(ErrorCode::kInvalidArgument, "neither .safetensors nor .npy, by its extension",
                path.string());
  }
  if (options.inputs.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "no tensor is named", "inputs");
  }
  Loaded loaded = extension == ".npy" ? load_npy(path, options) : load_safetensors(path, options);
  if (options.normalize) {
    DatasetInfo info;
    info.name = path.string();
    return normalized(loaded, options, std::move(info));
  }
  return tensor_dataset(std::move(loaded.inputs), loaded.labels, path.string());
}

}  // namespace compress
