// From a step to a oneDNN primitive.

#include "compress/engine/primitives.h"

#include "compress/error.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace compress::engine {
namespace {

using dnnl::memory;
using Dims = memory::dims;

memory::data_type type_of(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kFloat:
      return memory::data_type::f32;
    case c10::kBFloat16:
      return memory::data_type::bf16;
    case c10::kByte:
      return memory::data_type::u8;
    case c10::kChar:
      return memory::data_type::s8;
    case c10::kInt:
      return memory::data_type::s32;
    default:
      break;
  }
  COMPRESS_CHECK(false, fmt::format("oneDNN has no {}", c10::toString(dtype)));
}

memory::desc desc_of(const Slot& slot) {
  if (slot.sizes.empty()) return {{1}, type_of(slot.dtype), Dims{1}};
  return {Dims(slot.sizes.begin(), slot.sizes.end()), type_of(slot.dtype), slot.strides()};
}

// As a matrix with the last dimension as its columns.
memory::desc matrix_of(const Slot& slot) {
  const int64_t columns = slot.sizes.back();
  return {{slot.elements() / columns, columns}, type_of(slot.dtype), memory::format_tag::ab};
}

memory::desc any_order(const Dims& dims, memory::data_type type) {
  return {dims, type, memory::format_tag::any};
}

memory::desc floats(int64_t count) {
  return {{count}, memory::data_type::f32, memory::format_tag::a};
}

dnnl::algorithm algorithm_of(PostOp::Kind kind) {
  switch (kind) {
    case PostOp::Kind::kClip:
      return dnnl::algorithm::eltwise_clip;
    case PostOp::Kind::kRound:
      return dnnl::algorithm::eltwise_round;
    case PostOp::Kind::kLinear:
      return dnnl::algorithm::eltwise_linear;
    case PostOp::Kind::kRelu:
      return dnnl::algorithm::eltwise_relu;
    case PostOp::Kind::kGelu:
      return dnnl::algorithm::eltwise_gelu_erf;
    case PostOp::Kind::kGeluTanh:
      return dnnl::algorithm::eltwise_gelu_tanh;
    case PostOp::Kind::kSigmoid:
      return dnnl::algorithm::eltwise_logistic;
    case PostOp::Kind::kTanh:
      return dnnl::algorithm::eltwise_tanh;
    case PostOp::Kind::kSilu:
      return dnnl::algorithm::eltwise_swish;
    case PostOp::Kind::kHardswish:
      return dnnl::algorithm::eltwise_hardswish;
    case PostOp::Kind::kElu:
      return dnnl::algorithm::eltwise_elu;
    case PostOp::Kind::kSum:
      break;
  }
  COMPRESS_CHECK(false, "a sum is no elementwise function");
}

// oneDNN's parameters of a post-op: those of swish and hardswish are part of the function here.
std::pair<float, float> parameters_of(const PostOp& op) {
  if (op.kind == PostOp::Kind::kSilu) return {1.0F, 0.0F};
  if (op.kind == PostOp::Kind::kHardswish) return {1.0F / 6, 0.5F};
  return {static_cast<float>(op.alpha), static_cast<float>(op.beta)};
}

// Builds the executable of one step.
class Builder {
 public:
  Builder(const Step& step, const std::vector<Slot>& slots, const dnnl::engine& engine)
      : step_(step), slots_(slots), engine_(engine), stream_(engine) {
    attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops post;
    // An elementwise primitive is its own first function.
    const size_t own = std::holds_alternative<Elementwise>(step.work) ? 1 : 0;
    for (size_t i = own; i < step.post.size(); ++i) {
      const PostOp& op = step.post[i];
      if (op.kind == PostOp::Kind::kSum) {
        post.append_sum(static_cast<float>(op.alpha), static_cast<int32_t>(op.beta),
                        type_of(slots_[step.inputs.back()].dtype));
      } else {
        const auto [alpha, beta] = parameters_of(op);
        post.append_eltwise(algorithm_of(op.kind), alpha, beta);
      }
    }
    attributes_.set_post_ops(post);
  }

