// A fixed batch size becomes free where the proof holds, and only there.

#include "compress/graph/batch.h"

#include "compress/graph/text.h"
#include "compress/model.h"
#include "tests/support/models.h"

#include <ATen/ATen.h>

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

// Attention of two heads of 4 over six positions, as nn.MultiheadAttention is exported: the batch
// stands behind the positions, is joined with the heads, then with the positions, and split again.
std::string attention(int64_t batch) {
  return fmt::format(R"(
input x : f32[{0},6,8]
parameter in.weight : f32[8,8]
parameter out.weight : f32[8,8]
t = aten::transpose.int(x, 0, 1) : f32[6,{0},8]
q = aten::linear(t, in.weight) : f32[6,{0},8]
q_1 = aten::view(q, [6, {1}, 4]) : f32[6,{1},4]
q_2 = aten::transpose.int(q_1, 0, 1) : f32[{1},6,4]
q_3 = aten::view(q_2, [{0}, 2, 6, 4]) : f32[{0},2,6,4]
a = aten::scaled_dot_product_attention(q_3, q_3, q_3) : f32[{0},2,6,4]
p = aten::permute(a, [2, 0, 1, 3]) : f32[6,{0},2,4]
r = aten::reshape(p, [{2}, 8]) : f32[{2},8]
o = aten::linear(r, out.weight) : f32[{2},8]
v = aten::view(o, [6, {0}, 8]) : f32[6,{0},8]
y = aten::transpose.int(v, 0, 1) : f32[{0},6,8]
return y = y
)",
                     batch, 2 * batch, 6 * batch);
}

TEST(GeneralizeBatch, FollowsTheBatchThroughTheViewsOfAttention) {
  for (const int64_t batch : {1, 2, 3, 4, 5}) {
    const Model fixed = parse_filled(attention(batch));
    Model free = parse_filled(attention(batch));
    generalize_batch(free);
    EXPECT_THAT(free.notes, ::testing::IsEmpty()) << batch;
    EXPECT_THAT(print(free), HasSubstr("input x : f32[batch,6,8]"));
    at::manual_seed(1);
    const at::Tensor x = at::randn({5 * batch, 6, 8});
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : x.split(batch)) parts.push_back(fixed.forward({part})[0]);
    EXPECT_TRUE(at::allclose(free.forward({x})[0], at::cat(parts), 1e-5, 1e-6)) << batch;
    EXPECT_EQ(free.forward({x.narrow(0, 0, 7 % (5 * batch) + 1)})[0].size(0), 7 % (5 * batch) + 1);
  }
}

TEST(GeneralizeBatch, LeavesAGraphWhoseSamplesDependOnEachOther) {
  const std::string text =
      "input x : f32[2,3]\nm = aten::mean(x) : f32[]\n"
      "y = aten::sub.Tensor(x, m) : f32[2,3]\nreturn y = y\n";
  Model model = parse_model(text);
  generalize_batch(model);
  EXPECT_THAT(print(model), HasSubstr("input x : f32[2,3]"));
  EXPECT_THAT(model.notes, ::testing::ElementsAre(HasSubstr("the batch size 2 is fixed")));
}

}  // namespace
}  // namespace compress::testing
