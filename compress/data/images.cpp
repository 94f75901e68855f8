// Data sets of images: bytes from memory or from a folder, augmented and normalised batch by batch.

#include "compress/data/images.h"

#include "compress/error.h"

#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <optional>

namespace compress {
namespace {

namespace fs = std::filesystem;

// Makes batches; where the bytes of a sample come from is left to the two classes below.
class ImageDataset : public Dataset {
 public:
  ImageDataset(DatasetInfo info, const ImageOptions& options)
      : Dataset(std::move(info)), options_(options), normalizer_(options.normalize, sizes()[0]) {}

  Batch get(const std::vector<int64_t>& indices, const Draw& draw) const override {
    const int64_t channels = sizes()[0], height = sizes()[1], width = sizes()[2];
    const auto count = static_cast<int64_t>(indices.size());
    Batch batch;
    batch.indices = indices;
    batch.inputs.push_back(at::empty({count, channels, height, width}, at::kFloat, std::nullopt,
                                     std::nullopt, std::nullopt, memory_format()));
    if (info().labeled) batch.labels = at::empty({count}, at::kLong);
    float* out = batch.inputs[0].mutable_data_ptr<float>();
    Image image(height, width, channels);
    for (int64_t i = 0; i < count; ++i, out += channels * height * width) {
      const int64_t index = indices[static_cast<size_t>(i)];
      COMPRESS_CHECK(index >= 0 && index < size(), "sample index out of range");
      const uint8_t* bytes = pixels(index, image);
      if (!options_.transforms.empty()) bytes = transformed(bytes, index, draw, image);
      if (options_.channels_last) {
        normalizer_.to_interleaved(bytes, height * width, out);
      } else {
        normalizer_.to_planes(bytes, height * width, out);
      }
      if (info().labeled) batch.labels.mutable_data_ptr<int64_t>()[i] = label(index);
    }
    return batch;
  }

 protected:
  const std::vector<int64_t>& sizes() const { return info().input_sizes[0]; }

  // The bytes of a sample [h, w, c], either in place or in `scratch`.
  virtual const uint8_t* pixels(int64_t index, Image& scratch) const = 0;
  virtual int64_t label(int64_t index) const = 0;

 private:
  at::MemoryFormat memory_format() const {
    return options_.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  }

  const uint8_t* transformed(const uint8_t* bytes, int64_t index, const Draw& draw,
                             Image& image) const {
    if (bytes != image.bytes.data()) std::memcpy(image.bytes.data(), bytes, image.bytes.size());
    SampleRandom random({draw.seed, draw.epoch, static_cast<uint64_t>(index)});
    for (const ImageTransform& transform : options_.transforms) transform(image, random);
    COMPRESS_CHECK(
        image.channels == sizes()[0] && image.height == sizes()[1] && image.width == sizes()[2],
        "a transform keeps the sizes of its image");
    return image.bytes.data();
  }

  ImageOptions options_;
  Normalizer normalizer_;
};

class MemoryImages final : public ImageDataset {
 public:
  MemoryImages(const at::Tensor& bytes, at::Tensor labels, DatasetInfo info,
               const ImageOptions& options)
      : ImageDataset(std::move(info), options), bytes_(bytes), labels_(std::move(labels)) {}

  int64_t size() const override { return bytes_.size(0); }

 protected:
  const uint8_t* pixels(int64_t index, Image&) const override {
    return bytes_.const_data_ptr<uint8_t>() + index * sizes()[0] * sizes()[1] * sizes()[2];
  }
  int64_t label(int64_t index) const override { return labels_.const_data_ptr<int64_t>()[index]; }

 private:
  at::Tensor bytes_;   // uint8 [n, h, w, c]
  at::Tensor labels_;  // int64 [n], or undefined
};

struct File {
  fs::path path;
  int64_t label = 0;
};

class FolderImages final : public ImageDataset {
 public:
  FolderImages(std::vector<File> files, DatasetInfo info, const FolderOptions& folder,
               const ImageOptions& options)
      : ImageDataset(std::move(info), options), files_(std::move(files)), folder_(folder) {}

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }

