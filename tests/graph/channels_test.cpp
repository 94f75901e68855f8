// Coupled channels in graphs that are hard in one way each: units found, law held.

#include "compress/graph/channels.h"

#include "tests/support/channels.h"
#include "tests/support/errors.h"
#include "tests/support/models.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::vector<size_t> units_of(const Model& model) {
  std::vector<size_t> counts;
  for (const ChannelGroup& group : analyse(model).groups()) counts.push_back(group.units.size());
  return counts;
}

std::string why_frozen(const Model& model, const std::string& tensor, int64_t dim) {
  for (const FrozenChannels& frozen : analyse(model).frozen()) {
    if (frozen.tensor->name() == tensor && frozen.dim == dim) return frozen.why;
  }
  return "is free";
}

// Three random choices of exact units, and three of all.
void expect_law(const std::string& text) {
  size_t moved = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const LawReport report =
        check_channel_law(parse_filled(text, seed), {.inexact = seed > 3, .seed = seed});
    moved += report.moved > 1e-3;
  }
  // What is cut off later, or behind a relu that is shut, moves nothing.
  EXPECT_GE(moved, 4) << "zeroing changed nothing: the test says nothing";
}

void expect_units(const std::string& text, const std::vector<size_t>& counts) {
  EXPECT_THAT(units_of(parse_filled(text)), ::testing::UnorderedElementsAreArray(counts));
  expect_law(text);
}

TEST(Channels, GoFromOneLayerToTheNext) {
  expect_units(R"(
    input x : f32[batch,4]
    parameter a.weight : f32[6,4]
    parameter a.bias : f32[6]
    parameter b.weight : f32[3,6]
    a = aten::linear(x, a.weight, a.bias)
    act = aten::sigmoid(a)
    b = aten::linear(act, b.weight)
    return output = b
  )",
               {6});
}

TEST(Channels, SayWhatOneUnitCuts) {
  const Model model = parse_filled(R"(
    input x : f32[batch,4]
    parameter a.weight : f32[6,4]
    parameter b.weight : f32[3,6]
    a = aten::linear(x, a.weight)
    b = aten::linear(a, b.weight)
    return output = b
  )");
  const ChannelGroups groups = analyse(model);
  ASSERT_EQ(groups.groups().size(), 1);
  EXPECT_EQ(print(groups.groups()[0]), "6 units of 7 parameters: a.weight[0], b.weight[1]");
  const std::vector<ChannelCut> cuts = groups.cuts(groups.groups()[0].units[2]);
  ASSERT_EQ(cuts.size(), 2);
  EXPECT_EQ(cuts[0].tensor->name(), "a.weight");
  EXPECT_THAT(cuts[0].indices, ElementsAre(2));
  EXPECT_EQ(cuts[1].dim, 1);
  EXPECT_THAT(cuts[1].indices, ElementsAre(2));
  EXPECT_THAT(why_frozen(model, "a.weight", 1), HasSubstr("meets the input `x`"));
  EXPECT_THAT(why_frozen(model, "b.weight", 0), HasSubstr("is the output `output`"));
}

TEST(Channels, OfATensorThatNothingUsesStay) {
  const Model model = parse_filled(R"(
    input x : f32[batch,4]
    parameter a.weight : f32[6,4]
    parameter idle.weight : f32[5,7]
    a = aten::linear(x, a.weight)
    return output = a
  )");
  EXPECT_EQ(analyse(model).groups().size(), 0);
  EXPECT_THAT(why_frozen(model, "idle.weight", 1), HasSubstr("is used by nothing"));
}

TEST(Channels, OfResidualsGoTogether) {
  expect_units(R"(
    input x : f32[batch,3,5,5]
    parameter stem : f32[8,3,1,1]
    parameter inner : f32[6,8,3,3]
    parameter outer : f32[8,6,3,3]
    parameter head : f32[2,8,1,1]
    s = aten::conv2d(x, stem)
    r = aten::relu(s)
    i = aten::conv2d(r, inner, none, [1, 1], [1, 1])
    j = aten::relu(i)
    o = aten::conv2d(j, outer, none, [1, 1], [1, 1])
    sum = aten::add.Tensor(r, o)
    h = aten::conv2d(sum, head)
    return output = h
  )",
               {8, 6});
}

TEST(Channels, OfAPixelShuffleGoByFours) {
  const std::string text = R"(
    input x : f32[batch,3,4,4]
    parameter a : f32[32,3,1,1]
    parameter b : f32[5,8,1,1]
    c = aten::conv2d(x, a)
    p = aten::pixel_shuffle(c, 2)
    d = aten::conv2d(p, b)
    return output = d
  )";
  expect_units(text, {8});
  const Model model = parse_filled(text);
  EXPECT_EQ(analyse(model).groups()[0].dims[0].indices_each, 4);
}

