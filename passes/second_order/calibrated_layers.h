// Layers one after another, each with what is known of its inputs.

#pragma once

#include "compress/model.h"
#include "compress/pass_context.h"
#include "compress/selector.h"
#include "compress/weight.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// A layer's weight as a matrix, and its inputs.
struct CalibratedLayer {
  Weight& weight;
  at::Tensor matrix;  ///< float [rows, columns]: the effective weight, or `LayerTarget`'s
  at::Tensor keep;    ///< the weight's mask, bool [rows, columns]; undefined if it has none
  /// double [groups, columns, columns]: mean outer product of the rows that reach each group of a
  /// convolution (compress/calibrate/layer_input.h)
  at::Tensor gram;
  at::Tensor power;  ///< double [groups, columns]: the Gram matrices' diagonals
};

/// How much is to be known of the inputs: all, or the mean squares, which are found much faster;
/// `gram` is undefined then.
enum class LayerInputs { kGram, kPower };

/// What a changed layer is to give.
enum class LayerTarget {
  kLayer,     ///< what its weight makes of the inputs that it gets now
  kOriginal,  ///< what it gave before the layers in front of it were changed
};
inline std::vector<std::string_view> option_names(LayerTarget) { return {"layer", "original"}; }

/// The weight W' that minimises E |W' x - W z|^2 + ridge m |W' - W|^2, x the inputs now, z those
/// before, m the mean of E x^2 (`ridge` counts as at least 1e-8): what a layer whose inputs have
/// changed would have to be to give what it gave. For a change D of W', E |(W' + D) x - W z|^2 is
/// tr(D H D^T) and a constant (but for the ridge), so methods that keep a layer's output go on from
/// W' as they would from W. `weight`: [rows, columns]; `gram` of x x^T and `cross` of z x^T: double
/// [groups, columns, columns]. The objective is that of Li et al., "GPTAQ: Efficient
/// Finetuning-Free Quantization for Asymmetric Calibration", ICML 2025, who solve it column by
/// column.
at::Tensor weight_for_inputs(const at::Tensor& weight, const at::Tensor& gram,
                             const at::Tensor& cross, double ridge);

/// tr(D H D^T) / tr(W H W^T), D the difference of two matrices [rows, columns]: the share of the
/// layer's output, as energy, that the change of the weight takes away. 0 if the output is 0.
double relative_output_error(const at::Tensor& weight, const at::Tensor& changed,
                             const at::Tensor& gram);

/// Why nothing is known of the inputs of a weight's layer, as the end of a sentence: it has no
/// input matrix (embeddings, recurrent layers, transposed convolutions), or several layers share
/// the weight. Empty if neither is so.
std::string no_input_matrix(const Weight& weight);

/// A sentence's end on why a weight is left alone, or empty.
using LeaveAlone = std::function<std::string(const Weight&)>;
/// Changes one layer's weight.
using EditLayer = std::function<void(CalibratedLayer&)>;

/// Calls `edit` for the selected weights in the order of the graph, each with its inputs as they
/// are behind the layers that were edited before. Weights that `no_input_matrix` or `leave_alone`
/// names are left alone; a message says so, and the count `weights_left_alone`.
void for_each_calibrated_layer(Model& model, const Selector& where, PassContext& context,
                               LayerInputs inputs, const LeaveAlone& leave_alone,
                               const EditLayer& edit);
/// The same with Gram matrices, and for LayerTarget::kOriginal `matrix` as `weight_for_inputs` has
/// it with this ridge; the model as it was runs beside the edited one.
void for_each_calibrated_layer(Model& model, const Selector& where, PassContext& context,
                               LayerTarget target, double ridge, const LeaveAlone& leave_alone,
                               const EditLayer& edit);

/// Puts a matrix [rows, columns] in the place of a stored weight's elements; whether that changes
/// the effective weight.
bool store_matrix(Weight& weight, const at::Tensor& matrix);
/// Masks a weight by a matrix [rows, columns]; how many elements were masked newly.
int64_t mask_matrix(Weight& weight, const at::Tensor& keep);

}  // namespace compress
