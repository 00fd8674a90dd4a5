// How far an operation is: a bar on a terminal, redrawn in place; elsewhere a line now and then. On standard
// error.
#pragma once

#include <string>

#include "obraz/v1/operation.pb.h"

namespace obraz::client {

class ProgressDisplay {
 public:
  enum class Mode { none, lines, bar };
  explicit ProgressDisplay(Mode mode) : mode_(mode) {}
  ~ProgressDisplay() { clear(); }
  // By what standard error is.
  static Mode suitable_mode();

  void show(const v1::Operation& operation);
  // Takes the bar away.
  void clear();

  // One bar of `columns` columns, for instance
  //   copying [#########-----------]  45%  1.2 GiB of 2.7 GiB  350 MiB/s  0:05 left
  static std::string bar(const v1::OperationMetadata& metadata, unsigned columns);
  // copying: 45%, 1.2 GiB of 2.7 GiB, 350 MiB/s, 0:05 left
  static std::string line(const v1::OperationMetadata& metadata);

 private:
  Mode mode_;
  bool drawn_ = false;
  std::string last_phase_;
  int64_t last_tenth_ = -1;
};

}  // namespace obraz::client
