# Finds oneDNN for the inference engine: LATHE_HAS_ONEDNN, and the target DNNL::dnnl.
#
# LibTorch's own copy is hidden inside of it. The package onednn-devel-cpu-gomp puts headers and CMake files into
# the environment that LibTorch lives in; a user's own is found through dnnl_DIR or CMAKE_PREFIX_PATH. Both it and
# LibTorch take their threads from the same libgomp.

option(LATHE_ENGINE "Build the inference engine if oneDNN 3 is found" ON)

set(LATHE_HAS_ONEDNN OFF)
if(LATHE_ENGINE AND NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Its thread counts go to libgomp through g++'s -fopenmp; clang would bring a second runtime.
  message(STATUS "the inference engine is left out: it needs g++'s OpenMP")
elseif(LATHE_ENGINE)
  # Of a wheel: <environment>/lib/python3.x/site-packages/torch.
  cmake_path(SET lathe_torch_environment NORMALIZE "${lathe_torch_root}/../../../..")
  find_package(dnnl 3.1 CONFIG QUIET HINTS "${lathe_torch_environment}")
  if(dnnl_FOUND)
    set(LATHE_HAS_ONEDNN ON)
    message(STATUS "oneDNN: ${dnnl_DIR}")
  else()
    message(STATUS "oneDNN not found: the inference engine is left out (pip install onednn-devel-cpu-gomp==2023.2.0)")
  endif()
endif()
