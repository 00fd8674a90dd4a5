# Where things go: cmake --install build/release --prefix /usr. Manual pages and completions are made by the programs
# themselves, so they say what the programs do.
include(GNUInstallDirs)

# obraz_generate(OUTPUT program arguments...): what the program prints, made anew with the program.
function(obraz_generate output program)
  get_filename_component(folder ${CMAKE_BINARY_DIR}/${output} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/${output}
    COMMAND ${program} ${ARGN} > ${CMAKE_BINARY_DIR}/${output}
    DEPENDS ${program} VERBATIM)
  set_property(GLOBAL APPEND PROPERTY OBRAZ_GENERATED ${CMAKE_BINARY_DIR}/${output})
endfunction()

obraz_generate(share/man/man1/obraz.1 obraz --man)
obraz_generate(share/man/man8/obrazd.8 obrazd --man)
obraz_generate(share/man/man8/obraz-store.8 obraz-store --man)
obraz_generate(share/bash-completion/completions/obraz obraz completion bash)
obraz_generate(share/zsh/vendor-completions/_obraz obraz completion zsh)
obraz_generate(share/fish/vendor_completions.d/obraz.fish obraz completion fish)
get_property(generated GLOBAL PROPERTY OBRAZ_GENERATED)
add_custom_target(documentation ALL DEPENDS ${generated})

install(TARGETS obraz obrazd obraz-store obraz-layout DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${CMAKE_BINARY_DIR}/share/ DESTINATION ${CMAKE_INSTALL_DATADIR})
install(FILES systemd/obrazd.service DESTINATION lib/systemd/system)
install(FILES systemd/obraz.sysusers DESTINATION lib/sysusers.d RENAME obraz.conf)
install(FILES systemd/obrazd.conf.example DESTINATION ${CMAKE_INSTALL_DOCDIR})
