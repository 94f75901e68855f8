// NumPy's .npy files.

#pragma once

#include "compress/io/mapped_file.h"

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>

namespace compress {

/// The array of a .npy file, of versions 1 to 3 of the format: little-endian (or single-byte) bool,
/// int8..64, uint8, float16, float32, float64, complex64, complex128. A C-order array is a view of
/// the mapped file (copied where the header leaves it unaligned), a Fortran-order one a view with
/// reversed strides. Throws Error(kBadFile) with the byte offset if the file is damaged or its size
/// is not what the header says, Error(kUnsupported) for objects, structures and big-endian numbers.
at::Tensor read_npy(const std::filesystem::path& path);
at::Tensor read_npy(const std::shared_ptr<MappedFile>& file);

}  // namespace compress
