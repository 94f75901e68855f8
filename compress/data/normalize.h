// Normalisation: from bytes to the floats that a network was trained on.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// Per-channel mean and standard deviation of pixels that are scaled to [0, 1].
/// One value stands for all channels. A value becomes `(byte / 255 - mean) / std`.
struct Normalization {
  std::vector<double> mean{0.0};
  std::vector<double> std{1.0};

  bool operator==(const Normalization&) const = default;
};

/// The presets: none ([0, 1]), symmetric ([-1, 1]), imagenet, cifar10, cifar10-apot (its
/// three-digit form, as in the APoT repository), mnist, fashion-mnist.
std::vector<std::string> normalization_names();

/// The preset of that name. Throws Error(kInvalidArgument) with the nearest name.
Normalization normalization(std::string_view name);

/// Turns interleaved bytes into normalised floats.
///
/// A table of 256 floats a channel is computed in the order of operations of torchvision's ToTensor
/// and Normalize, so the result equals theirs bit for bit; looking up costs less than the
/// divisions.
class Normalizer {
 public:
  /// Throws Error(kInvalidArgument) unless mean and std have 1 or `channels` values, std > 0.
  Normalizer(const Normalization& values, int64_t channels);

  /// `pixels` interleaved bytes [height * width, channels] to planes [channels, height * width].
  void to_planes(const uint8_t* bytes, int64_t pixels, float* out) const;
  /// The same, to interleaved floats [height * width, channels] (channels_last).
  void to_interleaved(const uint8_t* bytes, int64_t pixels, float* out) const;

 private:
  int64_t channels_;
  std::vector<float> table_;  // [channels, 256]
};

}  // namespace compress
