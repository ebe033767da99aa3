# Targets for people: `cmake --build --preset dev --target fmt tidy`.
add_custom_target(fmt COMMAND ${PROJECT_SOURCE_DIR}/tools/sh/format.sh --fix
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} USES_TERMINAL VERBATIM)
add_custom_target(tidy COMMAND ${PROJECT_SOURCE_DIR}/tools/sh/tidy.sh ${CMAKE_BINARY_DIR}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} USES_TERMINAL VERBATIM)
