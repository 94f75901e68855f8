// Augmentation: random changes of training images, as bytes, before they are normalised.
//
// Every transform draws the same count of numbers from the stream of (seed, epoch, sample) whatever
// they turn out to be, so the pixels of a sample depend on nothing but these three and the list of
// transforms. All work in place and allocate nothing.

#pragma once

#include "compress/data/images.h"
#include "compress/data/normalize.h"
#include "compress/options.h"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace compress {

/// `crop`: a window of the image's own size at a random place of the image with black pixels
/// around it, like torchvision's `RandomCrop(size, padding=pad)`. All (2 pad + 1)^2 places are
/// equally likely; the row is drawn first.
struct RandomCrop {
  int64_t pad = 4;

  template <class Visitor>
  void visit(Visitor& field) {
    field("pad", pad, "Black pixels on each side.").range(1, 4096);
  }
};

/// `flip`: left and right change places, like torchvision's `RandomHorizontalFlip`.
struct RandomFlip {
  double probability = 0.5;

  template <class Visitor>
  void visit(Visitor& field) {
    field("probability", probability, "Share of the samples that are flipped.").range(0.0, 1.0);
  }
};

/// `cutout`: a square of one colour. DeVries and Taylor, "Improved regularization of convolutional
/// neural networks with cutout", arXiv 1708.04552, section 3.2: the centre is uniform over the
/// image, so the square may stick out, and what sticks out is cut off. Rows `y - size / 2` to
/// `y - size / 2 + size - 1` about the centre's row y; the row is drawn first.
struct Cutout {
  int64_t size = 16;

  template <class Visitor>
  void visit(Visitor& field) {
    field("size", size, "Height and width of the square in pixels.").range(1, 4096);
  }
};

/// One element of `augment` in a data entry: a name, or {"crop": {"pad": 4}}.
struct Augmentation {
  std::variant<RandomCrop, RandomFlip, Cutout> transform;
};
const OptionType& option_type(const Augmentation*);

/// crop, flip, cutout: the alternatives of `Augmentation`, in order.
std::vector<std::string> augmentation_names();

ImageTransform image_transform(const RandomCrop& crop);
ImageTransform image_transform(const RandomFlip& flip);
/// `fill`: the colour of the square, one byte a channel or one for all of them.
ImageTransform image_transform(const Cutout& cutout, std::vector<uint8_t> fill);

/// The transforms of a list, in its order. The square of a cutout gets `fill`.
std::vector<ImageTransform> image_transforms(const std::vector<Augmentation>& list,
                                             const std::vector<uint8_t>& fill);

/// The byte nearest to the mean of each channel: what a normalisation maps to zero, as near as a
/// byte comes. The cutout paper sets pixels to zero after normalisation, so this is its colour.
std::vector<uint8_t> mean_pixel(const Normalization& normalization);

}  // namespace compress
