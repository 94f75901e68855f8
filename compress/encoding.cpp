// A quantized weight: integer codes with scales, as tensors.

#include "compress/encoding.h"

#include "compress/encoding_bits.h"
#include "compress/encoding_codebooks.h"
#include "compress/error.h"

#include <functional>
#include <numeric>
#include <utility>

namespace compress {

int64_t QuantizedTensor::columns() const {
  int64_t columns = 1;
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    if (static_cast<int64_t>(dim) != channel_dim) columns *= sizes[dim];
  }
  return columns;
}

int64_t QuantizedTensor::bits_on_disk() const {
  size_t bytes = scale.nbytes();
  if (zero_point.defined()) bytes += zero_point.nbytes();
  if (global_scale.defined()) bytes += global_scale.nbytes();
  if (has_codebook() && known_codebook(codebook).empty()) bytes += codebook.nbytes();
  for (const at::Tensor& field : fields) bytes += field.nbytes();
  return static_cast<int64_t>(bytes) * 8;
}

at::Tensor as_matrix(const at::Tensor& weight, int64_t channel_dim) {
  const at::Tensor rows_first = channel_dim == 0 ? weight : weight.transpose(0, channel_dim);
  return rows_first.contiguous().view({rows_first.size(0), -1});
}

at::Tensor from_matrix(const at::Tensor& matrix, const std::vector<int64_t>& sizes,
                       int64_t channel_dim) {
  std::vector<int64_t> rows_first = sizes;
  std::swap(rows_first[0], rows_first[channel_dim]);
  const at::Tensor tensor = matrix.view(rows_first);
  return channel_dim == 0 ? tensor : tensor.transpose(0, channel_dim);
}

at::Tensor dequantize(const QuantizedTensor& quantized) {
  const int64_t rows = quantized.rows(), columns = quantized.columns();
  const at::Tensor codes = unpack_codes(quantized.fields, quantized.bits, columns);
  at::Tensor values = quantized.has_codebook() ? quantized.codebook.to(at::kFloat)
                                                     .index_select(0, codes.flatten().to(at::kInt))
                                                     .view(codes.sizes())
                                               : codes.to(at::kFloat);
  const auto per_column = [&](const at::Tensor& per_group) {
    return per_group.repeat_interleave(quantized.group_size, 1).narrow(1, 0, columns);
  };
  const bool even = columns % quantized.group_size == 0;
  if (even) values = values.view({rows, quantized.groups(), quantized.group_size});
  const auto spread = [&](const at::Tensor& per_group) {
    return even ? per_group.unsqueeze(-1) : per_column(per_group);
  };
  if (!quantized.symmetric()) {
    values.sub_(spread(quantized.zero_point));
  } else if (!quantized.has_codebook()) {
    values.sub_(quantized.offset());
  }
  values.mul_(spread(float_scale(quantized)));
  return from_matrix(values.view({rows, columns}), quantized.sizes, quantized.channel_dim)
      .to(quantized.dtype);
}

}  // namespace compress
