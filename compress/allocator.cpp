// What the lathe command asks of glibc and of LibTorch's allocator.

#include "compress/allocator.h"

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace compress {

void use_huge_pages() {
#ifdef __GLIBC__
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);  // read by LibTorch's allocator
#endif
}

// By default glibc hands freed tensors back to the system, and gets new pages one fault at a time.
void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kMegabyte = 1 << 20;
  mallopt(M_MMAP_THRESHOLD, 256 * kMegabyte);
  mallopt(M_TRIM_THRESHOLD, 1024 * kMegabyte);
#endif
}

// Said outright: glibc would move its limit for blocks of their own up to 32 MB and then keep the
// holes that aligned blocks of tensors leave behind, which adds up to a quarter of a model.
void return_large_blocks() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 128 * 1024);
#endif
}

}  // namespace compress
