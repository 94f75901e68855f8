# Injected with CMAKE_PROJECT_lathe_INCLUDE: takes compress/ from a build that is there, so that a
# copy of the tree compiles only what a new pass touches: the other passes are compiled by the same
# commands as in that build, so that ccache has them. tests/package/build_consumer uses it as well.
#
#   LATHE_PREBUILT   the build folder that has compress/liblathe_compress.a

macro(add_subdirectory folder)
  if("${folder}" STREQUAL "compress")
    add_library(lathe_compress STATIC IMPORTED GLOBAL)
    add_library(lathe::compress ALIAS lathe_compress)
    set_target_properties(lathe_compress PROPERTIES
      IMPORTED_LOCATION ${LATHE_PREBUILT}/compress/liblathe_compress.a
      IMPORTED_NO_SYSTEM ON
      INTERFACE_INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR})
    target_compile_features(lathe_compress INTERFACE cxx_std_20)
    target_link_libraries(lathe_compress INTERFACE lathe_torch nlohmann_json::nlohmann_json fmt::fmt)
    # What only the linker is to see of compress/, as in compress/CMakeLists.txt.
    foreach(library IN ITEMS spdlog::spdlog ZLIB::ZLIB PNG::PNG JPEG::JPEG Threads::Threads DNNL::dnnl)
      if(TARGET ${library})
        target_link_libraries(lathe_compress INTERFACE $<LINK_ONLY:${library}>)
      endif()
    endforeach()
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
