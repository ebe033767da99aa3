# cmake --install: programs, static libraries, the public headers and find_package(infer).
# Public are core/engine.h, the ways to a model and to backends, and what these include.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(public_headers
  backends/registry.h
  core/base/check.h
  core/base/dtype.h
  core/base/mat_view.h
  core/base/result.h
  core/base/tensor_view.h
  core/engine.h
  core/engine_session.h
  core/graph/builder.h
  core/graph/graph.h
  core/graph/op.h
  core/graph/planner.h
  core/model/arch.h
  core/model/hparams.h
  core/model/model.h
  core/runtime/backend.h
  core/runtime/step.h
  core/text/chat_template.h
  core/text/sampler_params.h
  core/text/text_range.h
  core/text/tokenizer.h
  gguf/reader.h)
list(TRANSFORM public_headers PREPEND ${PROJECT_SOURCE_DIR}/)
target_sources(infer_engine PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${public_headers})

# Installs a program with the completions and the man page that it makes of its own flags (its main calls
# print_docs, as parse_args does). A cross build cannot run it, and installs the program alone.
function(infer_install_program name)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  if(CMAKE_CROSSCOMPILING)
    return()
  endif()
  set(folder ${PROJECT_BINARY_DIR}/docs)
  set(files ${folder}/bash/${name} ${folder}/zsh/_${name} ${folder}/fish/${name}.fish ${folder}/man/${name}.1)
  add_custom_command(OUTPUT ${files}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}/bash ${folder}/zsh ${folder}/fish ${folder}/man
    COMMAND ${name} --completion bash > ${folder}/bash/${name}
    COMMAND ${name} --completion zsh > ${folder}/zsh/_${name}
    COMMAND ${name} --completion fish > ${folder}/fish/${name}.fish
    COMMAND ${name} --man-page > ${folder}/man/${name}.1
    DEPENDS ${name} COMMENT "Completions and man page of ${name}" VERBATIM)
  add_custom_target(${name}_docs ALL DEPENDS ${files})
  install(FILES ${folder}/bash/${name} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${folder}/zsh/_${name} DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${folder}/fish/${name}.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
  install(FILES ${folder}/man/${name}.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endfunction()

# Libraries of tests come later than this file and are not installed; those of programs hold no public header.
get_property(libraries GLOBAL PROPERTY INFER_LIBRARIES)
list(REMOVE_ITEM libraries infer_tools_common infer_tools_docs infer_eval infer_cpu_bench infer_convert infer_imatrix infer_quantize)
get_property(programs GLOBAL PROPERTY INFER_TOOLS)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/infer)
set(header_dir ${CMAKE_INSTALL_INCLUDEDIR}/infer)
install(TARGETS infer_settings ${libraries} EXPORT inferTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  FILE_SET HEADERS DESTINATION ${header_dir}
  INCLUDES DESTINATION ${header_dir})
set_target_properties(infer_settings PROPERTIES EXPORT_NAME settings)
foreach(program ${programs})
  infer_install_program(${program})
endforeach()
install(EXPORT inferTargets NAMESPACE infer:: DESTINATION ${package_dir})
set(INFER_CUDA_DEPENDENCY "")
if(INFER_HAS_CUDA)  # the runtime may be newer than the compiler, not older
  set(INFER_CUDA_DEPENDENCY "find_dependency(CUDAToolkit ${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR})")
endif()
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/inferConfig.cmake.in ${PROJECT_BINARY_DIR}/inferConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/inferConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/inferConfig.cmake ${PROJECT_BINARY_DIR}/inferConfigVersion.cmake
  DESTINATION ${package_dir})
