// One source of a hot loop, compiled for several instruction sets and chosen when the program
// starts.

#pragma once

/// In front of a free function whose loops the compiler shall vectorise for newer processors too.
/// Its file is compiled with -ffp-contract=off, so that all versions give the same bits. Only g++
/// (clang 16 cannot clone templates), and not under sanitizers, whose start-up does not bear the
/// choice.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COMPRESS_MULTIVERSION \
  __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define COMPRESS_MULTIVERSION
#endif
