// How much memory this process may use. Any thread; reads files of the kernel.
#pragma once

#include <cstdint>
#include <string>

namespace obraz {

// Bytes: the machine's, or less when the control group (version 2) or one above it has a limit, memory.max.
// root: stands before the paths /proc and /sys, for tests.
uint64_t usable_memory(const std::string& root = "");

}  // namespace obraz
