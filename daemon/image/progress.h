// Progress of an import or export: written by its worker, read by anybody at any time. Thread: any.
#pragma once

#include <atomic>
#include <cstdint>

namespace obraz {

enum class CopyPhase : unsigned char { opening, copying, flushing, done };

inline const char* name_of(CopyPhase phase) {
  switch (phase) {
    case CopyPhase::opening:
      return "opening";
    case CopyPhase::copying:
      return "copying";
    case CopyPhase::flushing:
      return "flushing";
    case CopyPhase::done:
      return "done";
  }
  return "unknown";
}

struct Progress {
  std::atomic<CopyPhase> phase{CopyPhase::opening};
  std::atomic<uint64_t> bytes_total{0};    // of the disk; 0 until it is known
  std::atomic<uint64_t> bytes_done{0};     // of them dealt with, zeros included; never falls
  std::atomic<uint64_t> bytes_written{0};  // that were not zeros and took space
};

}  // namespace obraz
