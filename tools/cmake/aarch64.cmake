# Cross build for 64-bit Arm with Debian's g++-aarch64-linux-gnu, linked statically, tests run by qemu-aarch64.
# Debian's cross packages bring a C++ library but no fmt, spdlog, hwloc, pcre2 or utf8proc for arm64, so the preset
# builds INFER_BASE_ONLY: core/base, kernels and their tests (fmt from its headers, GoogleTest from /usr/src/googletest).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
find_program(INFER_QEMU_AARCH64 NAMES qemu-aarch64-static qemu-aarch64)
if(INFER_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${INFER_QEMU_AARCH64} -cpu max)
endif()