TEST(Channels, OfGroupedQueriesAreHeadsQueriesAndTwoKindsOfOffsets) {
  expect_units(R"(
    input x : f32[batch,5,16]
    parameter q.weight : f32[64,16]
    parameter k.weight : f32[16,16]
    parameter v.weight : f32[16,16]
    parameter o.weight : f32[16,64]
    q = aten::linear(x, q.weight)
    k = aten::linear(x, k.weight)
    v = aten::linear(x, v.weight)
    n = aten::sym_size.int(x, 0)
    qv = aten::view(q, [n, 5, 8, 8])
    kv = aten::view(k, [n, 5, 2, 8])
    vv = aten::view(v, [n, 5, 2, 8])
    qt = aten::transpose.int(qv, 1, 2)
    kt = aten::transpose.int(kv, 1, 2)
    vt = aten::transpose.int(vv, 1, 2)
    a = aten::scaled_dot_product_attention(qt, kt, vt, enable_gqa=true)
    at = aten::transpose.int(a, 1, 2)
    f = aten::reshape(at, [n, 5, 64])
    o = aten::linear(f, o.weight)
    return output = o
  )",
               {2, 4, 8, 8});
}

TEST(Channels, OfHeadsThatTheBatchHides) {
  expect_units(R"(
    input x : f32[batch,5,16]
    parameter q.weight : f32[32,16]
    parameter k.weight : f32[32,16]
    parameter v.weight : f32[32,16]
    parameter o.weight : f32[16,32]
    n = aten::sym_size.int(x, 0)
    bh = scalar::mul(n, 4)
    q = aten::linear(x, q.weight)
    k = aten::linear(x, k.weight)
    v = aten::linear(x, v.weight)
    q4 = aten::view(q, [n, 5, 4, 8])
    k4 = aten::view(k, [n, 5, 4, 8])
    v4 = aten::view(v, [n, 5, 4, 8])
    qt = aten::transpose.int(q4, 1, 2)
    kt = aten::transpose.int(k4, 1, 2)
    vt = aten::transpose.int(v4, 1, 2)
    q3 = aten::reshape(qt, [bh, 5, 8])
    k3 = aten::reshape(kt, [bh, 5, 8])
    v3 = aten::reshape(vt, [bh, 5, 8])
    kx = aten::transpose.int(k3, 1, 2)
    s = aten::bmm(q3, kx)
    p = aten::softmax.int(s, -1)
    y = aten::bmm(p, v3)
    y4 = aten::view(y, [n, 4, 5, 8])
    yt = aten::transpose.int(y4, 1, 2)
    f = aten::reshape(yt, [n, 5, 32])
    o = aten::linear(f, o.weight)
    return output = o
  )",
               {4, 8, 8});
}

TEST(Channels, OfRepeatsAndStridedSlices) {
  expect_units(R"(
    input x : f32[batch,4]
    parameter a : f32[20,4]
    parameter b : f32[3,20]
    l = aten::linear(x, a)
    s = aten::slice.Tensor(l, 1, 0, 9223372036854775807, 2)
    r = aten::repeat_interleave.self_int(s, 2, 1)
    t = aten::slice.Tensor(l, 1, 1, 9223372036854775807, 2)
    u = aten::repeat(t, [1, 2])
    sum = aten::add.Tensor(r, u)
    o = aten::linear(sum, b)
    return output = o
  )",
               {5});
}

TEST(Channels, OfGroupedConvolutionsAndAShuffle) {
  const std::string text = R"(
    input x : f32[batch,3,5,5]
    parameter a : f32[24,3,1,1]
    parameter b : f32[24,6,3,3]
    parameter c : f32[12,4,3,3]
    parameter d : f32[12,2,2,2]
    parameter e : f32[3,6,1,1]
    x0 = aten::conv2d(x, a)
    x1 = aten::conv2d(x0, b, none, [1, 1], [1, 1], [1, 1], 4)
    n = aten::sym_size.int(x, 0)
    v = aten::view(x1, [n, 4, 6, 5, 5])
    t = aten::transpose.int(v, 1, 2)
    w = aten::reshape(t, [n, 24, 5, 5])
    x2 = aten::conv2d(w, c, none, [1, 1], [1, 1], [1, 1], 6)
    x3 = aten::conv_transpose2d.input(x2, d, none, [1, 1], [0, 0], [0, 0], 3)
    x4 = aten::conv2d(x3, e)
    return output = x4
  )";
  EXPECT_THAT(units_of(parse_filled(text)), ::testing::Not(IsEmpty()));
  expect_law(text);
}

