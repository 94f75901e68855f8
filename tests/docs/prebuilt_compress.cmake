# Injected with CMAKE_PROJECT_lathe_INCLUDE: takes compress/ from a build that is there, so that a
# copy of the tree compiles only what a new pass touches.
#
#   LATHE_PREBUILT   the build folder that has compress/liblathe_compress.a

macro(add_subdirectory folder)
  if("${folder}" STREQUAL "compress")
    add_library(lathe_compress STATIC IMPORTED GLOBAL)
    add_library(lathe::compress ALIAS lathe_compress)
    set_target_properties(lathe_compress PROPERTIES
      IMPORTED_LOCATION ${LATHE_PREBUILT}/compress/liblathe_compress.a
      INTERFACE_INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR})
    target_link_libraries(lathe_compress INTERFACE lathe_torch nlohmann_json::nlohmann_json fmt::fmt
      spdlog::spdlog ZLIB::ZLIB PNG::PNG JPEG::JPEG Threads::Threads)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_link_options(lathe_compress INTERFACE -fopenmp)
    endif()
  else()
    _add_subdirectory(${ARGV})
  endif()
endmacro()

# An imported library cannot be installed, and nobody installs the copy.
macro(install)
endmacro()
