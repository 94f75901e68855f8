# Finds LibTorch and offers it as the interface target lathe_torch.
#
# Not find_package(Torch): its targets put torch/include in front of the system's headers, and the
# wheel's own copies of fmt and protobuf then shadow the distribution's. Here the torch directories
# are searched last (-idirafter), so that fmt, spdlog and LibTorch live in one source file.

set(LATHE_TORCH_ROOT "" CACHE PATH
    "LibTorch: a virtual environment with torch, the torch folder of a wheel, or an unpacked libtorch zip")

# Where to look: the cache variable, the environment, what tools/quickstart installs, Python's own.
function(lathe_find_torch result)
  set(candidates "${LATHE_TORCH_ROOT}" "$ENV{LATHE_TORCH}")
  set(cache "$ENV{XDG_CACHE_HOME}")
  if(NOT cache)
    set(cache "$ENV{HOME}/.cache")
  endif()
  list(APPEND candidates "${cache}/lathe/venv-torch-2.13.0")
  foreach(candidate IN LISTS candidates)
    file(GLOB in_environment "${candidate}/lib/python3*/site-packages/torch")
    foreach(root IN ITEMS "${candidate}" ${in_environment})
      if(root AND EXISTS "${root}/include/ATen/core/Tensor.h")
        set(${result} "${root}" PARENT_SCOPE)
        return()
      endif()
    endforeach()
    if(candidate AND (candidate STREQUAL "${LATHE_TORCH_ROOT}" OR candidate STREQUAL "$ENV{LATHE_TORCH}"))
      break()  # a folder that was asked for by name and holds no LibTorch is an error
    endif()
  endforeach()
  set(${result} "" PARENT_SCOPE)
endfunction()

lathe_find_torch(lathe_torch_root)
if(NOT lathe_torch_root)
  message(FATAL_ERROR
    "LibTorch not found (LATHE_TORCH_ROOT='${LATHE_TORCH_ROOT}', environment LATHE_TORCH='$ENV{LATHE_TORCH}').\n"
    "Run tools/quickstart, which installs it, or set LATHE_TORCH_ROOT or LATHE_TORCH to a virtual environment "
    "with torch, to the torch folder of a wheel, or to an unpacked libtorch zip.")
endif()
message(STATUS "LibTorch: ${lathe_torch_root}")
set(lathe_torch_libraries c10 torch_cpu)
if(EXISTS "${lathe_torch_root}/lib/libtorch_cuda.so")
  list(APPEND lathe_torch_libraries c10_cuda torch_cuda)
endif()
add_library(lathe_torch INTERFACE)
foreach(name IN LISTS lathe_torch_libraries)
  add_library(lathe_torch::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(lathe_torch::${name} PROPERTIES
    IMPORTED_LOCATION "${lathe_torch_root}/lib/lib${name}.so")
endforeach()
set_property(TARGET lathe_torch::torch_cpu PROPERTY INTERFACE_LINK_LIBRARIES lathe_torch::c10)
target_compile_options(lathe_torch INTERFACE
  "SHELL:-idirafter ${lathe_torch_root}/include"
  "SHELL:-idirafter ${lathe_torch_root}/include/torch/csrc/api/include")
target_link_libraries(lathe_torch INTERFACE lathe_torch::torch_cpu lathe_torch::c10)
if(EXISTS "${lathe_torch_root}/lib/libtorch_cuda.so")
  # Nothing refers to a symbol of these two: they register CUDA kernels when they are loaded.
  target_link_libraries(lathe_torch INTERFACE
    "-Wl,--no-as-needed" lathe_torch::torch_cuda lathe_torch::c10_cuda "-Wl,--as-needed")
endif()
