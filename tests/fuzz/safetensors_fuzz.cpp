// Safetensors: whatever opens gives the same names, shapes, bytes and metadata when written and
// read again.

#include "compress/error.h"
#include "compress/io/safetensors.h"
#include "tests/fuzz/require.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>

namespace {

std::map<std::string, at::Tensor> by_name(const compress::NamedTensors& tensors) {
  return {tensors.begin(), tensors.end()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace compress;
  try {
    const SafetensorsFile file(
        MappedFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size)));
    const NamedTensors tensors = file.tensors();
    static const std::string path =
        (std::filesystem::temp_directory_path() / ("lathe-fuzz-" + std::to_string(getpid())))
            .string();
    save_safetensors(path, tensors, file.metadata());
    const SafetensorsFile again = SafetensorsFile::open(path);
    ::unlink(path.c_str());
    FUZZ_REQUIRE(again.metadata() == file.metadata());
    FUZZ_REQUIRE(again.entries().size() == file.entries().size());
    const auto expected = by_name(tensors), found = by_name(again.tensors());
    FUZZ_REQUIRE(found.size() == expected.size());
    for (const auto& [name, tensor] : expected) {
      const at::Tensor& other = found.at(name);
      FUZZ_REQUIRE(other.scalar_type() == tensor.scalar_type());
      FUZZ_REQUIRE(other.sizes() == tensor.sizes());
      FUZZ_REQUIRE(tensor.nbytes() == 0 ||
                   std::memcmp(other.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()) ==
                       0);
    }
  } catch (const Error&) {
  }
  return 0;
}
