# What `cmake --install` installs: libraries, public headers, the command, the package `lathe`.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(lathe_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/lathe)

install(TARGETS lathe_compress lathe_passes EXPORT lathe-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT lathe-targets NAMESPACE lathe:: DESTINATION ${lathe_package_dir})
foreach(folder IN ITEMS compress passes)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} DESTINATION include/lathe FILES_MATCHING PATTERN "*.h"
    PATTERN primitives.h EXCLUDE)  # the one header that needs oneDNN's
endforeach()
if(TARGET lathe)
  install(TARGETS lathe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # The command finds LibTorch where it was built against.
  set_target_properties(lathe PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
endif()

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/tools/cmake/lathe-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/lathe-config.cmake
  INSTALL_DESTINATION ${lathe_package_dir})
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/lathe-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/lathe-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/lathe-config-version.cmake
  ${PROJECT_SOURCE_DIR}/tools/cmake/LatheTorch.cmake
  DESTINATION ${lathe_package_dir})