 protected:
  const uint8_t* pixels(int64_t index, Image& scratch) const override {
    const fs::path& path = files_[static_cast<size_t>(index)].path;
    const Image image = read_image(path, folder_.channels);
    try {
      scratch = center_crop(resize_shorter_side(image, folder_.resize), folder_.size, folder_.size);
    } catch (const Error& error) {
      throw error.within(path.string());
    }
    return scratch.bytes.data();
  }
  int64_t label(int64_t index) const override { return files_[static_cast<size_t>(index)].label; }

 private:
  std::vector<File> files_;
  FolderOptions folder_;
};

bool is_image_name(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

// The images below a folder, at any depth, in the order of their paths.
std::vector<fs::path> images_below(const fs::path& folder, bool recursive) {
  std::vector<fs::path> found;
  const auto add = [&](const fs::directory_entry& entry) {
    if (entry.is_regular_file() && is_image_name(entry.path())) found.push_back(entry.path());
  };
  if (recursive) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) add(entry);
  } else {
    for (const auto& entry : fs::directory_iterator(folder)) add(entry);
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Fills the class names of `info`.
std::vector<File> scan(const fs::path& path, DatasetInfo& info) {
  if (!fs::is_directory(path)) {
    throw Error(
        ErrorCode::kIo,
        fs::exists(path) ? "not a folder, expected a folder of images" : "there is no such folder",
        path.string());
  }
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  std::vector<File> files;
  for (const fs::path& folder : folders) {
    const std::vector<fs::path> images = images_below(folder, true);
    if (images.empty()) {
      throw Error(ErrorCode::kBadFile, "a class without an image (.jpg, .jpeg or .png)",
                  folder.string(), "remove the folder or put its images there");
    }
    for (const fs::path& image : images) {
      files.push_back({image, static_cast<int64_t>(info.class_names.size())});
    }
    info.class_names.push_back(folder.filename().string());
  }
  if (folders.empty()) {
    for (const fs::path& image : images_below(path, false)) files.push_back({image, 0});
  }
  if (files.empty()) {
    throw Error(ErrorCode::kBadFile, "no image (.jpg, .jpeg or .png) in this folder", path.string(),
                "it should have one sub-folder for each class");
  }
  return files;
}

}  // namespace

DatasetPtr memory_images(const at::Tensor& bytes, at::Tensor labels, DatasetInfo info,
                         const ImageOptions& options) {
  COMPRESS_CHECK(bytes.dim() == 4 && bytes.scalar_type() == at::kByte && bytes.is_contiguous(),
                 "images in memory are bytes [n, h, w, c]");
  COMPRESS_CHECK(!labels.defined() || (labels.scalar_type() == at::kLong && labels.dim() == 1 &&
                                       labels.size(0) == bytes.size(0) && labels.is_contiguous()),
                 "labels are int64 [n]");
  info.input_sizes = {{bytes.size(3), bytes.size(1), bytes.size(2)}};
  info.labeled = labels.defined();
  info.augmented = !options.transforms.empty();
  return std::make_shared<MemoryImages>(bytes, std::move(labels), std::move(info), options);
}

DatasetPtr image_folder(const std::filesystem::path& path, const FolderOptions& folder,
                        const ImageOptions& options) {
  COMPRESS_CHECK(folder.size > 0 && folder.resize >= folder.size,
                 "the crop lies within the resized image");
  DatasetInfo info;
  info.name = path.string();
  info.augmented = !options.transforms.empty();
  info.input_sizes = {{folder.channels, folder.size, folder.size}};
  try {
    std::vector<File> files = scan(path, info);
    info.classes = static_cast<int64_t>(info.class_names.size());
    info.labeled = info.classes > 0;
    return std::make_shared<FolderImages>(std::move(files), std::move(info), folder, options);
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorCode::kIo, "cannot read the folder: " + error.code().message(),
                error.path1().string());
  }
}

}  // namespace compress
