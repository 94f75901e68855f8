// Files of torch.save, and bare pickles: every tensor that comes out lies inside its storage.

#include "compress/error.h"
#include "compress/io/pickle.h"
#include "compress/io/state_dict.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace compress;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    const Pickle pickle = read_pickle(bytes, "fuzz");
    FUZZ_REQUIRE(pickle.size_bytes <= size);
    FUZZ_REQUIRE(!pickle.describe(pickle.root).empty());
    for (const PickleTensor& tensor : pickle.tensors) {
      FUZZ_REQUIRE(tensor.storage < pickle.storages.size());
    }
  } catch (const Error&) {
  }
  try {
    const StateDict state = load_state_dict(MappedFile::from_bytes(bytes));
    FUZZ_REQUIRE(!state.tensors.empty() || state.format == "safetensors");
    volatile unsigned sum = 0;
    for (const auto& [name, tensor] : state.tensors) {
      FUZZ_REQUIRE(tensor.defined());
      const at::Tensor plain = tensor.contiguous();
      const auto* begin = static_cast<const unsigned char*>(plain.const_data_ptr());
      for (size_t i = 0; i < plain.nbytes(); i += 16) sum = sum + begin[i];
    }
    for (const auto& [alias, name] : state.ties) FUZZ_REQUIRE(state.find(name) != nullptr);
  } catch (const Error&) {
  }
  return 0;
}
