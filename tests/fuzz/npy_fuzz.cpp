// Any bytes are an array no larger than the file, or an Error.

#include "compress/data/npy.h"
#include "compress/error.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    const std::string bytes(reinterpret_cast<const char*>(data), size);
    const at::Tensor array = compress::read_npy(compress::MappedFile::from_bytes(bytes, "fuzz"));
    if (static_cast<size_t>(array.numel()) * array.element_size() > size) std::abort();
    array.clone();  // reaches every element
  } catch (const compress::Error&) {
  }
  return 0;
}
