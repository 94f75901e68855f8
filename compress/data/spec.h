// Data entries of recipes and of the command line: which data set, how normalised, which part.
//
//   {"cifar10": {"split": "test", "normalize": "imagenet"}}      cifar10:test,normalize=imagenet
//   {"cifar10": {"split": "train", "augment": ["crop"]}}         cifar10:train,augment=[crop]
//   {"images": {"path": "photos", "size": 224}}                  images:photos,size=224
//   {"tensors": {"path": "in.safetensors"}}                      tensors:in.safetensors
//   {"text": {"path": "a.txt", "tokens": "bytes"}}               text:a.txt,tokens=bytes
//   {"take": {"from": "train", "count": 1024, "seed": 0}}        (recipes only: `from` is an entry)
//   {"drop": {"from": "train", "count": 1024, "seed": 0}}        the samples that this `take`
//   leaves

#pragma once

#include "compress/data/augment.h"
#include "compress/data/dataset.h"
#include "compress/data/known.h"
#include "compress/data/normalize.h"
#include "compress/data/text.h"
#include "compress/options.h"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace compress {

/// A normalisation in a recipe: the name of a preset or {"mean": [...], "std": [...]}. "auto" is
/// the one that belongs to the data set.
struct NormalizeOption {
  std::string preset = "auto";  ///< empty: `values` were given as numbers
  Normalization values;
};
const OptionType& option_type(const NormalizeOption*);

inline std::vector<std::string_view> option_names(Split) { return {"train", "test"}; }
inline std::vector<std::string_view> option_names(TokenKind) { return {"characters", "bytes"}; }

enum class Color { kRgb, kGrey };
inline std::vector<std::string_view> option_names(Color) { return {"rgb", "grey"}; }

/// `cifar10`, `mnist`, `fashion-mnist`.
struct KnownData {
  Split split = Split::kTrain;
  NormalizeOption normalize;
  std::vector<Augmentation> augment;

  template <class Visitor>
  void visit(Visitor& field) {
    field("split", split, "Which part of the data set.");
    field("normalize", normalize, "Mean and standard deviation; `auto`: those of this data set.");
    field("augment", augment, "Random changes of the images, in this order.");
  }
};

/// `images`: a folder with a sub-folder of JPEG and PNG files for each class.
struct ImageFolderData {
  std::string path;
  int64_t size = 224;
  int64_t resize = 0;
  Color color = Color::kRgb;
  NormalizeOption normalize;
  std::vector<Augmentation> augment;

  template <class Visitor>
  void visit(Visitor& field) {
    field("path", path, "The folder, with one sub-folder for each class.");
    field("size", size, "Height and width in pixels, cropped from the middle.").range(1, 4096);
    field("resize", resize, "Pixels of the shorter side before the crop; 0: `size` * 256 / 224.")
        .range(0, 8192);
    field("color", color, "Colour of the images, converted where it differs.");
    field("normalize", normalize, "Mean and standard deviation; `auto`: imagenet, none for grey.");
    field("augment", augment, "Random changes of the cropped images, in this order.");
  }
  void validate(Problems& problems) const;
};

/// `tensors`: a .safetensors or .npy file.
struct TensorData {
  std::string path;
  std::vector<std::string> inputs = {"inputs"};
  std::string labels;
  NormalizeOption normalize;

  template <class Visitor>
  void visit(Visitor& field) {
    field("path", path, "A .safetensors or .npy file.");
    field("inputs", inputs, "Names of the tensors that go into the model, in its order.");
    field("labels", labels,
          "Name of the labels (classes, or floats: targets); of an .npy file: another one beside "
          "it. Empty: `labels`, if there.");
    field("normalize", normalize,
          "Mean and standard deviation for uint8 images [n, c, h, w]; `auto`: left as they are.");
  }
};

/// `text`: windows of tokens with the next token as label.
struct TextData {
  std::string path;
  TokenKind tokens = TokenKind::kCharacters;
  int64_t length = 128;
  int64_t stride = 0;
  double begin = 0.0;
  double end = 1.0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("path", path, "A text file in UTF-8.");
    field("tokens", tokens, "What a token is; the vocabulary is that of the whole file.");
    field("length", length, "Tokens of a sample.").range(1, 1 << 20);
    field("stride", stride, "Tokens from a sample to the next; 0: `length`.").range(0, 1 << 20);
    field("begin", begin, "Share of the file where the samples begin.").range(0.0, 1.0);
    field("end", end, "Share of the file where they end.").range(0.0, 1.0);
  }
  void validate(Problems& problems) const;
};

/// `take`: samples chosen at random from another entry; `drop`: all the others.
struct PartData {
  std::string from;
  int64_t count = 0;
  int64_t seed = 0;
  bool augment = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("from", from, "Name of another entry of the data section.");
    field("count", count, "How many samples are taken.").at_least(1);
    field("seed", seed, "Of the choice.").at_least(0);
    field("augment", augment, "Whether `from` is opened with its augmentation.");
  }
};

/// One data entry, read and checked; nothing is opened yet.
struct DataSpec {
  std::string kind;  ///< the key of the entry: cifar10, images, take, ...
  std::variant<KnownData, ImageFolderData, TensorData, TextData, PartData> options;
};
using DataSection = std::map<std::string, DataSpec>;

/// The keys that an entry can have: cifar10, mnist, fashion-mnist, images, tensors, text, take,
/// drop.
std::vector<std::string> data_kinds();

/// Reads one entry. What is wrong goes to `problems` under the JSON pointer `where`; then there is
/// no result.
std::optional<DataSpec> read_data_spec(const Json& entry, const std::string& where,
                                       Problems& problems);

/// Reads the `data` section of a recipe; `take` and `drop` must name another entry, without a
/// circle.
DataSection read_data_section(const Json& section, const std::string& where, Problems& problems);

/// Reads the command line's short form `KIND:VALUE,key=value,...` (see the top of this file), or
/// JSON. Throws Error(kInvalidArgument).
DataSpec parse_data_spec(std::string_view text);

/// The entry as canonical JSON, all options written out; `read_data_spec` reads it back.
Json data_spec_json(const DataSpec& spec);

/// JSON schema (draft 2020-12) of an entry.
Json data_spec_schema();

/// What the caller of `open_data` decides.
struct OpenDataOptions {
  bool channels_last = false;              ///< memory format of batches of images
  bool augment = true;                     ///< whether `augment` of the entries counts
  std::vector<ImageTransform> transforms;  ///< of images (not of `tensors`), after `augment`
};

/// Opens the data set of an entry; `section` holds those that `take` and `drop` refer to. Throws
/// Error as the data sets do; one that is not fetched says how to fetch it.
DatasetPtr open_data(const DataSpec& spec, const DataSection& section = {},
                     const OpenDataOptions& options = {});

}  // namespace compress
