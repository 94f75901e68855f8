# Helpers for the project's own targets.

# Warnings where they are errors (looking for them takes a twelfth of a build, which a user is spared), the
# OpenMP flag that at::parallel_for needs, and the fast linker.
function(lathe_library_options target)
  # Else a header such as ATen/TensorOperators.h includes the declarations of all operators.
  target_compile_definitions(${target} PRIVATE AT_PER_OPERATOR_HEADERS)
  if(LATHE_WARNINGS_AS_ERRORS)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unused-parameter -Werror)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # GCC 12 sees an overlap in `"text" + std::string` that cannot be (its bug 105329).
      target_compile_options(${target} PRIVATE -Wno-restrict)
      # Designated initialisers are there to leave members at their defaults.
      target_compile_options(${target} PRIVATE -Wno-missing-field-initializers)
      # A source that is read together with others passes for a header, whose types must not have
      # members of the anonymous namespace.
      if(CMAKE_UNITY_BUILD)
        target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
      endif()
    endif()
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fopenmp)  # without it at::parallel_for is serial
    target_link_options(${target} PUBLIC -fopenmp)
  endif()
endfunction()

# lathe_test(name SOURCES a.cpp b.cpp [LABELS slow] [LIBRARIES x]): one GoogleTest binary.
function(lathe_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LABELS;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE lathe_passes lathe_test_support GTest::gmock_main ${ARG_LIBRARIES})
  lathe_library_options(${name})
  # Reading headers is most of compiling a test: the sources of one are read as one.
  set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  # Tests are compiled far more often than they run; what they test is optimised all the same.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O0>)
  # One process a binary, not one a test: loading LibTorch takes longer than most tests.
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()

# lathe_pass(prune magnitude): builds passes/prune/magnitude.cpp and registers its class
# PruneMagnitude as `prune.magnitude`. tests/passes/CMakeLists.txt builds the test of every pass.
# A pass and its test are compiled by themselves: whoever adds one need not know the names in others.
function(lathe_pass family name)
  target_sources(lathe_passes PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${family}/${name}.cpp)
  set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/${family}/${name}.cpp
    PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_property(GLOBAL APPEND PROPERTY lathe_pass_ids "${family}.${name}")
endfunction()

# Writes the registry's source from all lathe_pass() lines (a static library would drop objects that
# register themselves).
function(lathe_pass_registry)
  get_property(ids GLOBAL PROPERTY lathe_pass_ids)
  set(declarations "")
  set(registrations "")
  foreach(id IN LISTS ids)
    string(REGEX REPLACE "[._]" ";" words "${id}")
    set(class "")
    foreach(word IN LISTS words)
      string(SUBSTRING "${word}" 0 1 first)
      string(SUBSTRING "${word}" 1 -1 rest)
      string(TOUPPER "${first}" first)
      string(APPEND class "${first}${rest}")
    endforeach()
    string(APPEND declarations "std::unique_ptr<Pass> make_${class}();\n")
    string(APPEND registrations "  registry.add(make_${class}(), \"${id}\");\n")
  endforeach()
  configure_file(${CMAKE_CURRENT_SOURCE_DIR}/registry.cpp.in ${CMAKE_CURRENT_BINARY_DIR}/registry.cpp
                 @ONLY)
  target_sources(lathe_passes PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/registry.cpp)
endfunction()
