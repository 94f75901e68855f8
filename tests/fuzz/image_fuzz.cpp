// Any bytes are an image within the stated limits, or an Error.

#include "compress/data/image.h"
#include "compress/error.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const compress::Image image = compress::decode_image({data, data + size}, "fuzz", 3);
    const auto pixels = static_cast<size_t>(image.height * image.width);
    // The bound of the interface: 65536 pixels for free, then what deflate can expand.
    if (image.bytes.size() != pixels * 3 || pixels > 65536 + size * 1032 * 8) std::abort();
  } catch (const compress::Error&) {
  }
  return 0;
}
