// The numbers that stand for dtypes, layouts and memory formats in .pt2 files, and tensor metadata.

#pragma once

#include "compress/graph/graph.h"
#include "compress/io/pt2_json.h"
#include "compress/io/tensor_view.h"

#include <c10/core/Device.h>

namespace compress::pt2 {

c10::ScalarType read_dtype(const JsonCursor& number);
c10::Layout read_layout(const JsonCursor& number);
c10::MemoryFormat read_memory_format(const JsonCursor& number);
c10::Device read_device(const JsonCursor& device);

/// The number of a dtype; throws Error(kUnsupported) for one that the format lacks.
int64_t dtype_number(c10::ScalarType dtype);
int64_t layout_number(c10::Layout layout);
int64_t memory_format_number(c10::MemoryFormat format);

/// {"as_int": 3} or {"as_expr": {"expr_str": ..., "hint": ...}}.
Dim read_dim(const JsonCursor& size);

/// dtype and sizes of a value.
TensorType read_tensor_type(const JsonCursor& meta);

/// How a stored tensor lies in its payload; its sizes must be numbers.
TensorView read_tensor_view(const JsonCursor& meta);

}  // namespace compress::pt2
