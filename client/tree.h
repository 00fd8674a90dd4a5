// The tree of volumes: what was made of what. Pure.
#pragma once

#include <vector>

#include "client/output.h"
#include "obraz/v1/tree.pb.h"

namespace obraz::client {

// Each before what was made of it, the oldest first, with parent_id and depth. A volume whose source is not
// among them is a root, and so is one of several that claim to be made of each other.
v1::Tree tree_of(std::vector<v1::TreeVolume> volumes);

// A heading, and a row for each, the first column drawn as a tree.
std::vector<Row> tree_rows(const v1::Tree& tree);

}  // namespace obraz::client