TEST(Channels, OfDepthwiseConvolutionsWithAMultiplier) {
  expect_units(R"(
    input x : f32[batch,3,5,5]
    parameter a : f32[6,3,1,1]
    parameter b : f32[12,1,3,3]
    parameter c : f32[2,12,1,1]
    x0 = aten::conv2d(x, a)
    x1 = aten::conv2d(x0, b, none, [1, 1], [1, 1], [1, 1], 6)
    x2 = aten::conv2d(x1, c)
    return output = x2
  )",
               {6, 2});
}

TEST(Channels, OfAShortcutThatPadsItsChannels) {
  expect_units(R"(
    input x : f32[batch,3,6,6]
    parameter a : f32[4,3,1,1]
    parameter b : f32[8,4,3,3]
    parameter c : f32[2,8,1,1]
    x0 = aten::conv2d(x, a)
    x1 = aten::conv2d(x0, b, none, [2, 2], [1, 1])
    s0 = aten::slice.Tensor(x0, 2, 0, 9223372036854775807, 2)
    s1 = aten::slice.Tensor(s0, 3, 0, 9223372036854775807, 2)
    p = aten::constant_pad_nd(s1, [0, 0, 0, 0, 2, 2])
    sum = aten::add.Tensor(x1, p)
    o = aten::conv2d(sum, c)
    return output = o
  )",
               {4, 4});
}

TEST(Channels, AreRolledFlippedAndCutFromTheEnds) {
  expect_law(R"(
    input x : f32[batch,3]
    parameter a : f32[10,3]
    parameter b : f32[2,7]
    l = aten::linear(x, a)
    r = aten::roll(l, [3], [1])
    f = aten::flip(r, [1])
    p = aten::pad(f, [-2, -1])
    g = aten::relu(p)
    o = aten::linear(g, b)
    return output = o
  )");
}

TEST(Channels, OfGatesAndTheirHalves) {
  expect_units(R"(
    input x : f32[batch,3]
    parameter a : f32[12,3]
    parameter b : f32[8,6]
    parameter c : f32[2,4]
    l = aten::linear(x, a)
    g = aten::glu(l)
    m = aten::linear(g, b)
    u, v = aten::chunk(m, 2, -1)
    s = aten::silu(u)
    p = aten::mul.Tensor(s, v)
    o = aten::linear(p, c)
    return output = o
  )",
               {6, 4});
}

TEST(Channels, OfBranchesOfDifferentSizesAreSplitAndJoined) {
  expect_law(R"(
    input x : f32[batch,3,4,4]
    parameter a : f32[10,3,1,1]
    parameter b : f32[5,4,1,1]
    parameter c : f32[2,11,1,1]
    l = aten::conv2d(x, a)
    u, v = aten::split_with_sizes(l, [4, 6], 1)
    w = aten::conv2d(u, b)
    j = aten::cat([w, v], 1)
    o = aten::conv2d(j, c)
    return output = o
  )");
}

TEST(Channels, OfGroupNormAreExactOnlyAsWholeGroups) {
  const std::string text = R"(
    input x : f32[batch,3,4,4]
    parameter a : f32[8,3,1,1]
    parameter n.weight : f32[8]
    parameter n.bias : f32[8]
    parameter b : f32[2,8,1,1]
    l = aten::conv2d(x, a)
    g = aten::group_norm(l, 4, n.weight, n.bias)
    o = aten::conv2d(g, b)
    return output = o
  )";
  expect_units(text, {4, 2});
  const Model model = parse_filled(text);
  for (const ChannelGroup& group : analyse(model).groups()) {
    EXPECT_EQ(group.exact(), group.units.size() == 4);
    if (!group.exact()) {
      EXPECT_THAT(group.why_inexact, HasSubstr("statistics over channels"));
    }
  }
}

TEST(Channels, OfRecurrentLayersAreHiddenOnes) {
  expect_units(R"(
    input x : f32[batch,7,4]
    parameter e : f32[6,4]
    parameter wi : f32[20,6]
    parameter wh : f32[20,5]
    parameter bi : f32[20]
    parameter bh : f32[20]
    parameter ri : f32[20,6]
    parameter rh : f32[20,5]
    parameter si : f32[20]
    parameter sh : f32[20]
    parameter o : f32[3,10]
    n = aten::sym_size.int(x, 0)
    h = aten::zeros([2, n, 5])
    c = aten::zeros([2, n, 5])
    l = aten::linear(x, e)
    y, hn, cn = aten::lstm.input(l, [h, c], [wi, wh, bi, bh, ri, rh, si, sh], true, 1, 0.0, false, true, true)
    z = aten::linear(y, o)
    return output = z
  )",
               {6, 5});
}

TEST(Channels, OfSumsInEinsteinsNotation) {
  expect_units(R"(
    input x : f32[batch,5,4]
    parameter a : f32[6,4]
    parameter b : f32[6,3]
    l = aten::einsum("bnc,hc->bnh", [x, a])
    o = aten::einsum("bnh,ho->bno", [l, b])
    return output = o
  )",
               {6});
}

