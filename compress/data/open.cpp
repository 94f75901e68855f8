// From a data entry to the data set; and the option type of normalisations.

#include "compress/data/spec.h"
#include "compress/data/tensors.h"
#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace compress {
namespace {

class NormalizeType final : public OptionType {
 public:
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    auto& out = *static_cast<NormalizeOption*>(member);
    if (json.is_string()) {
      out = {json.get<std::string>(), {}};
      if (out.preset == "auto") return;
      try {
        out.values = normalization(out.preset);
      } catch (const Error& error) {
        problems.add(where, error.message(), error.hint());
      }
      return;
    }
    if (!json.is_object()) {
      problems.add(
          where, fmt::format("{} is not a normalisation", brief(json)),
          "it is a preset, for example \"imagenet\", or {\"mean\": [0.5], \"std\": [0.5]}");
      return;
    }
    out.preset.clear();
    for (const auto& [key, value] : json.items()) {
      if (key != "mean" && key != "std") {
        problems.add(join_pointer(where, key), fmt::format("unknown option `{}`", key),
                     "a normalisation has mean and std");
      }
    }
    read_numbers(json, "mean", where, out.values.mean, problems);
    read_numbers(json, "std", where, out.values.std, problems);
  }

  Json write(const void* member) const override {
    const auto& option = *static_cast<const NormalizeOption*>(member);
    if (!option.preset.empty()) return option.preset;
    return {{"mean", option.values.mean}, {"std", option.values.std}};
  }

  Json schema() const override {
    Json names = Json::array({"auto"});
    for (const std::string& name : normalization_names()) names.push_back(name);
    const Json numbers = {
        {"type", "array"}, {"items", {{"type", "number"}}}, {"minItems", 1}, {"maxItems", 3}};
    return {{"anyOf", Json::array({Json{{"enum", names}},
                                   Json{{"type", "object"},
                                        {"properties", {{"mean", numbers}, {"std", numbers}}},
                                        {"required", Json::array({"mean", "std"})},
                                        {"additionalProperties", false}}})}};
  }

  std::string name() const override {
    return fmt::format("auto | {} | {{mean, std}}", fmt::join(normalization_names(), " | "));
  }

 private:
  static void read_numbers(const Json& json, const std::string& key, const std::string& where,
                           std::vector<double>& out, Problems& problems) {
    const std::string pointer = join_pointer(where, key);
    if (!json.contains(key)) {
      problems.add(where, fmt::format("`{}` is missing", key));
      return;
    }
    const Json& list = json[key];
    const bool numbers =
        list.is_array() && (list.size() == 1 || list.size() == 3) &&
        std::all_of(list.begin(), list.end(), [](const Json& value) { return value.is_number(); });
    if (!numbers) {
      problems.add(pointer, fmt::format("{} is not a list of one or three numbers", brief(list)));
      return;
    }
    out = list.get<std::vector<double>>();
    for (size_t i = 0; i < out.size(); ++i) {
      const bool in_range =
          key == "std" ? out[i] >= 1e-6 && out[i] <= 1e6 : std::abs(out[i]) <= 1e6;
      if (!in_range) {
        problems.add(join_pointer(pointer, i), fmt::format("{} is outside [{}, 1e6]", out[i],
                                                           key == "std" ? "1e-6" : "-1e6"));
      }
    }
  }
};

class Opener {
 public:
  Opener(const std::string& kind, const DataSection& section, const OpenDataOptions& options)
      : kind_(kind), section_(section), options_(options) {}

  DatasetPtr operator()(const KnownData& data) const {
    const Normalization own = normalization(kind_);
    return known_dataset(kind_, data.split,
                         image_options(chosen(data.normalize, own), data.augment, own));
  }
  DatasetPtr operator()(const ImageFolderData& data) const {
    FolderOptions folder;
    folder.size = data.size;
    folder.resize = data.resize != 0 ? data.resize : std::max(data.size, data.size * 256 / 224);
    folder.channels = data.color == Color::kRgb ? 3 : 1;
    const Normalization normalize =
        chosen(data.normalize, normalization(data.color == Color::kRgb ? "imagenet" : "none"));
    return image_folder(data.path, folder, image_options(normalize, data.augment, normalize));
  }
  DatasetPtr operator()(const TensorData& data) const {
    TensorFileOptions file;
    file.inputs = data.inputs;
    file.labels = data.labels;
    if (data.normalize.preset != "auto") file.normalize = data.normalize.values;
    file.channels_last = options_.channels_last;
    return tensor_file(data.path, file);
  }
  DatasetPtr operator()(const TextData& data) const {
    return text_dataset(data.path, {data.tokens, data.length, data.stride, data.begin, data.end});
  }
  DatasetPtr operator()(const PartData& data) const {
    const auto base = section_.find(data.from);
    if (base == section_.end()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("there is no data entry `{}`", data.from), kind_ + "/from");
    }
    OpenDataOptions options = options_;
    options.augment = options.augment && data.augment;
    const auto [taken, rest] = split(open_data(base->second, section_, options), data.count,
                                     static_cast<uint64_t>(data.seed));
    return kind_ == "take" ? taken : rest;
  }

 private:
  static Normalization chosen(const NormalizeOption& normalize, const Normalization& own) {
    return normalize.preset == "auto" ? own : normalize.values;
  }

  // `data_mean`: the colour of a cutout; of a known data set its own, however it is normalised.
  ImageOptions image_options(const Normalization& normalize,
                             const std::vector<Augmentation>& augment,
                             const Normalization& data_mean) const {
    ImageOptions image{normalize, {}, options_.channels_last};
    if (options_.augment) image.transforms = image_transforms(augment, mean_pixel(data_mean));
    image.transforms.insert(image.transforms.end(), options_.transforms.begin(),
                            options_.transforms.end());
    return image;
  }

  const std::string& kind_;
  const DataSection& section_;
  const OpenDataOptions& options_;
};

}  // namespace

const OptionType& option_type(const NormalizeOption*) {
  static const NormalizeType type;
  return type;
}

DatasetPtr open_data(const DataSpec& spec, const DataSection& section,
                     const OpenDataOptions& options) {
  return std::visit(Opener(spec.kind, section, options), spec.options);
}

}  // namespace compress
