// Every golden file cut at every length and with every byte changed: an error or a result, never a
// crash, and never memory out of proportion.

#include "compress/io/state_dict.h"
#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <gtest/gtest.h>

namespace compress::testing {
namespace {

class Hostile : public ::testing::TestWithParam<const char*> {};

// Touches all that was loaded, so that a view out of bounds would be seen by a sanitizer.
void try_load(const std::string& bytes) {
  try {
    const StateDict state = load_state_dict(MappedFile::from_bytes(bytes));
    unsigned sum = 0;
    for (const auto& [name, tensor] : state.tensors) {
      const at::Tensor plain = tensor.contiguous();
      const auto* data = static_cast<const unsigned char*>(plain.const_data_ptr());
      for (size_t i = 0; i < plain.nbytes(); ++i) sum += data[i];
    }
    ASSERT_NE(sum, 0xffffffffu);
  } catch (const Error&) {
  }
}

TEST_P(Hostile, CutAnywhereIsAnError) {
  const std::string bytes = read_all(source_dir() / "tests/golden/io" / GetParam());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(load_state_dict(MappedFile::from_bytes(bytes.substr(0, size))), Error) << size;
  }
}

TEST_P(Hostile, AnyChangedByteDoesNoHarm) {
  const std::string bytes = read_all(source_dir() / "tests/golden/io" / GetParam());
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const char value : {'\0', '\x7f', '\xff'}) {
      std::string changed = bytes;
      changed[at] = value;
      try_load(changed);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(StateDict, Hostile,
                         ::testing::Values("views.pth", "views_legacy.pth", "dtypes.safetensors",
                                           "legacy.pth", "lone_tensor.pth"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace compress::testing
