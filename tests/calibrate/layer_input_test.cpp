// The matrix of a layer's input times the matrix of its weight is the layer's output.

#include "compress/calibrate/layer_input.h"

#include "compress/calibrate/statistics.h"
#include "compress/model.h"
#include "compress/weight.h"

#include <ATen/ATen.h>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace compress {
namespace {

struct Case {
  std::string name, call;
  std::vector<int64_t> input, weight;
};

class LayerInput : public ::testing::TestWithParam<Case> {};

TEST_P(LayerInput, TimesTheWeightIsTheOutput) {
  const Case& c = GetParam();
  const at::Tensor x = at::randn(c.input), w = at::randn(c.weight);
  Model model;
  Value* input = model.graph().add_input("x", {at::kFloat, {}});
  input->type.sizes.emplace(c.input.begin(), c.input.end());
  Value* weight = model.add_tensor("w", w, TensorRole::kParameter);
  Graph::Call call{"aten::linear", {input, weight}, {}, "y", 1, ""};
  if (c.call == "addmm") {
    Value* bias = model.add_tensor("b", at::zeros({c.weight[1]}), TensorRole::kParameter);
    call = {"aten::addmm", {bias, input, weight}, {}, "y", 1, ""};
  } else if (c.call == "mm") {
    call.op = "aten::mm";
  } else if (c.call == "conv1d") {
    call = {"aten::conv1d",
            {input, weight, {}, std::vector<int64_t>{2}, std::vector<int64_t>{1}},
            {},
            "y",
            1,
            ""};
  } else if (c.call == "conv2d") {
    call = {"aten::conv2d",
            {input,
             weight,
             {},
             std::vector<int64_t>{2, 1},
             std::vector<int64_t>{1, 2},
             std::vector<int64_t>{1, 2},
             2},
            {},
            "y",
            1,
            ""};
  } else if (c.call == "same") {
    call = {"aten::conv2d.padding",
            {input, weight, {}, std::vector<int64_t>{1, 1}, "same"},
            {},
            "y",
            1,
            ""};
  }
  Node* layer = model.graph().append(std::move(call));
  model.graph().set_outputs({{"y", layer->output()}});
  ASSERT_TRUE(has_layer_input_matrix(*layer));

  const at::Tensor y = model.forward({x}).at(0);
  const at::Tensor matrix = layer_input_matrix(*layer, x);
  const std::vector<Weight> found = weights(model);
  ASSERT_EQ(found.size(), 1u);
  const at::Tensor rows = as_matrix(w, found[0].output_dim());
  const int64_t groups = matrix.size(0);
  std::vector<at::Tensor> parts;
  for (int64_t g = 0; g < groups; ++g) {
    parts.push_back(matrix[g].matmul(rows.chunk(groups)[g].t()));
  }
  const at::Tensor product = at::cat(parts, 1);  // [samples * positions, outputs]
  const at::Tensor expected = c.call.starts_with("conv") || c.call == "same"
                                  ? y.movedim(1, -1).reshape({-1, y.size(1)})
                                  : y.reshape({-1, y.size(-1)});
  ASSERT_EQ(product.sizes(), expected.sizes());
  EXPECT_TRUE(at::allclose(product, expected, 1e-4, 1e-4));

  Gram gram;
  gram.add(*layer, x);
  const at::Tensor exact = matrix.to(at::kDouble);
  EXPECT_EQ(gram.rows, matrix.size(1));
  EXPECT_TRUE(at::allclose(gram.sum, at::bmm(exact.transpose(1, 2), exact), 1e-4, 1e-4));

  Gram cross;
  const at::Tensor other = at::randn(x.sizes());
  cross.add(*layer, other, x);
  const at::Tensor left = layer_input_matrix(*layer, other).to(at::kDouble);
  EXPECT_EQ(cross.rows, gram.rows);
  EXPECT_TRUE(at::allclose(cross.sum, at::bmm(left.transpose(1, 2), exact), 1e-4, 1e-4));

  const Statistics answers =
      collect_statistics(model, {{"y", Statistic::kInputGram}}, [&](const auto& take) {
        take({x.narrow(0, 0, 1)});
        take({x.narrow(0, 1, x.size(0) - 1)});
      });
  EXPECT_EQ(answers.samples, x.size(0));
  EXPECT_TRUE(at::allclose(answers.at({"y", Statistic::kInputGram}), gram.mean(), 1e-4, 1e-4));
}

INSTANTIATE_TEST_SUITE_P(Layers, LayerInput,
                         ::testing::Values(Case{"linear", "linear", {3, 5, 4}, {6, 4}},
                                           Case{"addmm", "addmm", {5, 4}, {4, 6}},
                                           Case{"mm", "mm", {5, 4}, {4, 6}},
                                           Case{"conv1d", "conv1d", {3, 4, 9}, {5, 4, 3}},
                                           Case{"conv2d", "conv2d", {3, 4, 9, 8}, {6, 2, 3, 2}},
                                           Case{"same", "same", {2, 3, 6, 7}, {4, 3, 3, 4}}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace compress
