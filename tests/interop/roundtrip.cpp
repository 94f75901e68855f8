// Loads a .pt2, checks that its text form is stable, runs it, and writes it again.
//
//   roundtrip IN.pt2 INPUTS.safetensors OUT.pt2 OUTPUTS.safetensors
//
// Inputs are named in.0, in.1, ...; outputs come back as out.0, out.1, ... With IN.pt2 alone the
// text form goes to stdout.

#include "compress/graph/text.h"
#include "compress/io/pt2.h"
#include "compress/io/safetensors.h"
#include "compress/model.h"

#include <c10/core/GradMode.h>

#include <fmt/format.h>

#include <cstdio>
#include <exception>

namespace {

void run(const compress::Model& model, const char* inputs_path, const char* outputs_path) {
  const compress::SafetensorsFile stored = compress::SafetensorsFile::open(inputs_path);
  std::vector<at::Tensor> inputs;
  while (const auto* entry = stored.find(fmt::format("in.{}", inputs.size()))) {
    inputs.push_back(stored.tensor(*entry));
  }
  const at::NoGradGuard no_grad;
  compress::NamedTensors outputs;
  for (const at::Tensor& output : model.forward(inputs)) {
    outputs.emplace_back(fmt::format("out.{}", outputs.size()), output.contiguous());
  }
  compress::save_safetensors(outputs_path, outputs);
}

int roundtrip(int count, char** arguments) {
  const compress::Model model = compress::load_pt2(std::filesystem::path(arguments[1]));
  const std::string text = compress::print(model);
  if (count == 2) fmt::print("{}", text);
  for (const std::string& note : model.notes) fmt::print(stderr, "note: {}\n", note);
  if (compress::print(compress::parse_model(text)) != text) {
    fmt::print(stderr, "the text form is not stable\n");
    return 1;
  }
  if (count > 3) compress::save_pt2(model, arguments[3]);
  if (count > 4) run(model, arguments[2], arguments[4]);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2 && count != 5) {
    fmt::print(stderr,
               "usage: roundtrip IN.pt2 [INPUTS.safetensors OUT.pt2 OUTPUTS.safetensors]\n");
    return 2;
  }
  try {
    return roundtrip(count, arguments);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", arguments[1], error.what());
    return 1;
  }
}
