// Data sets of images: bytes from memory or from a folder, augmented and normalised batch by batch.

#pragma once

#include "compress/data/dataset.h"
#include "compress/data/image.h"
#include "compress/data/normalize.h"
#include "compress/data/random.h"

#include <filesystem>
#include <functional>

namespace compress {

/// Changes one image of a batch, before normalisation: crop, flip, cutout. It must keep the sizes
/// and draw what it needs from `random`, whose stream belongs to (seed, epoch, sample).
using ImageTransform = std::function<void(Image& image, SampleRandom& random)>;

/// How bytes become a batch.
struct ImageOptions {
  Normalization normalize = {};
  std::vector<ImageTransform> transforms = {};  ///< in this order
  bool channels_last = false;                   ///< memory format of the batch; its sizes stay NCHW
};

/// A data set of float inputs [n, c, h, w] over bytes [n, h, w, c] in memory (mapped files too).
/// `labels`: int64 [n] in [0, info.classes), or undefined. Fills in the sizes of `info`.
DatasetPtr memory_images(const at::Tensor& bytes, at::Tensor labels, DatasetInfo info,
                         const ImageOptions& options);

/// How files become images of one size.
struct FolderOptions {
  int64_t size = 224;    ///< height and width of the crop from the middle
  int64_t resize = 256;  ///< length of the shorter side before the crop; at least `size`
  int64_t channels = 3;  ///< 3 or 1
};

/// Images below `path`, a sub-folder a class, classes in alphabetical order, files in the order of
/// their paths: what torchvision's ImageFolder makes of it. A folder without sub-folders gives
/// images without labels. Files that are not called .jpg, .jpeg or .png are left alone. Decoded
/// when asked for. Throws Error(kIo) if there is no such folder, Error(kBadFile) if it, or a class,
/// has no image.
DatasetPtr image_folder(const std::filesystem::path& path, const FolderOptions& folder,
                        const ImageOptions& options);

}  // namespace compress
