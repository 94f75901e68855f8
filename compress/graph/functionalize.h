// In-place operators become functional ones.

#pragma once

namespace compress {

class Model;

/// Rewrites every in-place operator of the graph as its functional twin (`relu_` to `relu`, `copy_`
/// to `copy`), so that values never change.
///
/// Values that share memory with the changed one follow: a view that is read later is taken again
/// from the new value, and a change of a view is written back into what it views (`slice_scatter`,
/// `select_scatter`, a reshape). New contents of buffers become `Graph::updates()`; the caller's
/// own tensors are left alone, which a note says. Nodes that only served this and have no reader
/// left are removed.
///
/// Throws Error(kUnsupported) naming node and module where the effect of a change cannot be
/// followed: behind an operator that may or may not copy (`reshape`, `contiguous`), an overlapping
/// view, a changed parameter, or an in-place operator without a functional twin.
void functionalize(Model& model);

}  // namespace compress
