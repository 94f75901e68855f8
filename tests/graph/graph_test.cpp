// Editing of graphs keeps uses, names and order right.

#include "compress/graph/graph.h"

#include "compress/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace compress {
namespace {

TensorType f32(std::vector<Dim> sizes) { return {c10::kFloat, std::move(sizes)}; }

TEST(Graph, FillsInDefaultsAndExpandsNumbersToLists) {
  Graph graph;
  Value* x = graph.add_input("x", f32({1, 3, 8, 8}));
  Value* w = graph.add_named_tensor("w", f32({4, 3, 3, 3}));
  Node* conv =
      graph.append({.op = "aten::conv2d", .arguments = {x, w}, .keywords = {{"padding", 1}}});
  EXPECT_EQ(conv->arguments().size(), 7);
  EXPECT_THAT(conv->argument("padding").ints(), testing::ElementsAre(1, 1));
  EXPECT_THAT(conv->argument("stride").ints(), testing::ElementsAre(1, 1));
  EXPECT_TRUE(conv->argument("bias").is_none());
  EXPECT_EQ(conv->argument("groups").as<int64_t>(), 1);
}

TEST(Graph, RefusesUnknownOperatorsAndArguments) {
  Graph graph;
  Value* x = graph.add_input("x", f32({2}));
  EXPECT_THROW(graph.append({.op = "aten::reluu", .arguments = {x}}), Error);
  EXPECT_THROW(graph.append({.op = "aten::relu"}), Error);
  EXPECT_THROW(graph.append({.op = "aten::relu", .arguments = {x, x}}), Error);
  try {
    graph.append(
        {.op = "aten::softmax.int", .arguments = {x}, .keywords = {{"dimm", 0}, {"dim", 0}}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.hint(), "did you mean `dim`?");
  }
}

TEST(Graph, MakesNamesOfResultsUnique) {
  Graph graph;
  Value* x = graph.add_input("x", f32({2}));
  Node* first = graph.append({.op = "aten::relu", .arguments = {x}});
  Node* second = graph.append({.op = "aten::relu", .arguments = {first->output()}});
  EXPECT_EQ(first->output()->name(), "relu");
  EXPECT_EQ(second->output()->name(), "relu_1");
  EXPECT_EQ(graph.find("relu_1"), second->output());
  EXPECT_THROW(graph.add_named_tensor("relu", {}), Error);
}

TEST(Graph, RemovesWhatNothingUsesBackToTheTensors) {
  Graph graph;
  Value* x = graph.add_input("x", f32({2}));
  Value* w = graph.add_named_tensor("w", f32({2}));
  Node* dead = graph.append({.op = "aten::mul.Tensor", .arguments = {w, w}});
  graph.append({.op = "aten::relu", .arguments = {dead->output()}});
  Node* live = graph.append({.op = "aten::relu", .arguments = {x}});
  graph.set_outputs({{"out", live->output()}});
  EXPECT_THAT(graph.remove_dead(), testing::ElementsAre("w"));
  EXPECT_EQ(graph.nodes().size(), 1);
  EXPECT_EQ(graph.find("w"), nullptr);
}

TEST(Graph, ReplacesUsesInNodesListsAndOutputsButNotInTheExceptedNode) {
  Graph graph;
  Value* x = graph.add_input("x", f32({2}));
  Node* relu = graph.append({.op = "aten::relu", .arguments = {x}});
  Node* cat = graph.append({.op = "aten::cat", .arguments = {Argument::List{x, relu->output()}}});
  graph.set_outputs({{"cat", cat->output()}, {"x", x}});
  graph.replace_uses(x, relu->output(), relu);
  EXPECT_EQ(relu->arguments()[0].value(), x);
  EXPECT_EQ(cat->arguments()[0].list()[0].value(), relu->output());
  EXPECT_EQ(graph.outputs()[1].value.value(), relu->output());
  const UseMap uses(graph);
  EXPECT_EQ(uses.of(relu->output()).size(), 2);
  EXPECT_EQ(uses.of(x).size(), 1);
}

TEST(Graph, InsertsInFrontOfANode) {
  Graph graph;
  Value* x = graph.add_input("x", f32({2}));
  Node* last = graph.append({.op = "aten::relu", .arguments = {x}});
  graph.insert(last, {.op = "aten::neg", .arguments = {x}});
  EXPECT_EQ(graph.nodes().front().op(), "aten::neg");
  const Graph copy = graph.clone();
  EXPECT_EQ(copy.nodes().size(), 2);
  EXPECT_NE(copy.inputs()[0], x);
  EXPECT_EQ(copy.nodes().back().arguments()[0].value(), copy.inputs()[0]);
}

TEST(Graph, GivesAnOperatorThatReturnsAListOneOutputAnElement) {
  Graph graph;
  Value* x = graph.add_input("x", f32({6}));
  Node* split = graph.append({.op = "aten::split.Tensor", .arguments = {x, 2}, .list_size = 3});
  EXPECT_EQ(split->outputs().size(), 3);
}

}  // namespace
}  // namespace compress
