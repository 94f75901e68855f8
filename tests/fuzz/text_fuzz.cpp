// The text form of models: what parses prints to a text that parses to the same.

#include "compress/error.h"
#include "compress/graph/text.h"
#include "compress/graph/verify.h"
#include "tests/fuzz/require.h"

#include <cstdint>
#include <optional>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace compress;
  std::optional<Model> model;
  try {
    model = parse_model({reinterpret_cast<const char*>(data), size});
  } catch (const Error&) {
    return 0;
  }
  const std::string printed = print(*model);
  const Model again = parse_model(printed);  // an Error here is a finding
  FUZZ_REQUIRE(print(again) == printed);
  FUZZ_REQUIRE(problems(again) == problems(*model));
  return 0;
}
