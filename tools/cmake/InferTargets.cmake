# One interface target carries what every target of ours is compiled with.
add_library(infer_settings INTERFACE)
add_library(infer::settings ALIAS infer_settings)
target_compile_features(infer_settings INTERFACE cxx_std_20)
target_include_directories(infer_settings INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
# Results must not depend on what the compiler fuses; FMA is written as an intrinsic where it is meant.
# nvcc gets flags of its own (below).
set(cxx $<NOT:$<COMPILE_LANGUAGE:CUDA>>)
target_compile_options(infer_settings INTERFACE $<${cxx}:-ffp-contract=off> $<${cxx}:-fno-math-errno>)
# Warnings and sanitizers are for this build, not for those who link the installed libraries.
add_library(infer_build_settings INTERFACE)
target_link_libraries(infer_settings INTERFACE $<BUILD_INTERFACE:infer_build_settings>)
if(INFER_DEVELOPER)
  target_compile_options(infer_build_settings INTERFACE
    "$<${cxx}:-Wall;-Wextra;-Wshadow;-Wnon-virtual-dtor>")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 sees overlaps in plain std::string concatenation (GCC bug 105651).
    if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
      target_compile_options(infer_build_settings INTERFACE $<${cxx}:-Wno-restrict>)
    endif()
    # Instrumented code confuses the flow analysis; the plain builds keep the warning.
    if(INFER_SANITIZE)
      target_compile_options(infer_build_settings INTERFACE -Wno-maybe-uninitialized)
    endif()
  endif()
endif()
if(INFER_WERROR)
  target_compile_options(infer_build_settings INTERFACE $<${cxx}:-Werror>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # These judge code after inlining and are wrong too often to stop a build; they are still shown.
    target_compile_options(infer_build_settings INTERFACE
      "$<${cxx}:-Wno-error=array-bounds;-Wno-error=stringop-overflow;-Wno-error=stringop-overread;-Wno-error=maybe-uninitialized>")
  endif()
endif()
if(INFER_SANITIZE)
  target_compile_options(infer_build_settings INTERFACE -fsanitize=${INFER_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(infer_build_settings INTERFACE -fsanitize=${INFER_SANITIZE})
  if(INFER_SANITIZE MATCHES "address.*undefined")
    # AddressSanitizer stops at what these would find, and they take a third of the build's time.
    target_compile_options(infer_build_settings INTERFACE -fno-sanitize=null,object-size,vptr)
  endif()
endif()

# Flags of nvcc for a target with kernels.
function(infer_cuda_compile_options target)
  set(warnings "")
  if(INFER_WERROR)
    set(warnings -Werror=all-warnings)
  endif()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${warnings}>")
endfunction()

# Sets <out> to the names among ARGN that are infer::* targets not in this build (INFER_BASE_ONLY leaves many out).
function(infer_absent_targets out)
  set(absent "")
  if(INFER_BASE_ONLY)
    foreach(depend ${ARGN})
      if(depend MATCHES "^infer::" AND NOT TARGET ${depend})
        list(APPEND absent ${depend})
      endif()
    endforeach()
  endif()
  set(${out} "${absent}" PARENT_SCOPE)
endfunction()

# infer_add_library(base SOURCES a.cpp b.cpp DEPENDS infer::x PRIVATE_DEPENDS lib)
# makes target infer_base with alias infer::base.
function(infer_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(infer_${name} STATIC ${ARG_SOURCES})
  add_library(infer::${name} ALIAS infer_${name})
  target_link_libraries(infer_${name} PUBLIC infer::settings ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE_DEPENDS})
  set_target_properties(infer_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY INFER_LIBRARIES infer_${name})
endfunction()

# What is tested is optimised; the tests around it, and the tools where sanitizers slow all down, need to compile fast.
function(infer_compile_fast name)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${name} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-Og>)
  endif()
endfunction()

# infer_add_tool(infer-cli SOURCES main.cpp DEPENDS infer::engine)
function(infer_add_tool name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  infer_absent_targets(absent ${ARG_DEPENDS})
  if(absent)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE infer::settings ${ARG_DEPENDS})
  if(INFER_SANITIZE)
    infer_compile_fast(${name})
  endif()
  set_property(GLOBAL APPEND PROPERTY INFER_TOOLS ${name})
endfunction()

# infer_add_test(unit_gguf LABELS unit SOURCES reader_test.cpp DEPENDS infer::gguf)
# Label "threads" as well: part of the ThreadSanitizer suite. Label "slow": left out by ./check.
function(infer_add_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LABELS;SOURCES;DEPENDS" ${ARGN})
  infer_absent_targets(absent ${ARG_DEPENDS})
  if(absent)
    message(STATUS "test ${name} left out: no ${absent} in this build")
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE infer::settings ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  if(INFER_SANITIZE OR NOT "ops" IN_LIST ARG_LABELS)  # those compute their references
    infer_compile_fast(${name})
    target_precompile_headers(${name} REUSE_FROM infer_test_headers)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
endfunction()