  Executable build() {
    std::visit([this](const auto& work) { make(work); }, step_.work);
    for (const auto& [argument, index] : arguments_) {
      result_.arguments.push_back({argument, result_.owned[index].get()});
    }
    return std::move(result_);
  }

 private:
  const Slot& input(size_t index = 0) const { return slots_[step_.inputs[index]]; }
  const Slot& output() const { return slots_[step_.outputs[0]]; }

  void make(const Convolution& convolution) {
    const at::Tensor& weight = convolution.affine.weight;
    const int64_t groups = convolution.groups;
    Dims dims(weight.sizes().begin(), weight.sizes().end());
    if (groups > 1) {
      dims.insert(dims.begin(), groups);
      dims[1] /= groups;
    }
    const Window& window = convolution.window;
    scale_and_shift(convolution.affine, groups > 1 ? 3 : 1);
    const dnnl::convolution_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct,
        desc_of(input()), any_order(dims, weight_type(weight)), floats(weight.size(0)),
        desc_of(output()), window.stride, gaps(window), window.padding, padding_behind(window),
        attributes_);
    pack(dims, weight, chosen.weights_desc());
    finish(chosen, dnnl::convolution_forward(chosen));
    slot(DNNL_ARG_SRC, step_.inputs[0], desc_of(input()));
    slot(DNNL_ARG_DST, step_.outputs[0], desc_of(output()));
  }

  void make(const Linear& linear) {
    const at::Tensor& weight = linear.affine.weight;
    const Dims dims(weight.sizes().begin(), weight.sizes().end());
    scale_and_shift(linear.affine, 1);
    const dnnl::inner_product_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, matrix_of(input()),
        any_order(dims, weight_type(weight)), floats(weight.size(0)), matrix_of(output()),
        attributes_);
    pack(dims, weight, chosen.weights_desc());
    finish(chosen, dnnl::inner_product_forward(chosen));
    slot(DNNL_ARG_SRC, step_.inputs[0], matrix_of(input()));
    slot(DNNL_ARG_DST, step_.outputs[0], matrix_of(output()));
  }

  void make(const Pool& pool) {
    const dnnl::algorithm algorithm = pool.maximum ? dnnl::algorithm::pooling_max
                                      : pool.count_padding
                                          ? dnnl::algorithm::pooling_avg_include_padding
                                          : dnnl::algorithm::pooling_avg_exclude_padding;
    const Window& window = pool.window;
    const dnnl::pooling_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, algorithm, desc_of(input()), desc_of(output()),
        window.stride, window.kernel, gaps(window), window.padding, padding_behind(window),
        attributes_);
    finish(chosen, dnnl::pooling_forward(chosen));
    plain_slots();
  }

  void make(const Reorder&) {
    const auto settle = [&](const Slot& slot, int argument) {
      if (!slot.grid) return;
      attributes_.set_scales_mask(argument, 0);
      constant(DNNL_ARG_ATTR_SCALES | argument, at::full({1}, slot.grid->scale, at::kFloat));
      if (slot.grid->zero_point == 0) return;
      attributes_.set_zero_points_mask(argument, 0);
      constant(DNNL_ARG_ATTR_ZERO_POINTS | argument,
               at::full({1}, slot.grid->zero_point, at::kInt));
    };
    if (input().grid != output().grid) {
      settle(input(), DNNL_ARG_SRC);
      settle(output(), DNNL_ARG_DST);
    }
    const dnnl::reorder::primitive_desc chosen(engine_, desc_of(input()), engine_,
                                               desc_of(output()), attributes_);
    finish(chosen, dnnl::reorder(chosen));
    plain_slots();
  }

  void make(const Elementwise&) {
    const auto [alpha, beta] = parameters_of(step_.post.front());
    const dnnl::eltwise_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, algorithm_of(step_.post.front().kind),
        desc_of(input()), desc_of(output()), alpha, beta, attributes_);
    finish(chosen, dnnl::eltwise_forward(chosen));
    plain_slots();
  }

  void make(const Binary& binary) {
    const dnnl::binary::primitive_desc chosen(
        engine_, binary.multiply ? dnnl::algorithm::binary_mul : dnnl::algorithm::binary_add,
        desc_of(input(0)), desc_of(input(1)), desc_of(output()), attributes_);
    finish(chosen, dnnl::binary(chosen));
    plain_slots();
    slot(DNNL_ARG_SRC_1, step_.inputs[1], desc_of(input(1)));
  }

  void make(const LayerNorm& norm) {
    using Flags = dnnl::normalization_flags;
    const dnnl::layer_normalization_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, desc_of(input()), desc_of(output()),
        static_cast<float>(norm.eps), Flags::use_scale | Flags::use_shift, attributes_);
    const int64_t width = input().sizes.back();
    constant(DNNL_ARG_SCALE, norm.weight.defined() ? norm.weight : at::ones({width}));
    constant(DNNL_ARG_SHIFT, norm.bias.defined() ? norm.bias : at::zeros({width}));
    finish(chosen, dnnl::layer_normalization_forward(chosen));
    plain_slots();
  }

  void make(const BatchNorm& norm) {
    using Flags = dnnl::normalization_flags;
    const dnnl::batch_normalization_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, desc_of(input()), desc_of(output()),
        static_cast<float>(norm.eps), Flags::use_global_stats | Flags::use_scale | Flags::use_shift,
        attributes_);
    const int64_t channels = input().sizes[1];
    constant(DNNL_ARG_MEAN, norm.mean);
    constant(DNNL_ARG_VARIANCE, norm.variance);
    constant(DNNL_ARG_SCALE, norm.weight.defined() ? norm.weight : at::ones({channels}));
    constant(DNNL_ARG_SHIFT, norm.bias.defined() ? norm.bias : at::zeros({channels}));
    finish(chosen, dnnl::batch_normalization_forward(chosen));
    plain_slots();
  }

  void make(const Softmax& softmax) {
    const dnnl::softmax_forward::primitive_desc chosen(
        engine_, dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate,
        desc_of(input()), desc_of(output()), static_cast<int>(softmax.dim), attributes_);
    finish(chosen, dnnl::softmax_forward(chosen));
    plain_slots();
  }

  void make(const Concat& concat) {
    std::vector<memory::desc> parts;
    for (const size_t part : step_.inputs) parts.push_back(desc_of(slots_[part]));
    const dnnl::concat::primitive_desc chosen(engine_, desc_of(output()),
                                              static_cast<int>(concat.dim), parts, attributes_);
    finish(chosen, dnnl::concat(chosen));
    for (size_t i = 0; i < parts.size(); ++i) {
      slot(DNNL_ARG_MULTIPLE_SRC + static_cast<int>(i), step_.inputs[i], parts[i]);
    }
    slot(DNNL_ARG_DST, step_.outputs[0], desc_of(output()));
  }

  template <class Other>
  void make(const Other&) {
    COMPRESS_CHECK(false, fmt::format("{} is no primitive", kind_of(step_)));
  }

  // oneDNN counts the elements between two taps.
  static Dims gaps(const Window& window) {
    Dims gaps;
    for (const int64_t dilation : window.dilation) gaps.push_back(dilation - 1);
    return gaps;
  }

  // As much as the last window needs; less than in front where the stride skips the rest.
  Dims padding_behind(const Window& window) const {
    Dims padding;
    for (size_t i = 0; i < 2; ++i) {
      const int64_t reach = (window.kernel[i] - 1) * window.dilation[i] + 1;
      padding.push_back((output().sizes[i + 2] - 1) * window.stride[i] + reach -
                        input().sizes[i + 2] - window.padding[i]);
    }
    return padding;
  }

  // Weights are of the input's type, unless they are codes.
  memory::data_type weight_type(const at::Tensor& weight) const {
    return weight.scalar_type() == c10::kChar ? memory::data_type::s8 : type_of(input().dtype);
  }

  void scale_and_shift(const Affine& affine, int weight_mask) {
    constant(DNNL_ARG_BIAS, affine.bias);
    if (affine.scale.defined()) {
      attributes_.set_scales_mask(DNNL_ARG_WEIGHTS, weight_mask);
      constant(DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, affine.scale);
    }
    if (affine.source_zero_point != 0) {
      attributes_.set_zero_points_mask(DNNL_ARG_SRC, 0);
      constant(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC,
               at::full({1}, affine.source_zero_point, at::kInt));
    }
    if (affine.output_scale != 1) {
      attributes_.set_scales_mask(DNNL_ARG_DST, 0);
      constant(DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST, at::full({1}, affine.output_scale, at::kFloat));
    }
    if (affine.output_zero_point != 0) {
      attributes_.set_zero_points_mask(DNNL_ARG_DST, 0);
      constant(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_DST,
               at::full({1}, affine.output_zero_point, at::kInt));
    }
  }

  // Weights in the order that the kernel has chosen.
  void pack(const Dims& dims, const at::Tensor& weight, const memory::desc& chosen) {
    const auto tag = dims.size() == 5   ? memory::format_tag::goihw
                     : dims.size() == 4 ? memory::format_tag::oihw
                                        : memory::format_tag::oi;
    memory plain({dims, type_of(weight.scalar_type()), tag}, engine_, weight.data_ptr());
    memory packed(chosen, engine_);
    dnnl::reorder(plain, packed).execute(stream_, plain, packed);
    stream_.wait();
    own(DNNL_ARG_WEIGHTS, std::move(packed));
  }

  void constant(int argument, const at::Tensor& values) {
    const at::Tensor plain =
        (values.scalar_type() == at::kInt ? values : values.to(at::kFloat)).contiguous();
    memory copy({{plain.numel()}, type_of(plain.scalar_type()), memory::format_tag::a}, engine_);
    std::memcpy(copy.get_data_handle(), plain.data_ptr(), plain.nbytes());
    own(argument, std::move(copy));
  }

  void own(int argument, memory content) {
    result_.weight_bytes += static_cast<int64_t>(content.get_desc().get_size());
    add(argument, std::move(content));
  }

  void add(int argument, memory content) {
    arguments_.emplace_back(argument, result_.owned.size());
    result_.owned.push_back(std::move(content));
  }

  void slot(int argument, size_t index, const memory::desc& desc) {
    result_.slots.emplace_back(index, result_.owned.size());
    add(argument, memory(desc, engine_, DNNL_MEMORY_NONE));
  }

  void plain_slots() {
    slot(DNNL_ARG_SRC, step_.inputs[0], desc_of(input()));
    slot(DNNL_ARG_DST, step_.outputs[0], desc_of(output()));
  }

  template <class Chosen>
  void finish(const Chosen& chosen, dnnl::primitive primitive) {
    result_.kernel = chosen.impl_info_str();
    result_.primitive = std::move(primitive);
    result_.scratch_bytes = static_cast<int64_t>(chosen.scratchpad_desc().get_size());
    result_.scratch = result_.owned.size();
    add(DNNL_ARG_SCRATCHPAD, memory(chosen.scratchpad_desc(), engine_, DNNL_MEMORY_NONE));
  }

  const Step& step_;
  const std::vector<Slot>& slots_;
  const dnnl::engine& engine_;
  dnnl::stream stream_;
  dnnl::primitive_attr attributes_;
  std::vector<std::pair<int, size_t>> arguments_;
  Executable result_;
};

}  // namespace

bool is_primitive(const Step& step) {
  return !std::holds_alternative<GlobalAverage>(step.work) &&
         !std::holds_alternative<Crop>(step.work) && !std::holds_alternative<Stretch>(step.work) &&
         !std::holds_alternative<PackedLinear>(step.work);
}

Executable make_executable(const Step& step, const std::vector<Slot>& slots,
                           const dnnl::engine& engine) {
  return Builder(step, slots, engine).build();
}

}  // namespace compress::engine
