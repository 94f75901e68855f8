// A layer's weight seen through its encoding.

#include "compress/weight.h"

#include "compress/encoding_codebooks.h"
#include "compress/encoding_graph.h"
#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/graph/interpreter.h"

#include <ATen/core/grad_mode.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <unordered_set>

namespace compress {
namespace {

// `fc.weight` of `fc.weight_codes4` and of `fc.weight_codes4_1`.
std::string without_suffix(const std::string& codes) {
  const size_t at = codes.rfind("_codes");
  return at == std::string::npos ? codes : codes.substr(0, at);
}

// All named tensors that a value is computed from.
void collect_tensors(const Value* value, std::unordered_set<const Value*>& seen,
                     std::vector<const Value*>& tensors) {
  if (!seen.insert(value).second) return;
  if (value->is_named_tensor()) tensors.push_back(value);
  if (value->producer() == nullptr) return;
  for (const Argument& argument : value->producer()->arguments()) {
    argument.each_value([&](const Value* used) { collect_tensors(used, seen, tensors); });
  }
}

std::vector<const Value*> tensors_behind(const Value* value) {
  std::unordered_set<const Value*> seen;
  std::vector<const Value*> tensors;
  collect_tensors(value, seen, tensors);
  return tensors;
}

// LibTorch's count_nonzero takes an element at a time. True is 1, so words of eight add up byte by
// byte, and 255 of them do not overflow.
int64_t count_true(const at::Tensor& mask) {
  const at::Tensor flags = mask.contiguous().cpu();
  const bool* data = flags.const_data_ptr<bool>();
  constexpr uint64_t kEven = 0x00ff00ff00ff00ff, kOnes = 0x0001000100010001;
  const int64_t end = flags.numel();
  int64_t count = 0, at = 0;
  while (end - at >= 8) {
    const int64_t words = std::min<int64_t>(255, (end - at) / 8);
    uint64_t sums = 0;
    for (int64_t i = 0; i < words; ++i) {
      uint64_t word;
      std::memcpy(&word, data + at + 8 * i, 8);
      sums += word;
    }
    count += static_cast<int64_t>((((sums & kEven) + (sums >> 8 & kEven)) * kOnes) >> 48);
    at += 8 * words;
  }
  for (; at < end; ++at) count += data[at];
  return count;
}

}  // namespace

// Finds mask, codes and stored elements behind `value_`, from scratch.
void Weight::look_through() {
  stored_ = nullptr;
  mask_node_ = nullptr;
  mask_value_ = nullptr;
  quantized_.reset();
  Value* inner = value_;
  const Node* node = inner->producer();
  if (node && node->op() == "aten::mul.Tensor") {
    for (size_t side : {1u, 0u}) {
      Value* mask = node->arguments()[side].value();
      Value* other = node->arguments()[1 - side].value();
      const NamedTensor* tensor =
          mask && mask->is_named_tensor() ? model_->find_tensor(mask->name()) : nullptr;
      if (!other || !tensor || !tensor->tensor.defined()) continue;
      if (tensor->tensor.scalar_type() != at::kBool) continue;
      mask_node_ = const_cast<Node*>(node);
      mask_value_ = mask;
      inner = other;
      break;
    }
  }
  if (inner->is_named_tensor()) {
    stored_ = model_->find_tensor(inner->name());
    COMPRESS_CHECK(stored_ != nullptr, "a named value has its tensor");
    if (name_.empty()) name_ = stored_->name;
    aliases_ = stored_->aliases;
    if (stored_->tensor.defined()) {
      sizes_ = stored_->tensor.sizes().vec();
      dtype_ = stored_->tensor.scalar_type();
      return;
    }
  } else if (std::optional<Decoding> decoding = match_decoding(*model_, inner)) {
    quantized_ = std::move(decoding->quantized);
    if (name_.empty()) name_ = without_suffix(decoding->tensors[0]->name());
    sizes_ = quantized_->sizes;
    dtype_ = quantized_->dtype;
    return;
  } else if (name_.empty()) {
    const std::vector<const Value*> tensors = tensors_behind(inner);
    name_ = tensors.empty() ? inner->name() : tensors[0]->name();
  }
  sizes_.clear();
  dtype_ = inner->type.dtype.value_or(at::kFloat);
  if (!inner->type.sizes) {
    const at::Tensor computed = effective();
    sizes_ = computed.sizes().vec();
    dtype_ = computed.scalar_type();
    return;
  }
  for (const Dim& dim : *inner->type.sizes) sizes_.push_back(dim.size);
}

OperatorKind Weight::kind() const {
  return layer() ? operator_kind(*layer()) : OperatorKind::kOther;
}

std::string Weight::module_path() const {
  if (layer() && !layer()->module_path.empty()) return layer()->module_path;
  const size_t dot = name_.rfind('.');
  return dot == std::string::npos ? std::string() : name_.substr(0, dot);
}

int64_t Weight::elements() const {
  return std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<>());
}

int64_t Weight::groups() const {
  if (!layer() || kind() != OperatorKind::kConv) return 1;
  const auto index = layer()->argument_index("groups");
  return index ? layer()->arguments()[*index].as<int64_t>() : 1;
}

at::Tensor Weight::mask() const {
  return mask_value_ ? model_->tensor(mask_value_->name()) : at::Tensor();
}

at::Tensor Weight::effective() const {
  at::NoGradGuard no_grad;
  at::Tensor inner;
  if (stored_) {
    inner = model_->tensor(stored_->name).detach();
  } else if (quantized_) {
    inner = dequantize(*quantized_);
  } else {
    return evaluate(*model_, value_).detach();
  }
  // Adding 0 turns -0, which the product leaves for negative weights, into 0, and nothing else.
  return mask_value_ ? inner.mul(mask()).add_(0) : inner;
}

