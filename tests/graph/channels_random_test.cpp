// The law of coupled channels on random networks of all kinds of blocks.

#include "compress/graph/builder.h"
#include "compress/graph/shapes.h"
#include "tests/support/channels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>

namespace compress::testing {
namespace {

constexpr int64_t kSide = 4;

// Puts blocks behind one another. Images are [batch, channels, 4, 4].
class RandomNetwork {
 public:
  explicit RandomNetwork(uint64_t seed) : random_(seed) {}

  Model build() {
    Value* x = net_.input("x", at::kFloat, {Dim("batch", 2), 3, kSide, kSide});
    channels_ = 3;
    x = conv(x, 2 * pick(3, 6));
    const int64_t blocks = pick(2, 5);
    for (int64_t i = 0; i < blocks; ++i) x = block(x);
    x = pick(0, 1) == 0 ? net_.global_average(x) : flat(x);
    Value* y = net_.linear(x, name("head"), features_of(x), 5);
    Model model = initialize(net_.finish({{"y", y}}), random_());
    propagate_shapes(model);
    return model;
  }

 private:
  int64_t pick(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  std::string name(const std::string& kind) { return kind + std::to_string(count_++); }

  Value* conv(Value* x, int64_t out, int64_t groups = 1) {
    const std::string layer = name("conv");
    x = net_.conv(x, layer, channels_, out, {.padding = 1, .groups = groups, .bias = true});
    channels_ = out;
    switch (pick(0, 4)) {
      case 0:
        return net_.call("aten::sigmoid", {x});
      case 1:
        return net_.call("aten::gelu", {x});
      case 2:
        return net_.relu(net_.batch_norm(x, name("norm"), out));
      default:
        return net_.relu(x);
    }
  }

  Value* flat(Value* x) {
    flat_ = true;
    return net_.flatten(x);
  }
  int64_t features_of(Value*) const { return flat_ ? channels_ * kSide * kSide : channels_; }

  Value* block(Value* x) {
    switch (pick(0, 11)) {
      case 0:
        return conv(x, 2 * pick(2, 6));
      case 1:
        return residual(x);
      case 2:
        return dense(x);
      case 3:
        return split(x);
      case 4:
        return conv(x, 2 * channels_, 2);
      case 5:
        return conv(x, channels_, channels_);
      case 6:
        return gate(x);
      case 7:
        return shuffle(x);
      case 8:
        return attention(x);
      case 9:
        return normalised(x);
      case 10:
        return padded(x);
      default:
        return halved(x);
    }
  }

  Value* halved(Value* x) {
    Value* y = conv(x, 4 * pick(2, 4));
    channels_ /= 2;
    return net_.call("aten::glu", {y, 1});
  }

  Value* residual(Value* x) {
    const int64_t channels = channels_;
    Value* y = conv(conv(x, pick(2, 8)), channels);
    return net_.add(x, y);
  }

  Value* dense(Value* x) {
    const int64_t channels = channels_;
    Value* y = conv(x, 2 * pick(1, 4));
    channels_ += channels;
    return net_.cat({x, y}, 1);
  }

  Value* split(Value* x) {
    const int64_t all = channels_, first = pick(1, all - 1);
    std::vector<Value*> parts = net_.call_list("aten::split_with_sizes",
                                               {x, std::vector<int64_t>{first, all - first}, 1}, 2);
    channels_ = first;
    parts[0] = conv(parts[0], pick(2, 6));
    channels_ += all - first;
    if (channels_ % 2 == 0) return net_.cat({parts[1], parts[0]}, 1);
    return conv(net_.cat({parts[1], parts[0]}, 1), channels_ + 1);
  }

  Value* gate(Value* x) {
    const int64_t channels = channels_, hidden = pick(2, 5);
    Value* mean = net_.global_average(x);
    Value* small = net_.relu(net_.linear(mean, name("squeeze"), channels, hidden));
    Value* large =
        net_.call("aten::sigmoid", {net_.linear(small, name("excite"), hidden, channels)});
    Value* open = net_.call("aten::unsqueeze", {net_.call("aten::unsqueeze", {large, -1}), -1});
    return net_.call("aten::mul.Tensor", {x, open});
  }

  Value* shuffle(Value* x) {
    Value* batch = net_.size(x, 0);
    Value* parts =
        net_.call("aten::view", {x, Argument::List{batch, 2, channels_ / 2, kSide, kSide}});
    Value* turned = net_.call("aten::transpose.int", {parts, 1, 2});
    return net_.call("aten::reshape", {turned, Argument::List{batch, -1, kSide, kSide}});
  }

  Value* attention(Value* x) {
    const int64_t channels = channels_, heads = pick(2, 3), width = heads * pick(2, 3);
    Value* batch = net_.size(x, 0);
    Value* tokens =
        net_.call("aten::transpose.int", {net_.call("aten::flatten.using_ints", {x, 2}), 1, 2});
    Value* qkv = net_.linear(tokens, name("qkv"), channels, 3 * width);
    std::vector<Value*> parts = net_.call_list("aten::chunk", {qkv, 3, -1}, 3);
    Value* mixed = net_.attention(parts[0], parts[1], parts[2], width, heads, false);
    Value* out = net_.linear(mixed, name("out"), width, channels);
    Value* sum = net_.add(tokens, out);
    if (pick(0, 1) == 0) sum = net_.layer_norm(sum, name("norm"), channels, 1e-5);
    return net_.call("aten::view", {net_.call("aten::contiguous",
                                              {net_.call("aten::transpose.int", {sum, 1, 2})}),
                                    Argument::List{batch, channels, kSide, kSide}});
  }

  Value* normalised(Value* x) {
    const auto scope = net_.scope(name("norm"));
    Value* weight = net_.parameter("weight", {channels_}, Init::constant(1));
    Value* bias = net_.parameter("bias", {channels_}, Init::constant(0));
    return net_.call("aten::group_norm", {x, 2, weight, bias});
  }

  // A shortcut that adds channels of its own.
  Value* padded(Value* x) {
    const int64_t channels = channels_, more = pick(1, 2);
    Value* y = conv(x, channels + 2 * more);
    Value* wide =
        net_.call("aten::constant_pad_nd", {x, std::vector<int64_t>{0, 0, 0, 0, more, more}});
    return net_.add(y, wide);
  }

  GraphBuilder net_;
  std::mt19937_64 random_;
  int64_t channels_ = 0, count_ = 0;
  bool flat_ = false;
};

void check(bool inexact, uint64_t first, uint64_t networks) {
  size_t with_groups = 0, moved = 0;
  double worst = 0;
  for (uint64_t seed = first; seed < first + networks; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const LawReport report = check_channel_law(RandomNetwork(seed).build(),
                                               {.share = 0.3, .inexact = inexact, .seed = seed});
    with_groups += report.exact_groups > 0;
    moved += report.moved > 1e-3;
    worst = std::max(worst, report.error);
    if (::testing::Test::HasFailure()) break;
  }
  std::cout << with_groups << " of " << networks << " networks have groups, zeroing moved " << moved
            << ", worst error " << worst << "\n";
  EXPECT_GT(with_groups, networks * 9 / 10);
  EXPECT_GT(moved, networks * 8 / 10);
}

TEST(RandomChannels, RemovingExactUnitsEqualsZeroingThem) { check(false, 1, 150); }

TEST(RandomChannels, RemovingAllUnitsEqualsZeroingThemWhereStatisticsSeeTheRest) {
  check(true, 1000, 150);
}

}  // namespace
}  // namespace compress::testing
