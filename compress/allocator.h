// How the process gets its memory. All of it is for programs, whose `main` it concerns; without
// glibc nothing happens.

#pragma once

namespace compress {

/// Tensors of 2 MB and more lie on huge pages, where the system has them for the asking: a removal
/// of channels spends up to half of its time on page faults otherwise. Before the first tensor;
/// what the environment says (THP_MEM_ALLOC_ENABLE) stands.
void use_huge_pages();

/// Freed memory stays with the process, for the next layer's output: a run that asks the system
/// again for it spends up to a third of its time on page faults.
void keep_freed_memory();

/// The opposite: what is larger than 128 KiB goes back to the system when it is freed. For
/// stretches that go through large tensors one at a time.
void return_large_blocks();

/// `return_large_blocks` for a scope, then `keep_freed_memory`.
class ReturnLargeBlocks {
 public:
  ReturnLargeBlocks() { return_large_blocks(); }
  ~ReturnLargeBlocks() { keep_freed_memory(); }
  ReturnLargeBlocks(const ReturnLargeBlocks&) = delete;
  ReturnLargeBlocks& operator=(const ReturnLargeBlocks&) = delete;
};

}  // namespace compress
