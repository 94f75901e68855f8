// The data sets that tools/fetch_data brings: CIFAR-10, MNIST, Fashion-MNIST.

#pragma once

#include "compress/data/images.h"

#include <filesystem>
#include <string>
#include <string_view>

namespace compress {

enum class Split { kTrain, kTest };

/// cifar10, mnist, fashion-mnist.
std::vector<std::string> known_dataset_names();

/// Where tools/fetch_data puts data: $LATHE_DATA, else ${XDG_CACHE_HOME:-~/.cache}/lathe/data.
std::filesystem::path data_cache_dir();

/// One of the data sets above, bytes in memory (MNIST: mapped). Throws Error(kIo), saying how to
/// fetch it, if it is not in `cache`; Error(kBadFile) if it is damaged.
DatasetPtr known_dataset(std::string_view name, Split split, const ImageOptions& options,
                         const std::filesystem::path& cache = data_cache_dir());

namespace detail {
/// A file of the IDX format (yann.lecun.com/exdb/mnist): bytes of 1 to 4 dimensions, not copied.
at::Tensor read_idx(const std::filesystem::path& path);
}  // namespace detail

}  // namespace compress