std::string Weight::encoding() const {
  std::string text;
  if (quantized_) {
    text = quantized_->has_codebook()
               ? codebook_format(*quantized_)
               : fmt::format("{}int{}", quantized_->symmetric() ? "" : "u", quantized_->bits);
    if (text == "mxfp4" || text == "nvfp4") {
      // The format says what shares a scale.
    } else if (quantized_->groups() > 1) {
      text += fmt::format(" group:{}", quantized_->group_size);
    } else {
      text += quantized_->scale.size(0) > 1 || sizes_[quantized_->channel_dim] == 1 ? " channel"
                                                                                    : " tensor";
    }
  } else {
    text = stored_ ? std::string(dtype_name(dtype_)) : "computed";
  }
  return mask_value_ ? text + " mask" : text;
}

std::vector<std::string> Weight::sources() const {
  std::vector<std::string> names;
  for (const Value* value : tensors_behind(value_)) names.push_back(value->name());
  return names;
}

int64_t Weight::bits_on_disk() const {
  int64_t bytes = 0;
  for (const Value* value : tensors_behind(value_)) {
    const NamedTensor* named = model_->find_tensor(value->name());
    if (named->role != TensorRole::kConstant) bytes += static_cast<int64_t>(named->tensor.nbytes());
  }
  return bytes * 8;
}

Node* Weight::first_user() const { return UseMap(model_->graph()).first_node(value_); }

int64_t Weight::set_mask(const at::Tensor& keep) {
  COMPRESS_CHECK(keep.scalar_type() == at::kBool && keep.sizes().equals(sizes_),
                 "a mask is bool and has the sizes of its weight");
  const at::Tensor before = mask();
  const at::Tensor after = before.defined() ? before.logical_and(keep) : keep;
  const int64_t zeros = elements() - count_true(after);
  const int64_t zeros_before = before.defined() ? elements() - count_true(before) : 0;
  if (zeros == zeros_before) return 0;
  if (mask_value_ && UseMap(model_->graph()).of(mask_value_).size() == 1) {
    model_->set_tensor(mask_value_->name(), after);
    return zeros - zeros_before;
  }
  std::string name = name_ + "_mask";
  for (int i = 1; model_->find_tensor(name) || model_->graph().find(name); ++i) {
    name = fmt::format("{}_mask_{}", name_, i);
  }
  Value* mask = model_->add_tensor(name, after, TensorRole::kBuffer);
  Graph::Call call{"aten::mul.Tensor", {value_, mask}, {}, {}, 1, module_path()};
  Node* node = model_->graph().insert(first_user(), std::move(call));
  node->output()->type.dtype = dtype_;
  node->output()->type.sizes.emplace(sizes_.begin(), sizes_.end());
  model_->graph().replace_uses(value_, node->output(), node);
  value_ = node->output();
  look_through();
  return zeros - zeros_before;
}

void Weight::encode(const QuantizedTensor& quantized) {
  COMPRESS_CHECK(quantized.sizes == sizes_, "codes have the sizes of their weight");
  put(insert_decoding(*model_, quantized, name_, first_user(), module_path()));
}

void Weight::replace(const at::Tensor& elements) {
  COMPRESS_CHECK(elements.sizes().equals(sizes_), "the sizes of a weight stay");
  if (stored_) {
    Value* inner = model_->graph().find(stored_->name);
    const UseMap uses(model_->graph());
    if (inner == value_ || uses.of(inner).size() == 1) {
      model_->set_tensor(stored_->name, elements);
      if (inner == value_) return look_through();
      return put(inner);
    }
  }
  std::string name = name_;
  for (int i = 1; model_->find_tensor(name) || model_->graph().find(name); ++i) {
    name = fmt::format("{}_{}", name_, i);
  }
  put(model_->add_tensor(name, elements, TensorRole::kParameter));
}

void Weight::set_stored(const at::Tensor& elements) {
  COMPRESS_CHECK(stored_ != nullptr, "only a stored weight has elements to change");
  model_->set_tensor(stored_->name, elements);
  look_through();
}

void Weight::put(Value* with) {
  Value* old = value_;
  model_->graph().replace_uses(old, with);
  value_ = with;
  look_through();
  drop(old);
}

// Removes the nodes and tensors that computed `unused` and nothing else.
void Weight::drop(Value* unused) {
  Graph& graph = model_->graph();
  const UseMap uses(graph);
  std::unordered_set<const Node*> removed;
  std::vector<Value*> left{unused};
  std::vector<Node*> nodes;
  std::vector<Value*> tensors;
  const auto is_used = [&](const Value* value) {
    return std::any_of(uses.of(value).begin(), uses.of(value).end(),
                       [&](const Use& use) { return !use.node || !removed.count(use.node); });
  };
  while (!left.empty()) {
    Value* value = left.back();
    left.pop_back();
    if (is_used(value)) continue;
    if (value->is_named_tensor()) {
      if (std::count(tensors.begin(), tensors.end(), value) == 0) tensors.push_back(value);
      continue;
    }
    Node* node = value->producer();
    if (node == nullptr || removed.count(node)) continue;
    if (std::any_of(node->outputs().begin(), node->outputs().end(), is_used)) continue;
    removed.insert(node);
    nodes.push_back(node);
    for (const Argument& argument : node->arguments()) {
      argument.each_value([&](Value* used) { left.push_back(used); });
    }
  }
  for (Node* node : nodes) graph.erase(node);
  for (Value* tensor : tensors) model_->remove_tensor(std::string(tensor->name()));
}

}  // namespace compress
