// What main puts between parts that do not know each other: exports of the NBD server are resources of the
// catalog, and the jobs of the control server move bytes with the image code.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "catalog/catalog.h"
#include "control/subject.h"
#include "control/transfer.h"
#include "io/reactor.h"
#include "nbd/export.h"
#include "nbd/sessions.h"
#include "store/store.h"

namespace obraz {

// Thread: the control thread.
class CatalogExports final : public nbd::ExportSource {
 public:
  explicit CatalogExports(Catalog& catalog) : catalog_(catalog) {}

  boost::asio::awaitable<Answer<nbd::Export>> find(std::string name, nbd::Peer peer) override;
  boost::asio::awaitable<Answer<std::vector<nbd::ListedExport>>> list(nbd::Peer peer) override;
  boost::asio::awaitable<Answer<void>> attach(nbd::Export exported, nbd::Peer peer) override;
  void detach(const nbd::Export& exported) override;

  // What went over the sessions, by the number that the catalog knows each by.
  static Traffic traffic_of(const std::vector<nbd::SessionInfo>& sessions);

 private:
  SubjectRef subject_of(const nbd::Peer& peer);

  Catalog& catalog_;
  Subjects subjects_;
  uint64_t next_session_ = 1;
};

// Thread: a worker's; it waits for the reactor, which runs until the last job has ended.
class StoreTransfer final : public ImageTransfer {
 public:
  // digest_rate: bytes per second, of digests in the background.
  StoreTransfer(Reactor& reactor, Store& store, uint64_t digest_rate)
      : reactor_(reactor), store_(store), digest_rate_(digest_rate) {}

  Answer<std::unique_ptr<Source>> open(const SourceSpec& source, Progress& progress,
                                       std::stop_token stop) override;
  Answer<void> import(Source& source, VolumeId into, Progress& progress, std::stop_token stop) override;
  Answer<v1::Layout> examine(VolumeId volume, std::stop_token stop) override;
  Answer<std::string> digest(VolumeId volume, Pace pace, Progress& progress, std::stop_token stop) override;
  Answer<void> export_to(VolumeId from, const TargetSpec& target, Progress& progress,
                         std::stop_token stop) override;

 private:
  Result<Volume> open_volume(VolumeId id);

  Reactor& reactor_;
  Store& store_;
  const uint64_t digest_rate_;
};

}  // namespace obraz
