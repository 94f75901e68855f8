// Vision transformers, with the keys of torchvision or timm.
//
// Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021: pre-norm blocks, a class token,
// learned positions.

#include "compress/zoo/architecture.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace compress::zoo {
namespace {

constexpr double kVitEps = 1e-6;
// Heads of ViT-Ti, -S, -B and -L have this width; sizes of tensors do not tell.
constexpr int64_t kVitHeadWidth = 64;

Value* encoder_block(GraphBuilder& net, Value* x, const Parameters& parameters) {
  const int64_t width = parameters["width"], hidden = parameters["hidden"];
  Value* y = net.layer_norm(x, "ln_1", width, kVitEps);
  {
    const auto module = net.scope("self_attention");
    Value* weight = net.parameter("in_proj_weight", {3 * width, width},
                                  Init::uniform(std::sqrt(6.0 / (4.0 * width))));  // Xavier
    Value* bias = net.parameter("in_proj_bias", {3 * width}, Init::constant(0));
    y = net.call("aten::linear", {y, weight, bias});
    const auto parts = net.call_list("aten::chunk", {y, 3, 2}, 3);
    y = net.attention(parts[0], parts[1], parts[2], width, parameters["heads"], /*causal=*/false);
    y = net.linear(y, "out_proj", width, width);
  }
  x = net.add(x, y);
  y = net.layer_norm(x, "ln_2", width, kVitEps);
  const auto module = net.scope("mlp");
  y = net.call("aten::gelu", {net.linear(y, "0", width, hidden)});
  return net.add(x, net.linear(y, "3", hidden, width));
}

Value* patches(GraphBuilder& net, const Parameters& parameters) {
  const int64_t image = parameters["image"], patch = parameters["patch"];
  const int64_t channels = parameters["channels"], width = parameters["width"];
  Value* x = net.input("x", c10::kFloat, {Dim("batch", 2), channels, image, image});
  Value* batch = net.size(x, 0);
  x = net.conv(x, "conv_proj", channels, width, {.kernel = patch, .stride = patch, .bias = true});
  x = net.call("aten::transpose.int", {net.call("aten::flatten.using_ints", {x, 2}), 1, 2});
  Value* token = net.parameter("class_token", {1, 1, width}, Init::constant(0));
  return net.cat({net.call("aten::expand", {token, Argument::List{batch, -1, -1}}), x}, 1);
}

std::vector<Output> build_vit(GraphBuilder& net, const Parameters& parameters) {
  const int64_t side = parameters["image"] / parameters["patch"], width = parameters["width"];
  Value* x = patches(net, parameters);
  {
    const auto module = net.scope("encoder");
    x = net.add(x, net.parameter("pos_embedding", {1, side * side + 1, width}, Init::normal(0.02)));
    for (int64_t layer = 0; layer < parameters["layers"]; ++layer) {
      const auto scope = net.scope("layers.encoder_layer_" + std::to_string(layer));
      x = encoder_block(net, x, parameters);
    }
    x = net.layer_norm(x, "ln", width, kVitEps);
  }
  const auto module = net.scope("heads");
  x = net.call("aten::select.int", {x, 1, 0});
  return {{"output", net.linear(x, "head", width, parameters["classes"])}};
}

void infer_vit(const Shapes& shapes, Parameters& parameters) {
  const std::string layer = "encoder.layers.encoder_layer_";
  parameters.set("classes", shapes.dim("heads.head.weight", 0));
  parameters.set("hidden", shapes.dim(layer + "0.mlp.0.weight", 0));
  parameters.set("layers", shapes.count(layer, ".ln_1.weight"));
  parameters.set("channels", shapes.dim("conv_proj.weight", 1));
  parameters.set("patch", shapes.dim("conv_proj.weight", 2));
  if (const auto width = shapes.dim("conv_proj.weight", 0)) {
    parameters.set("width", *width);
    parameters.set("heads", std::max<int64_t>(1, *width / kVitHeadWidth));
  }
  if (const auto tokens = shapes.dim("encoder.pos_embedding", 1)) {
    const auto side = std::llround(std::sqrt(static_cast<double>(*tokens - 1)));
    parameters.set("image", side * parameters["patch"]);
  }
}

GraphBuilder::Renames timm_names() {
  return {{"encoder.layers.encoder_layer_", "blocks."},
          {"self_attention.in_proj_", "attn.qkv."},
          {"self_attention.out_proj", "attn.proj"},
          {".ln_1.", ".norm1."},
          {".ln_2.", ".norm2."},
          {"mlp.0.", "mlp.fc1."},
          {"mlp.3.", "mlp.fc2."},
          {"encoder.ln.", "norm."},
          {"encoder.pos_embedding", "pos_embed"},
          {"class_token", "cls_token"},
          {"conv_proj.", "patch_embed.proj."},
          {"heads.head.", "head."}};
}

}  // namespace

Family vit() { return {build_vit, infer_vit, {{"torchvision", {}}, {"timm", timm_names()}}}; }

}  // namespace compress::zoo
