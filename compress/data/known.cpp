// The data sets that tools/fetch_data brings: CIFAR-10, MNIST, Fashion-MNIST.

#include "compress/data/known.h"

#include "compress/error.h"
#include "compress/io/mapped_file.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <thread>

namespace compress {
namespace {

namespace fs = std::filesystem;
using ClassNames = std::vector<std::string>;

const ClassNames kCifarClasses = {"airplane", "automobile", "bird",  "cat",  "deer",
                                  "dog",      "frog",       "horse", "ship", "truck"};
const ClassNames kFashionClasses = {"t-shirt", "trouser", "pullover", "dress", "coat",
                                    "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};
const ClassNames kDigits = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};

// The pixels of CIFAR-10 come as PNG sheets: a row of 1024 pixels is one image of 32 x 32.
constexpr int64_t kSheetImages = 10000;
constexpr int64_t kSheetBytes = kSheetImages * 32 * 32 * 3;

void read_sheet(const fs::path& path, uint8_t* out) {
  const Image sheet = read_image(path, 3);
  if (sheet.height != kSheetImages || sheet.width != 32 * 32) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("{} x {} pixels, expected 1024 x 10000", sheet.width, sheet.height),
                path.string(), "run tools/fetch_data --verify cifar10");
  }
  std::memcpy(out, sheet.bytes.data(), kSheetBytes);
}

// Decoding is most of the time to open CIFAR-10, so sheets are decoded side by side.
at::Tensor read_sheets(const std::vector<fs::path>& paths) {
  const auto count = static_cast<int64_t>(paths.size());
  at::Tensor bytes = at::empty({count * kSheetImages, 32, 32, 3}, at::kByte);
  auto* out = bytes.mutable_data_ptr<uint8_t>();
  std::vector<std::exception_ptr> problems(paths.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < paths.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        read_sheet(paths[i], out + static_cast<int64_t>(i) * kSheetBytes);
      } catch (...) {
        problems[i] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& problem : problems) {
    if (problem) std::rethrow_exception(problem);
  }
  return bytes;
}

void check_label(int64_t label, size_t position, const fs::path& path) {
  if (label >= 0 && label < 10) return;
  throw Error(ErrorCode::kBadFile,
              fmt::format("label {} of sample {} is not in 0..9", label, position), path.string());
}

at::Tensor read_json_labels(const fs::path& path, int64_t count) {
  std::ifstream stream(path);
  const nlohmann::json list = nlohmann::json::parse(stream, nullptr, false);
  if (!list.is_array() || static_cast<int64_t>(list.size()) != count) {
    throw Error(ErrorCode::kBadFile, fmt::format("not a list of {} labels", count), path.string(),
                "run tools/fetch_data --verify cifar10");
  }
  at::Tensor labels = at::empty({count}, at::kLong);
  auto* out = labels.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < list.size(); ++i) {
    out[i] = list[i].is_number_integer() ? list[i].get<int64_t>() : -1;
    check_label(out[i], i, path);
  }
  return labels;
}

struct Samples {
  at::Tensor bytes;   // [n, h, w, c]
  at::Tensor labels;  // int64 [n]
};

Samples read_cifar10(const fs::path& folder, Split split) {
  std::vector<fs::path> sheets = {folder / "test_batch.png"};
  if (split == Split::kTrain) {
    sheets.clear();
    for (int i = 1; i <= 5; ++i) sheets.push_back(folder / fmt::format("data_batch_{}.png", i));
  }
  const char* labels = split == Split::kTrain ? "train_lables.json" : "test_lables.json";
  const int64_t count = static_cast<int64_t>(sheets.size()) * kSheetImages;
  return {read_sheets(sheets), read_json_labels(folder / labels, count)};
}

