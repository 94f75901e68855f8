// Normalisation: from bytes to the floats that a network was trained on.

#include "compress/data/normalize.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace compress {
namespace {

struct Preset {
  const char* name;
  Normalization values;
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> list = {
      {"none", {{0.0}, {1.0}}},
      {"symmetric", {{0.5}, {0.5}}},
      {"imagenet", {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}},
      {"cifar10", {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}}},
      {"cifar10-apot", {{0.491, 0.482, 0.447}, {0.247, 0.243, 0.262}}},
      {"mnist", {{0.1307}, {0.3081}}},
      {"fashion-mnist", {{0.2860}, {0.3530}}},
  };
  return list;
}

void check_length(const std::vector<double>& values, const char* name, int64_t channels) {
  const auto count = static_cast<int64_t>(values.size());
  if (count == 1 || count == channels) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} values for {} channels, expected 1 or {}", count, channels, channels),
              fmt::format("normalize/{}", name));
}

template <int kChannels>
void planes(const uint8_t* bytes, int64_t pixels, const float* table, float* out) {
  for (int64_t i = 0; i < pixels; ++i) {
    for (int c = 0; c < kChannels; ++c) {
      out[c * pixels + i] = table[c * 256 + bytes[i * kChannels + c]];
    }
  }
}

template <int kChannels>
void interleaved(const uint8_t* bytes, int64_t pixels, const float* table, float* out) {
  for (int64_t i = 0; i < pixels; ++i) {
    for (int c = 0; c < kChannels; ++c) {
      out[i * kChannels + c] = table[c * 256 + bytes[i * kChannels + c]];
    }
  }
}

}  // namespace

std::vector<std::string> normalization_names() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  return names;
}

Normalization normalization(std::string_view name) {
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset.values;
  }
  const std::string guess = did_you_mean(name, normalization_names());
  throw Error(
      ErrorCode::kInvalidArgument, fmt::format("no normalisation is called `{}`", name),
      "normalize",
      guess.empty() ? fmt::format("known: {}", fmt::join(normalization_names(), ", ")) : guess);
}

Normalizer::Normalizer(const Normalization& values, int64_t channels)
    : channels_(channels), table_(static_cast<size_t>(channels) * 256) {
  check_length(values.mean, "mean", channels);
  check_length(values.std, "std", channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double wide_mean = values.mean[values.mean.size() == 1 ? 0 : c];
    const double wide_std = values.std[values.std.size() == 1 ? 0 : c];
    const auto mean = static_cast<float>(wide_mean);
    const auto std = static_cast<float>(wide_std);
    if (!(std > 0) || !std::isfinite(std) || !std::isfinite(mean)) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("mean {} and std {} are not a normalisation", wide_mean, wide_std),
                  "normalize", "std must be above 0, both must be finite");
    }
    for (int v = 0; v < 256; ++v) {
      table_[c * 256 + v] = (static_cast<float>(v) / 255.0f - mean) / std;
    }
  }
}

void Normalizer::to_planes(const uint8_t* bytes, int64_t pixels, float* out) const {
  if (channels_ == 3) return planes<3>(bytes, pixels, table_.data(), out);
  if (channels_ == 1) return planes<1>(bytes, pixels, table_.data(), out);
  for (int64_t c = 0; c < channels_; ++c) {
    for (int64_t i = 0; i < pixels; ++i) {
      out[c * pixels + i] = table_[c * 256 + bytes[i * channels_ + c]];
    }
  }
}

void Normalizer::to_interleaved(const uint8_t* bytes, int64_t pixels, float* out) const {
  if (channels_ == 3) return interleaved<3>(bytes, pixels, table_.data(), out);
  if (channels_ == 1) return interleaved<1>(bytes, pixels, table_.data(), out);
  for (int64_t i = 0; i < pixels; ++i) {
    for (int64_t c = 0; c < channels_; ++c) {
      out[i * channels_ + c] = table_[c * 256 + bytes[i * channels_ + c]];
    }
  }
}

}  // namespace compress
