// BERT encoders, with the keys of transformers.
//
// Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
// Understanding", NAACL 2019. The input is one unpadded sentence a row: token ids only, all of
// segment 0.

#include "compress/zoo/architecture.h"

#include <algorithm>
#include <cstdint>

namespace compress::zoo {
namespace {

constexpr double kBertEps = 1e-12;
constexpr double kDropout = 0.1;
// Every published BERT has heads of this width; sizes of tensors do not tell.
constexpr int64_t kBertHeadWidth = 64;

Value* embeddings(GraphBuilder& net, Value* tokens, const Parameters& parameters) {
  const auto module = net.scope("embeddings");
  const int64_t width = parameters["width"];
  Value* x = net.embedding(tokens, "word_embeddings", parameters["vocabulary"], width);
  Value* positions = net.parameter("position_embeddings.weight", {parameters["context"], width},
                                   Init::normal(0.02));
  Value* segments = net.parameter("token_type_embeddings.weight", {parameters["segments"], width},
                                  Init::normal(0.02));
  x = net.add(x, net.call("aten::select.int", {segments, 0, 0}));
  x = net.add(x, net.call("aten::slice.Tensor", {positions, 0, 0, net.size(tokens, 1)}));
  return net.dropout(net.layer_norm(x, "LayerNorm", width, kBertEps), kDropout);
}

// Linear, dropout, the residual, layer norm: the end of both halves of a layer.
Value* output(GraphBuilder& net, Value* x, Value* residual, int64_t in, int64_t width) {
  const auto module = net.scope("output");
  x = net.dropout(net.linear(x, "dense", in, width), kDropout);
  return net.layer_norm(net.add(x, residual), "LayerNorm", width, kBertEps);
}

Value* layer(GraphBuilder& net, Value* x, const Parameters& parameters) {
  const int64_t width = parameters["width"], hidden = parameters["hidden"];
  Value* y = nullptr;
  {
    const auto attention = net.scope("attention");
    {
      const auto module = net.scope("self");
      Value* query = net.linear(x, "query", width, width);
      Value* key = net.linear(x, "key", width, width);
      Value* value = net.linear(x, "value", width, width);
      y = net.attention(query, key, value, width, parameters["heads"], /*causal=*/false);
    }
    x = output(net, y, x, width, width);
  }
  {
    const auto module = net.scope("intermediate");
    y = net.call("aten::gelu", {net.linear(x, "dense", width, hidden)});
  }
  return output(net, y, x, hidden, width);
}

struct Encoded {
  Value* hidden;
  Value* pooled;
};

Encoded encode(GraphBuilder& net, const Parameters& parameters) {
  Value* tokens = net.input("input_ids", c10::kLong, {Dim("batch", 2), Dim("sequence", 8)});
  const auto module = net.scope("bert");
  Value* x = embeddings(net, tokens, parameters);
  for (int64_t index = 0; index < parameters["layers"]; ++index) {
    const auto scope = net.scope("encoder.layer." + std::to_string(index));
    x = layer(net, x, parameters);
  }
  const auto pooler = net.scope("pooler");
  const int64_t width = parameters["width"];
  Value* first = net.call("aten::select.int", {x, 1, 0});
  return {x, net.call("aten::tanh", {net.linear(first, "dense", width, width)})};
}

void infer_bert(const Shapes& shapes, Parameters& parameters) {
  const std::string layer = "bert.encoder.layer.";
  parameters.set("vocabulary", shapes.dim("bert.embeddings.word_embeddings.weight", 0));
  parameters.set("context", shapes.dim("bert.embeddings.position_embeddings.weight", 0));
  parameters.set("segments", shapes.dim("bert.embeddings.token_type_embeddings.weight", 0));
  parameters.set("layers", shapes.count(layer, ".output.dense.weight"));
  parameters.set("hidden", shapes.dim(layer + "0.intermediate.dense.weight", 0));
  if (const auto width = shapes.dim("bert.embeddings.word_embeddings.weight", 1)) {
    parameters.set("width", *width);
    parameters.set("heads", std::max<int64_t>(1, *width / kBertHeadWidth));
  }
  if (parameters.contains("classes")) parameters.set("classes", shapes.dim("classifier.weight", 0));
}

// Files converted from TensorFlow call the weight and bias of a norm gamma and beta.
const char* const kGamma = "LayerNorm.gamma";
const char* const kBeta = "LayerNorm.beta";

}  // namespace

Family bert() {
  return {[](GraphBuilder& net, const Parameters& parameters) -> std::vector<Output> {
            const Encoded encoded = encode(net, parameters);
            return {{"last_hidden_state", encoded.hidden}, {"pooler_output", encoded.pooled}};
          },
          infer_bert,
          {{"prefixed", {}},
           {"transformers", {{"bert.", ""}}},
           {"tensorflow", {{"LayerNorm.weight", kGamma}, {"LayerNorm.bias", kBeta}}}}};
}

Family bert_classifier() {
  return {[](GraphBuilder& net, const Parameters& parameters) -> std::vector<Output> {
            Value* x = net.dropout(encode(net, parameters).pooled, kDropout);
            return {{"logits",
                     net.linear(x, "classifier", parameters["width"], parameters["classes"])}};
          },
          infer_bert,
          {{"transformers", {}}}};
}

}  // namespace compress::zoo