TEST(Channels, OfTiedWeightsGoInBothUses) {
  expect_units(R"(
    input tokens : i64[batch,5]
    parameter table : f32[11,8]
    parameter up : f32[6,8]
    parameter down : f32[8,6]
    e = aten::embedding(table, tokens)
    u = aten::linear(e, up)
    a = aten::gelu(u)
    d = aten::linear(a, down)
    s = aten::add.Tensor(e, d)
    l = aten::linear(s, table)
    return output = l
  )",
               {8, 6});
}

TEST(Channels, OfOneDimensionUnderTwoHeadCounts) {
  expect_law(R"(
    input x : f32[batch,4]
    parameter a : f32[24,4]
    parameter f : f32[4,6]
    parameter g : f32[6,4]
    parameter b : f32[3,24]
    n = aten::sym_size.int(x, 0)
    l = aten::linear(x, a)
    v = aten::view(l, [n, 4, 6])
    s = aten::mul.Tensor(v, f)
    w = aten::reshape(s, [n, 24])
    t = aten::add.Tensor(l, w)
    u = aten::view(t, [n, 6, 4])
    m = aten::mul.Tensor(u, g)
    z = aten::reshape(m, [n, 24])
    o = aten::linear(z, b)
    return output = o
  )");
}

TEST(Channels, ChosenByAConstantIndexMoveIt) {
  const std::string text = R"(
    input x : f32[batch,4]
    parameter a : f32[6,4]
    buffer rows : i64[5] = [0, 2, 2, 5, 1]
    parameter b : f32[3,5]
    l = aten::linear(x, a)
    s = aten::index_select(l, 1, rows)
    o = aten::linear(s, b)
    return output = o
  )";
  expect_law(text);
}

TEST(Channels, ThatAreComparedStayAndSaySo) {
  const Model model = parse_filled(R"(
    input x : f32[batch,3,4,4]
    parameter a : f32[6,3,1,1]
    parameter b : f32[2,6,1,1]
    l = aten::conv2d(x, a)
    m = aten::amax(l, [1], true)
    p = aten::mul.Tensor(l, m)
    o = aten::conv2d(p, b)
    return output = o
  )");
  EXPECT_THAT(units_of(model), IsEmpty());
  EXPECT_THAT(why_frozen(model, "a", 0), HasSubstr("is compared along"));
}

TEST(Channels, OfAnUnknownOperatorStayAndSaySo) {
  const Model model = parse_filled(R"(
    input x : f32[batch,4]
    parameter a : f32[6,4]
    parameter b : f32[2,6]
    l = aten::linear(x, a)
    r = aten::renorm(l, 2, 0, 1.0)
    o = aten::linear(r, b)
    return output = o
  )");
  EXPECT_THAT(units_of(model), IsEmpty());
  EXPECT_THAT(why_frozen(model, "a", 0), HasSubstr("has no rule for channels"));
}

TEST(Channels, MixedWithoutACommonFactorStay) {
  const Model model = parse_filled(R"(
    input x : f32[5,4]
    parameter a : f32[6,4]
    parameter b : f32[2,3]
    l = aten::linear(x, a)
    v = aten::reshape(l, [10, 3])
    o = aten::linear(v, b)
    return output = o
  )");
  // 5 x 6 in 10 x 3: the threes are common.
  EXPECT_THAT(units_of(model), UnorderedElementsAre(3));
  const Model odd = parse_filled(R"(
    input x : f32[2,4]
    parameter a : f32[6,4]
    parameter b : f32[2,4]
    l = aten::linear(x, a)
    v = aten::reshape(l, [3, 4])
    o = aten::linear(v, b)
    return output = o
  )");
  EXPECT_THAT(units_of(odd), IsEmpty());
  EXPECT_THAT(why_frozen(odd, "a", 0), HasSubstr("common factor"));
}

TEST(Channels, OfASetThatIsNotClosedAreRefused) {
  const Model model = parse_filled(R"(
    input x : f32[batch,4]
    parameter a : f32[24,4]
    parameter f : f32[4,6]
    parameter b : f32[3,24]
    n = aten::sym_size.int(x, 0)
    l = aten::linear(x, a)
    v = aten::view(l, [n, 4, 6])
    s = aten::mul.Tensor(v, f)
    w = aten::reshape(s, [n, 24])
    o = aten::linear(w, b)
    return output = o
  )");
  const ChannelGroups groups = analyse(model);
  ChannelSet set = groups.none();
  const ChannelClass flat = groups.classes(model.graph().find("l"), 1).front();
  EXPECT_THAT(message_of([&] { groups.add(set, std::vector<ChannelClass>{flat}); }),
              HasSubstr("need others to go with them"));
  EXPECT_TRUE(set.empty());
}

}  // namespace
}  // namespace compress::testing
