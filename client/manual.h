// The manual page of obraz: what it says beside the commands and options, which are those of --help.
#pragma once

#include "man_page.h"

namespace obraz::client {

inline const ManPage kManual{
    .section = 1,
    .title = "images, disks and snapshots of the block storage daemon obrazd",
    .description =
        R"(obraz asks obrazd to make, change, show and delete images, disks and snapshots, and the folders they live in. A
disk is served over NBD; a disk made from an image is there at once, whatever the size of either.

Commands wait until what they asked for has ended, and say what came of it. Names are looked up in the folder that
--folder names, and ids everywhere. Options that every command takes may stand before or after it.)",
    .sections = {
        {"SIZES", "Digits and K, M, G or T, powers of 1024: 4M, 20G."},
        {"OUTPUT",
         R"(Tables are as wide as the terminal: what does not fit ends in an ellipsis, but for ids. Written to anything else they
are whole and without colours; so they are on a terminal when NO_COLOR is set.

--json prints one document with the field names of the control API, --quiet the ids alone. A refusal is a sentence on
standard error, or with --json the document {"error": {"code", "field", "message"}}.)"},
        {"EXIT STATUS",
         R"(0 when it was done, 1 when it was refused or the daemon cannot be reached, 2 for a wrong command line.)"},
        {"ENVIRONMENT",
         R"(OBRAZ_CONTROL: the control socket, where --control is not given. NO_COLOR: no colours.)"},
        {"FILES",
         R"(./obraz-data/control.sock, /run/obraz/control.sock: where the control socket is looked for otherwise.)"},
        {"EXAMPLES",
         R"man(  obraz image import debian-12.qcow2 --name debian-12 --family debian
  obraz disk create --name vm1 --family debian --size 20G
  eval qemu-system-x86_64 -m 1024 "$(obraz disk attach-args vm1 --for qemu)"
  obraz snapshot create --name before-upgrade --disk vm1
  obraz access grant --image debian-12 --role images.user --subject group:team
  source <(obraz completion bash))man"},
        {"SEE ALSO", "obrazd(8), obraz-store(8), qemu-nbd(8), nbd-client(8)"}}};

}  // namespace obraz::client
