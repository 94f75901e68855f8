# Finds LibTorch and offers it as the interface target lathe_torch.
#
# Not find_package(Torch): its targets put torch/include in front of the system's headers, and the
# wheel's own copies of fmt and protobuf then shadow the distribution's. Here the torch directories
# are searched last (-idirafter), so that fmt, spdlog and LibTorch live in one source file.

set(LATHE_TORCH_ROOT "" CACHE PATH "LibTorch: the torch folder of a pip wheel, or an unpacked libtorch zip")

if(NOT LATHE_TORCH_ROOT AND DEFINED ENV{LATHE_TORCH})
  set(LATHE_TORCH_ROOT "$ENV{LATHE_TORCH}")
endif()
if(NOT LATHE_TORCH_ROOT)
  find_package(Python3 COMPONENTS Interpreter QUIET)
  if(Python3_Interpreter_FOUND)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
              "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE LATHE_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()
if(NOT EXISTS "${LATHE_TORCH_ROOT}/include/ATen/core/Tensor.h")
  message(FATAL_ERROR
    "LibTorch not found (looked in '${LATHE_TORCH_ROOT}'). Run tools/quickstart, which installs it, or "
    "set LATHE_TORCH_ROOT (or the environment variable LATHE_TORCH) to the torch folder of a pip wheel "
    "or to an unpacked libtorch zip.")
endif()

set(lathe_torch_libraries c10 torch_cpu)
if(EXISTS "${LATHE_TORCH_ROOT}/lib/libtorch_cuda.so")
  list(APPEND lathe_torch_libraries c10_cuda torch_cuda)
endif()
add_library(lathe_torch INTERFACE)
foreach(name IN LISTS lathe_torch_libraries)
  add_library(lathe_torch::${name} SHARED IMPORTED GLOBAL)
  set_target_properties(lathe_torch::${name} PROPERTIES
    IMPORTED_LOCATION "${LATHE_TORCH_ROOT}/lib/lib${name}.so")
endforeach()
set_property(TARGET lathe_torch::torch_cpu PROPERTY INTERFACE_LINK_LIBRARIES lathe_torch::c10)
target_compile_options(lathe_torch INTERFACE
  "SHELL:-idirafter ${LATHE_TORCH_ROOT}/include"
  "SHELL:-idirafter ${LATHE_TORCH_ROOT}/include/torch/csrc/api/include")
target_link_libraries(lathe_torch INTERFACE lathe_torch::torch_cpu lathe_torch::c10)
if(EXISTS "${LATHE_TORCH_ROOT}/lib/libtorch_cuda.so")
  # Nothing refers to a symbol of these two: they register CUDA kernels when they are loaded.
  target_link_libraries(lathe_torch INTERFACE
    "-Wl,--no-as-needed" lathe_torch::torch_cuda lathe_torch::c10_cuda "-Wl,--as-needed")
endif()
set(lathe_torch_rpath "${LATHE_TORCH_ROOT}/lib")
