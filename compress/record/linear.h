// The C++ frontend writes a linear layer as a transposition and a product; this makes it one again.

#pragma once

namespace compress {

class Graph;

/// Turns `addmm(bias, x, t(w))`, `mm(x, t(w))`, and `matmul(x, t(w))` with or without the addition
/// of a bias into `linear(x, w, bias)`, for `w` a matrix among the named tensors. What is left over
/// is dead. Expects a graph without in-place operators, types filled in.
void restore_linear(Graph& graph);

}  // namespace compress
