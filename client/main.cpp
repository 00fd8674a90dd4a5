// obraz: the command-line client of obrazd.
#include "client/cli.h"

int main(int argc, char** argv) {
  return obraz::client::run(argc, argv);
}