Samples read_mnist(const fs::path& folder, Split split) {
  const std::string prefix = split == Split::kTrain ? "train" : "t10k";
  const fs::path label_path = folder / (prefix + "-labels-idx1-ubyte");
  const at::Tensor images = detail::read_idx(folder / (prefix + "-images-idx3-ubyte"));
  const at::Tensor labels = detail::read_idx(label_path);
  if (images.dim() != 3 || labels.dim() != 1 || images.size(0) != labels.size(0)) {
    throw Error(ErrorCode::kBadFile, "images and labels do not belong together",
                label_path.string());
  }
  const auto* values = labels.const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < labels.size(0); ++i) {
    check_label(values[i], static_cast<size_t>(i), label_path);
  }
  return {images.unsqueeze(3), labels.to(at::kLong)};
}

struct Known {
  const char* name;
  Samples (*read)(const fs::path& folder, Split split);
  const ClassNames& classes;
};

const std::vector<Known>& known() {
  static const std::vector<Known> list = {{"cifar10", read_cifar10, kCifarClasses},
                                          {"mnist", read_mnist, kDigits},
                                          {"fashion-mnist", read_mnist, kFashionClasses}};
  return list;
}

}  // namespace

namespace detail {

at::Tensor read_idx(const fs::path& path) {
  const auto file = MappedFile::open(path);
  const auto header = file->bytes();
  const auto number = [&](size_t offset) {
    const auto bytes = file->bytes(offset, 4);
    int64_t value = 0;
    for (const std::byte byte : bytes) value = value * 256 + static_cast<int64_t>(byte);
    return value;
  };
  // Two zero bytes, the element type (8: unsigned byte), the number of dimensions.
  const int64_t magic = number(0);
  const int64_t dims = magic & 0xff;
  if (magic >> 8 != 8 || dims < 1 || dims > 4) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("{:#010x} at its beginning, expected an IDX file of bytes", magic),
                path.string());
  }
  std::vector<int64_t> sizes;
  int64_t rest = static_cast<int64_t>(header.size()) - 4 - 4 * dims;
  const int64_t available = rest;
  for (int64_t d = 0; d < dims; ++d) {
    sizes.push_back(number(4 + 4 * static_cast<size_t>(d)));
    rest = sizes.back() == 0 ? 0 : rest / sizes.back();  // keeps the product within the file
  }
  int64_t elements = 1;
  if (rest >= 1) {
    for (const int64_t size : sizes) elements *= size;
  }
  if (rest < 1 || elements != available) {
    throw Error(
        ErrorCode::kBadFile,
        fmt::format("sizes [{}] do not match its {} bytes", fmt::join(sizes, ", "), header.size()),
        path.string());
  }
  return file->tensor(4 + 4 * static_cast<uint64_t>(dims), at::kByte, sizes);
}

}  // namespace detail

std::vector<std::string> known_dataset_names() {
  std::vector<std::string> names;
  for (const Known& entry : known()) names.emplace_back(entry.name);
  return names;
}

fs::path data_cache_dir() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string chosen = variable("LATHE_DATA"); !chosen.empty()) return chosen;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return fs::path(cache) / "lathe" / "data";
  }
  const std::string home = variable("HOME");
  return fs::path(home.empty() ? "/root" : home) / ".cache" / "lathe" / "data";
}

DatasetPtr known_dataset(std::string_view name, Split split, const ImageOptions& options,
                         const fs::path& cache) {
  for (const Known& entry : known()) {
    if (entry.name != name) continue;
    const fs::path folder = cache / entry.name;
    // tools/fetch_data moves a complete folder into place; a missing file means a missing set.
    if (!fs::exists(folder / "SHA256SUMS")) {
      throw Error(ErrorCode::kIo, fmt::format("{} is not there", name), folder.string(),
                  fmt::format("run tools/fetch_data {}", name));
    }
    Samples samples = entry.read(folder, split);
    DatasetInfo info;
    info.name = fmt::format("{}:{}", name, split == Split::kTrain ? "train" : "test");
    info.classes = static_cast<int64_t>(entry.classes.size());
    info.class_names = entry.classes;
    return memory_images(samples.bytes, samples.labels, std::move(info), options);
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("no data set is called `{}`", name), "",
              did_you_mean(name, known_dataset_names()));
}

}  // namespace compress
