// GPT-2, with the keys of transformers (GPT2LMHeadModel) or of karpathy/nanoGPT.
//
// Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. The two store the
// same layers differently: transformers keeps linear weights as `[in, out]` ("Conv1D").

#include "compress/zoo/architecture.h"

#include <algorithm>
#include <cstdint>

namespace compress::zoo {
namespace {

constexpr double kGptEps = 1e-5;
// Every published GPT-2 and BERT has heads of this width; sizes of tensors do not tell.
constexpr int64_t kGptHeadWidth = 64;

class Gpt {
 public:
  Gpt(GraphBuilder& net, const Parameters& parameters, bool transformers)
      : net_(net),
        transformers_(transformers),
        bias_(transformers || parameters["bias"] != 0),
        width_(parameters["width"]),
        heads_(parameters["heads"]),
        hidden_(4 * width_) {}

  Value* block(Value* x) {
    x = net_.add(x, attention(net_.layer_norm(x, "ln_1", width_, kGptEps, bias_)));
    return net_.add(x, mlp(net_.layer_norm(x, "ln_2", width_, kGptEps, bias_)));
  }

  Value* final_norm(Value* x) { return net_.layer_norm(x, "ln_f", width_, kGptEps, bias_); }

 private:
  Value* attention(Value* x) {
    const auto module = net_.scope("attn");
    const auto parts = net_.call_list("aten::split.Tensor",
                                      {linear(x, "c_attn", width_, 3 * width_), width_, 2}, 3);
    x = net_.attention(parts[0], parts[1], parts[2], width_, heads_, /*causal=*/true);
    return dropout(linear(x, "c_proj", width_, width_));
  }

  Value* mlp(Value* x) {
    const auto module = net_.scope("mlp");
    x = linear(x, "c_fc", width_, hidden_);
    x = net_.call("aten::gelu", {x}, {{"approximate", transformers_ ? "tanh" : "none"}});
    return dropout(linear(x, "c_proj", hidden_, width_));
  }

  Value* dropout(Value* x) { return transformers_ ? net_.dropout(x, 0.1) : x; }

  Value* linear(Value* x, const std::string& name, int64_t in, int64_t out) {
    if (!transformers_) return net_.linear(x, name, in, out, bias_);
    const auto module = net_.scope(name);
    Value* batch = net_.size(x, 0);
    Value* tokens = net_.size(x, 1);
    Value* weight = net_.parameter("weight", {in, out}, Init::normal(0.02));
    Value* bias = net_.parameter("bias", {out}, Init::constant(0));
    x = net_.call("aten::view", {x, std::vector<int64_t>{-1, in}});
    x = net_.call("aten::addmm", {bias, x, weight});
    return net_.call("aten::view", {x, Argument::List{batch, tokens, out}});
  }

  GraphBuilder& net_;
  bool transformers_, bias_;
  int64_t width_, heads_, hidden_;
};

std::vector<Output> build_gpt(GraphBuilder& net, const Parameters& parameters, bool transformers) {
  const int64_t width = parameters["width"], vocabulary = parameters["vocabulary"];
  Gpt gpt(net, parameters, transformers);
  Value* tokens = net.input("input_ids", c10::kLong, {Dim("batch", 2), Dim("sequence", 8)});
  Value* x = nullptr;
  Value* table = nullptr;
  {
    const auto module = net.scope("transformer");
    x = net.embedding(tokens, "wte", vocabulary, width);
    table = x->producer()->argument("weight").value();
    Value* positions =
        net.parameter("wpe.weight", {parameters["context"], width}, Init::normal(0.02));
    x = net.add(x, net.call("aten::slice.Tensor", {positions, 0, 0, net.size(tokens, 1)}));
    if (transformers) x = net.dropout(x, 0.1);
    for (int64_t layer = 0; layer < parameters["layers"]; ++layer) {
      const auto block = net.scope("h." + std::to_string(layer));
      x = gpt.block(x);
    }
    x = gpt.final_norm(x);
  }
  const auto head = net.scope("lm_head");
  net.tie(table, "weight");
  return {{"logits", net.call("aten::linear", {x, table})}};
}

void infer_gpt(const Shapes& shapes, Parameters& parameters) {
  parameters.set("vocabulary", shapes.dim("transformer.wte.weight", 0));
  parameters.set("context", shapes.dim("transformer.wpe.weight", 0));
  parameters.set("layers", shapes.count("transformer.h.", ".ln_1.weight"));
  if (const auto width = shapes.dim("transformer.wte.weight", 1)) {
    parameters.set("width", *width);
    parameters.set("heads", std::max<int64_t>(1, *width / kGptHeadWidth));
  }
  if (parameters.contains("bias")) {
    parameters.set("bias", int64_t{shapes.contains("transformer.ln_f.bias")});
  }
}

}  // namespace

Family gpt2() {
  return {[](GraphBuilder& net, const Parameters& parameters) {
            return build_gpt(net, parameters, /*transformers=*/true);
          },
          infer_gpt,
          {{"transformers", {}}, {"bare", {{"transformer.", ""}}}}};
}

Family nanogpt() {
  return {[](GraphBuilder& net, const Parameters& parameters) {
            return build_gpt(net, parameters, /*transformers=*/false);
          },
          infer_gpt,
          {{"nanogpt", {}},
           {"compiled",
            {{"transformer.", "_orig_mod.transformer."}, {"lm_head.", "_orig_mod.lm_head."}}}}};
}

}  // namespace compress::zoo
