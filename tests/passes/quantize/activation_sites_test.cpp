// Where quantizers stand, in graphs of a few lines.

#include "passes/quantize/activation_sites.h"

#include "compress/graph/text.h"
#include "tests/support/models.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <string>
#include <vector>

namespace compress {
namespace {

using ::testing::ElementsAre;

// "value:bits <- reader, reader"
std::vector<std::string> describe(const std::vector<ActivationSite>& sites) {
  std::vector<std::string> lines;
  for (const ActivationSite& site : sites) {
    std::vector<std::string> readers;
    for (const ActivationRead& read : site.reads) {
      readers.push_back(read.node->output()->name());
    }
    lines.push_back(
        fmt::format("{}:{} <- {}", site.value->name(), site.bits, fmt::join(readers, ", ")));
  }
  return lines;
}

std::vector<ActivationSite> sites_of(Model& model, int bits, int adds,
                                     AddOperands operands = AddOperands::kBoth) {
  std::vector<ActivationRead> reads;
  std::vector<const Node*> layers;
  for (const Weight& weight : weights(model)) {
    for (ActivationRead& read : layer_reads(weight, bits)) {
      layers.push_back(read.node);
      reads.push_back(std::move(read));
    }
  }
  if (adds > 0) {
    for (ActivationRead& read : residual_reads(model.graph(), layers, adds, operands)) {
      reads.push_back(std::move(read));
    }
  }
  return activation_sites(model.graph(), reads);
}

TEST(ActivationSites, OneValueHasOneQuantizerForAllItsLayers) {
  Model model = testing::parse_filled(R"(
input x : f32[2,8]
parameter a.weight : f32[4,8]
parameter b.weight : f32[4,8]
a = aten::linear(x, a.weight)
b = aten::linear(x, b.weight)
n = aten::neg(x)
return a = a
return b = b
return n = n
)");
  EXPECT_THAT(describe(sites_of(model, 8, 0)), ElementsAre("x:8 <- a, b"));
}

TEST(ActivationSites, NoneStandsBetweenALayerItsNormAndItsRelu) {
  Model model = testing::parse_filled(R"(
input x : f32[2,3,8,8]
parameter a.weight : f32[4,3,3,3]
parameter b.weight : f32[4,4,3,3]
buffer mean : f32[4] = [0, 0, 0, 0]
buffer var : f32[4] = [1, 1, 1, 1]
a = aten::conv2d(x, a.weight)
norm = aten::batch_norm(a, none, none, mean, var, false, 0.1, 0.00001, true)
relu = aten::relu(norm)
b = aten::conv2d(relu, b.weight)
return b = b
)");
  EXPECT_THAT(describe(sites_of(model, 8, 8)), ElementsAre("x:8 <- a", "relu:8 <- b"));
}

// A residual block with a strided, padded shortcut, and the average behind it.
constexpr const char* kBlock = R"(
input x : f32[2,4,8,8]
parameter a.weight : f32[8,4,3,3]
parameter b.weight : f32[8,8,3,3]
parameter fc.weight : f32[10,8]
a = aten::conv2d(x, a.weight, none, [2, 2], [1, 1])
relu_a = aten::relu(a)
b = aten::conv2d(relu_a, b.weight, none, [1, 1], [1, 1])
rows = aten::slice.Tensor(x, 2, 0, 8, 2)
columns = aten::slice.Tensor(rows, 3, 0, 8, 2)
padded = aten::pad(columns, [0, 0, 0, 0, 2, 2], "constant", 0.0)
sum = aten::add.Tensor(b, padded)
relu = aten::relu(sum)
mean = aten::mean.dim(relu, [2, 3])
fc = aten::linear(mean, fc.weight)
return fc = fc
)";

TEST(ActivationSites, GoAroundAResidualBlock) {
  Model model = testing::parse_filled(kBlock);
  EXPECT_THAT(describe(sites_of(model, 8, 8)),
              ElementsAre("x:8 <- a, rows", "relu_a:8 <- b", "b:8 <- sum", "relu:8 <- mean",
                          "mean:8 <- fc"));
}

TEST(ActivationSites, LeaveTheAccumulatorOfAnAddAloneWhereAsked) {
  Model model = testing::parse_filled(kBlock);
  EXPECT_THAT(describe(sites_of(model, 8, 8, AddOperands::kShortcut)),
              ElementsAre("x:8 <- a, rows", "relu_a:8 <- b", "relu:8 <- mean", "mean:8 <- fc"));
}

TEST(ActivationSites, LeaveAddsAloneWhenNoneAreAskedFor) {
  Model model = testing::parse_filled(kBlock);
  EXPECT_THAT(describe(sites_of(model, 8, 0)),
              ElementsAre("x:8 <- a", "relu_a:8 <- b", "mean:8 <- fc"));
}

TEST(ActivationSites, AValueOfTwoWidthsHasTwoQuantizers) {
  Model model = testing::parse_filled(kBlock);
  EXPECT_THAT(describe(sites_of(model, 4, 8)),
              ElementsAre("x:4 <- a", "relu_a:4 <- b", "columns:8 <- padded", "b:8 <- sum",
                          "relu:8 <- mean", "mean:4 <- fc"));
}

TEST(ActivationSites, StandInFrontOfPoolingThatTakesTheGreatest) {
  Model model = testing::parse_filled(R"(
input x : f32[2,3,8,8]
parameter a.weight : f32[4,3,3,3]
pool = aten::max_pool2d(x, [2, 2])
a = aten::conv2d(pool, a.weight)
return a = a
)");
  EXPECT_THAT(describe(sites_of(model, 8, 8)), ElementsAre("x:8 <- pool"));
}

TEST(ActivationSites, StandBehindAPartWhoseWholeNobodyRounds) {
  Model model = testing::parse_filled(R"(
input x : f32[2,5,8]
parameter a.weight : f32[4,8]
first = aten::select.int(x, 1, 0)
a = aten::linear(first, a.weight)
return a = a
)");
  EXPECT_THAT(describe(sites_of(model, 8, 8)), ElementsAre("first:8 <- a"));
}

TEST(ActivationSites, StandBehindMovedElementsThatOthersReadToo) {
  Model model = testing::parse_filled(R"(
input x : f32[2,2,4]
parameter a.weight : f32[4,8]
flat = aten::flatten.using_ints(x, 1)
a = aten::linear(flat, a.weight)
n = aten::neg(flat)
return a = a
return n = n
)");
  EXPECT_THAT(describe(sites_of(model, 8, 8)), ElementsAre("flat:8 <- a"));
}

TEST(ActivationSites, FindTheActivationOfEachKindOfLayer) {
  Model model = testing::parse_filled(R"(
input x : f32[2,4]
input i : i64[3]
parameter bias : f32[4]
parameter a.weight : f32[4,4]
parameter b.weight : f32[4,4]
parameter c.weight : f32[2,4]
parameter e.weight : f32[9,4]
a = aten::addmm(bias, x, a.weight)
b = aten::mm(a, b.weight)
c = aten::matmul(c.weight, b)
e = aten::embedding(e.weight, i)
return c = c
return e = e
)");
  EXPECT_THAT(describe(sites_of(model, 8, 0)), ElementsAre("x:8 <- a", "a:8 <- b", "b:8 <- c"));
}

TEST(ActivationSites, LeaveWhatIsRoundedAlone) {
  Model model = testing::parse_filled(kBlock);
  for (const ActivationSite& site : sites_of(model, 8, 8)) {
    fake_quantize(model.graph(), site, {});
  }
  EXPECT_TRUE(sites_of(model, 8, 8).empty());
}

TEST(ActivationSites, FakeQuantizationServesTheReadsOfItsSiteOnly) {
  Model model = parse_model(R"(
input x : f32[1,2]
parameter a.weight : f32[1,2] = [[1, 1]]
a = aten::linear(x, a.weight)
n = aten::neg(x)
return a = a
return n = n
)");
  fake_quantize(model.graph(), sites_of(model, 8, 0).at(0), {0.5, 1, 0, 3});
  EXPECT_THAT(
      print(model, {.types = false, .tensors = false}),
      ::testing::HasSubstr("x_rounded = aten::fake_quantize_per_tensor_affine(x, 0.5, 1, 0, 3)\n"
                           "a = aten::linear(x_rounded, a.weight)\nn = aten::neg(x)\n"));
}

}  // namespace
}  // namespace compress
