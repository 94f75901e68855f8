// A thin layer for writing networks in C++: the graph that torch.export would give, by hand.

#include "compress/graph/builder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <utility>

namespace compress {
namespace {

// LibTorch's defaults for nn.BatchNorm2d.
constexpr double kBatchNormMomentum = 0.1;
constexpr double kBatchNormEps = 1e-5;

// nn.Conv2d and nn.Linear draw weight and bias from +-1/sqrt(fan_in) (kaiming_uniform with
// a = sqrt(5), which comes to the same).
Init fan_in_uniform(int64_t fan_in) {
  return Init::uniform(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

}  // namespace

GraphBuilder::Scope::Scope(GraphBuilder& builder, const std::string& name)
    : builder_(builder), length_before_(builder.path_.size()) {
  if (!builder_.path_.empty()) builder_.path_ += '.';
  builder_.path_ += name;
}

GraphBuilder::Scope::~Scope() { builder_.path_.resize(length_before_); }

std::string GraphBuilder::renamed(std::string name, const Renames& renames) {
  for (const auto& [from, to] : renames) {
    for (size_t at = name.find(from); at != std::string::npos; at = name.find(from, at)) {
      name.replace(at, from.size(), to);
      at += to.size();
    }
  }
  return name;
}

std::string GraphBuilder::full_name(const std::string& name) const {
  return renamed(path_.empty() ? name : path_ + '.' + name, renames_);
}

Value* GraphBuilder::input(const std::string& name, c10::ScalarType dtype, std::vector<Dim> sizes) {
  return blueprint_.model.graph().add_input(name, TensorType{dtype, std::move(sizes)});
}

Value* GraphBuilder::tensor(const std::string& name, const std::vector<int64_t>& sizes, Init init,
                            TensorRole role) {
  const std::string full = full_name(name);
  at::Tensor meta = at::empty(sizes, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
  blueprint_.inits.emplace_back(full, init);
  return blueprint_.model.add_tensor(full, std::move(meta), role);
}

Value* GraphBuilder::parameter(const std::string& name, const std::vector<int64_t>& sizes,
                               Init init) {
  return tensor(name, sizes, init, TensorRole::kParameter);
}

Value* GraphBuilder::buffer(const std::string& name, const std::vector<int64_t>& sizes, Init init) {
  return tensor(name, sizes, init, TensorRole::kBuffer);
}

void GraphBuilder::tie(const Value* value, const std::string& name) {
  blueprint_.model.add_alias(value->name(), full_name(name));
}

Value* GraphBuilder::call(const std::string& op, std::vector<Argument> arguments,
                          std::map<std::string, Argument> keywords) {
  Graph::Call call;
  call.op = op;
  call.arguments = std::move(arguments);
  call.keywords = std::move(keywords);
  call.module_path = path_;
  return blueprint_.model.graph().append(std::move(call))->output();
}

std::vector<Value*> GraphBuilder::call_list(const std::string& op, std::vector<Argument> arguments,
                                            size_t count) {
  Graph::Call call;
  call.op = op;
  call.arguments = std::move(arguments);
  call.list_size = count;
  call.module_path = path_;
  return blueprint_.model.graph().append(std::move(call))->outputs();
}

Argument GraphBuilder::bias_if(bool present, int64_t size, Init init) {
  if (!present) return {};
  return parameter("bias", {size}, init);
}

Value* GraphBuilder::conv(Value* x, const std::string& name, int64_t in, int64_t out,
                          ConvOptions options) {
  const Scope module = scope(name);
  const int64_t in_group = in / options.groups;
  const Init init = fan_in_uniform(in_group * options.kernel * options.kernel);
  Value* weight = parameter("weight", {out, in_group, options.kernel, options.kernel}, init);
  const Argument bias = bias_if(options.bias, out, init);
  const auto pair = [](int64_t size) { return std::vector<int64_t>{size, size}; };
  return call("aten::conv2d", {x, weight, bias, pair(options.stride), pair(options.padding),
                               pair(1), options.groups});
}

Value* GraphBuilder::batch_norm(Value* x, const std::string& name, int64_t channels) {
  const Scope module = scope(name);
  Value* weight = parameter("weight", {channels}, Init::constant(1));
  Value* bias = parameter("bias", {channels}, Init::constant(0));
  Value* mean = buffer("running_mean", {channels}, Init::constant(0));
  Value* variance = buffer("running_var", {channels}, Init::constant(1));
  return call("aten::batch_norm",
              {x, weight, bias, mean, variance, false, kBatchNormMomentum, kBatchNormEps, false});
}

Value* GraphBuilder::layer_norm(Value* x, const std::string& name, int64_t width, double eps,
                                bool bias) {
  const Scope module = scope(name);
  Value* weight = parameter("weight", {width}, Init::constant(1));
  const Argument shift = bias_if(bias, width, Init::constant(0));
  return call("aten::layer_norm", {x, std::vector<int64_t>{width}, weight, shift, eps});
}

Value* GraphBuilder::linear(Value* x, const std::string& name, int64_t in, int64_t out, bool bias) {
  const Scope module = scope(name);
  const Init init = fan_in_uniform(in);
  Value* weight = parameter("weight", {out, in}, init);
  return call("aten::linear", {x, weight, bias_if(bias, out, init)});
}

Value* GraphBuilder::embedding(Value* indices, const std::string& name, int64_t count,
                               int64_t width) {
  const Scope module = scope(name);
  // GPT-2 and BERT both start from a deviation of 0.02.
  return call("aten::embedding",
              {parameter("weight", {count, width}, Init::normal(0.02)), indices});
}

Value* GraphBuilder::cat(const std::vector<Value*>& parts, int64_t dim) {
  return call("aten::cat", {parts, dim});
}

Value* GraphBuilder::max_pool(Value* x, int64_t kernel, int64_t stride, int64_t padding) {
  return call("aten::max_pool2d",
              {x, std::vector<int64_t>{kernel, kernel}, std::vector<int64_t>{stride, stride},
               std::vector<int64_t>{padding, padding}});
}

Value* GraphBuilder::avg_pool(Value* x, int64_t kernel) {
  return call("aten::avg_pool2d",
              {x, std::vector<int64_t>{kernel, kernel}, std::vector<int64_t>{kernel, kernel}});
}

Value* GraphBuilder::global_average(Value* x) {
  return flatten(call("aten::adaptive_avg_pool2d", {x, std::vector<int64_t>{1, 1}}));
}

Value* GraphBuilder::attention(Value* query, Value* key, Value* value, int64_t width, int64_t heads,
                               bool causal) {
  Value* batch = size(query, 0);
  Value* tokens = size(query, 1);
  const auto split = [&](Value* x) {
    Value* parts = call("aten::view", {x, Argument::List{batch, tokens, heads, width / heads}});
    return call("aten::transpose.int", {parts, 1, 2});
  };
  query = split(query), key = split(key), value = split(value);
  Value* mixed =
      call("aten::scaled_dot_product_attention", {query, key, value, Argument(), 0.0, causal});
  return call("aten::reshape",
              {call("aten::transpose.int", {mixed, 1, 2}), Argument::List{batch, tokens, width}});
}

Blueprint GraphBuilder::finish(std::vector<Output> outputs) {
  blueprint_.model.graph().set_outputs(std::move(outputs));
  return std::exchange(blueprint_, Blueprint());
}

Model initialize(Blueprint blueprint, uint64_t seed) {
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (const auto& [name, init] : blueprint.inits) {
    const NamedTensor* named = blueprint.model.find_tensor(name);
    at::Tensor values = at::empty(named->tensor.sizes(), named->tensor.options().device(at::kCPU));
    switch (init.kind) {
      case Init::Kind::kConstant:
        values.fill_(init.value);
        break;
      case Init::Kind::kUniform:
        values.uniform_(-init.value, init.value, generator);
        break;
      case Init::Kind::kNormal:
        values.normal_(0, init.value, generator);
        break;
    }
    values.set_requires_grad(named->role == TensorRole::kParameter);
    blueprint.model.set_tensor(name, std::move(values));
  }
  return std::move(blueprint.model);
}

}  // namespace compress
