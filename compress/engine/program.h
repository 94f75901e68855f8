// What a plan does, before kernels are chosen: slots of memory and the steps that fill them.
//
// Lowering (lower.h) makes a program from a graph; it knows nothing of oneDNN. Dtypes, layouts,
// grids and fusions are all settled here, so that a program can be looked at and tested.

#pragma once

#include "compress/model.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace compress::engine {

/// The integers that stand for a value: value = (code - zero_point) * scale, low <= code <= high.
struct Grid {
  double scale = 1;
  int64_t zero_point = 0, low = 0, high = 255;

  c10::ScalarType dtype() const { return low >= 0 ? c10::kByte : c10::kChar; }
  /// Whether saturation to eight bits is all the clipping that is needed.
  bool fills_dtype() const { return high - low == 255; }
  double lowest() const { return static_cast<double>(low - zero_point) * scale; }
  double highest() const { return static_cast<double>(high - zero_point) * scale; }
  friend bool operator==(const Grid&, const Grid&) = default;
};

/// A value in memory. Slots may share a buffer: views, and sums that are added up in place.
struct Slot {
  std::string name;
  std::vector<int64_t> sizes;
  c10::ScalarType dtype = c10::kFloat;
  bool channels_last = false;  ///< four dimensions, in memory batch, height, width, channels
  std::optional<Grid> grid;    ///< of eight-bit slots
  size_t buffer = 0;

  int64_t elements() const;
  int64_t bytes() const;
  /// Strides in elements.
  std::vector<int64_t> strides() const;
};

struct Buffer {
  int64_t bytes = 0;
  /// The index of the plan's input that it is; it then lies outside of the arena.
  std::optional<size_t> input;
};

/// What is done to the result of a step before it is stored, in this order.
struct PostOp {
  enum class Kind {
    kSum,   ///< + alpha * (what the output slot holds - beta)
    kClip,  ///< to alpha .. beta
    kRound,
    kLinear,  ///< alpha * x + beta
    kRelu,    ///< slope alpha below zero
    kGelu,
    kGeluTanh,
    kSigmoid,
    kTanh,
    kSilu,
    kHardswish,
    kElu,
  };
  Kind kind;
  double alpha = 0, beta = 0;
};
std::string name_of(PostOp::Kind kind);

/// Of a convolution or pooling window, height first.
struct Window {
  std::vector<int64_t> kernel, stride, padding, dilation;
};

/// Weights as the kernel wants them: float, or codes int8 with what an accumulated unit is worth.
struct Affine {
  at::Tensor weight;  ///< float or int8, [out, in / groups, kh, kw] or [out, in]
  at::Tensor scale;   ///< float [out]; only of int8 weights
  at::Tensor bias;    ///< float [out], or undefined
  int64_t source_zero_point = 0;
  double output_scale = 1;        ///< the result is divided by it, rounded, and ...
  int64_t output_zero_point = 0;  ///< ... this is added; only of eight-bit outputs
};

struct Convolution {
  Affine affine;
  Window window;
  int64_t groups = 1;
};
struct Linear {
  Affine affine;
};
/// 4-bit weights that LibTorch's kernel decodes on the way: bfloat16 in and out.
struct PackedLinear {
  at::Tensor weight;            ///< uint8, as `_convert_weight_to_int4pack_for_cpu` has it
  at::Tensor scales_and_zeros;  ///< bfloat16 [in / group, out, 2]
  at::Tensor bias;              ///< or undefined
  int64_t group = 0;            ///< 32, 64, 128 or 256
};
struct Pool {
  Window window;
  bool maximum = true, count_padding = true;
};
struct GlobalAverage {};
/// Part of each image, with zeros around. Along a dimension: `before` zeros, then the elements
/// `start, start + step, ...`, `count` of them, then zeros again.
struct Crop {
  struct Dimension {
    int64_t start = 0, step = 1, count = 0, before = 0;
  };
  Dimension channels, rows, columns;  ///< channels have step 1
};
/// Another dtype, grid or layout.
struct Reorder {};
struct Elementwise {};  ///< its post-ops alone
struct Binary {
  bool multiply = false;
};
struct LayerNorm {
  at::Tensor weight, bias;
  double eps = 0;
};
/// `x * scale + shift` a channel.
struct BatchNorm {
  at::Tensor mean, variance, weight, bias;
  double eps = 0;
};
struct Softmax {
  int64_t dim = 0;
};
struct Concat {
  int64_t dim = 0;
};
/// A stretch of operators that run through LibTorch.
struct Stretch {
  std::shared_ptr<const Model> part;
  std::string operators;
};

struct Step {
  std::variant<Convolution, Linear, PackedLinear, Pool, GlobalAverage, Crop, Reorder, Elementwise,
               Binary, LayerNorm, BatchNorm, Softmax, Concat, Stretch>
      work;
  std::string name;
  std::vector<size_t> inputs, outputs;  ///< slots
  std::vector<PostOp> post;
};
std::string kind_of(const Step& step);

struct Program {
  std::vector<Slot> slots;
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::vector<size_t> inputs;  ///< slots of the graph's inputs
  /// Layers in float because their sums of codes could overflow (Arithmetic::wide_sums).
  int64_t layers_of_narrow_sums = 0;

  struct Result {
    std::optional<size_t> slot;
    at::Tensor constant;  ///< else
  };
  std::vector<Result> results;
};

}  // namespace compress::engine
