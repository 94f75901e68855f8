// How the process gets its memory.

#pragma once

namespace compress {

/// Freed memory stays with the process, and large tensors lie on huge pages where the system has
/// them for the asking; a run, and above all a removal of channels, otherwise spends up to half of
/// its time on page faults. For the whole process and before its first tensor, so for `main`. What
/// the environment says (THP_MEM_ALLOC_ENABLE) stands. Does nothing without glibc.
void keep_freed_memory();

/// Takes back the first half of it: what is larger than 128 KiB goes back to the system when it is
/// freed. For programs that hold one tensor of many at a time.
void return_large_blocks();

}  // namespace compress
