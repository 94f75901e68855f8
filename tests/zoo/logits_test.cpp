// Every architecture of the zoo against logits that independent Python implementations computed
// (tests/golden/zoo/make_logits.py) from weights made by one formula on both sides.

#include "compress/graph/text.h"
#include "compress/io/state_dict.h"
#include "compress/zoo/zoo.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <set>

namespace compress {
namespace {

using nlohmann::json;

// The twin of `uniform` in make_logits.py: a hash of the name (FNV-1a) and the index, in [-1, 1).
std::vector<double> uniform(const std::string& name, int64_t count) {
  uint32_t seed = 2166136261u;
  for (const char byte : name) seed = (seed ^ static_cast<uint8_t>(byte)) * 16777619u;
  std::vector<double> numbers(count);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t x = static_cast<uint32_t>(i) * 0x9E3779B1u + seed;
    x ^= x >> 15;
    x *= 0x85EBCA77u;
    x ^= x >> 13;
    x *= 0xC2B2AE3Du;
    x ^= x >> 16;
    numbers[i] = x / 2147483648.0 - 1.0;
  }
  return numbers;
}

// The twin of `values` in make_logits.py.
at::Tensor values(const std::string& name, at::IntArrayRef sizes) {
  const int64_t count = c10::multiply_integers(sizes);
  at::Tensor tensor = at::empty(sizes, at::kFloat);
  const double scale = sizes.size() < 2 ? 0 : std::sqrt(6.0 / (count / sizes[0]));
  int64_t i = 0;
  for (const double u : uniform(name, count)) {
    double value = 0.1 * u;
    if (sizes.size() >= 2) {
      value = u * scale;
    } else if (name.ends_with("running_var")) {
      value = 1.0 + 0.5 * std::abs(u);
    } else if (name.ends_with(".weight")) {
      value = 1.0 + 0.1 * u;
    }
    tensor.data_ptr<float>()[i++] = static_cast<float>(value);
  }
  return tensor;
}

at::Tensor make_input(const Value& input, int64_t vocabulary) {
  if (input.type.dtype == at::kLong) {  // 2 sentences of 7 tokens
    at::Tensor ids = at::empty({2, 7}, at::kLong);
    int64_t i = 0;
    for (const double u : uniform("input", 14)) {
      ids.data_ptr<int64_t>()[i++] = static_cast<int64_t>((u + 1.0) / 2.0 * vocabulary);
    }
    return ids;
  }
  std::vector<int64_t> sizes;
  for (const Dim& dim : *input.type.sizes) sizes.push_back(dim.is_symbolic() ? 2 : dim.size);
  const std::vector<double> numbers = uniform("input", c10::multiply_integers(sizes));
  return at::tensor(numbers).to(at::kFloat).reshape(sizes);
}

json golden() {
  std::ifstream file(testing::source_dir() / "tests/golden/zoo/logits.json");
  return json::parse(file);
}

void fill(Model& model) {
  StateDict weights;
  for (const NamedTensor& tensor : model.tensors()) {
    weights.tensors.emplace_back(tensor.name, values(tensor.name, tensor.tensor.sizes()));
  }
  zoo::load_into(model, weights);
}

int64_t vocabulary_of(const std::string& spec) { return spec.starts_with("nanogpt") ? 65 : 97; }

TEST(ZooLogits, EqualThoseOfThePythonOriginals) {
  at::set_num_threads(1);
  const c10::NoGradGuard no_grad;
  const json list = golden();
  for (const auto& [spec, expected] : list.items()) {
    SCOPED_TRACE(spec);
    Model model = zoo::build(spec);
    fill(model);
    const Value& input = *model.graph().inputs().at(0);
    const at::Tensor output = model.forward({make_input(input, vocabulary_of(spec))}).at(0);
    EXPECT_EQ(output.sizes().vec(), expected["sizes"].get<std::vector<int64_t>>());
    const at::Tensor flat = output.to(at::kDouble).flatten();
    const double rms = expected["rms"];
    // fp32 sums in another order: 1e-4 of the output's own magnitude.
    const double tolerance = 1e-4 * rms;
    EXPECT_NEAR(flat.square().mean().sqrt().item<double>(), rms, tolerance);
    const std::vector<double> elements = expected["elements"];
    for (size_t i = 0; i < elements.size(); ++i) {
      const int64_t place = static_cast<int64_t>(i) * flat.numel() / 20;
      EXPECT_NEAR(flat[place].item<double>(), elements[i], tolerance) << "element " << place;
    }
  }
}

TEST(ZooLogits, CoverEveryArchitecture) {
  std::set<std::string> covered;
  const json list = golden();
  for (const auto& [spec, expected] : list.items()) covered.insert(spec.substr(0, spec.find('{')));
  for (const zoo::Entry& entry : zoo::entries())
    EXPECT_TRUE(covered.contains(entry.name)) << entry.name;
}

TEST(ZooGraphs, PrintAndParseBackToTheSameText) {
  for (const char* spec : {"resnet20-cifar10", "mobilenet_v2", "nanogpt{layers=1}",
                           "bert{layers=1,width=64,heads=2}", "vit{layers=1,width=64,heads=2}"}) {
    const std::string text = print(zoo::build(spec));
    EXPECT_EQ(print(parse_model(text)), text) << spec;
  }
}

TEST(ZooGraphs, RunAtOtherBatchSizesAndLengths) {
  const c10::NoGradGuard no_grad;
  const Model images = zoo::build("resnet20-cifar10");
  EXPECT_EQ(images.forward({at::zeros({5, 3, 32, 32})}).at(0).sizes(), at::IntArrayRef({5, 10}));
  const Model text = zoo::build("gpt2{layers=1,width=64,heads=2,vocabulary=11,context=9}");
  EXPECT_EQ(text.forward({at::zeros({3, 9}, at::kLong)}).at(0).sizes(),
            at::IntArrayRef({3, 9, 11}));
}

}  // namespace
}  // namespace compress
