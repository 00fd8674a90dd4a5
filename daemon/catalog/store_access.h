// StoreAccess: the store as the control thread sees it. Each call crosses to the reactor and comes back.
//
// Invariants: calls reach the store in the order in which they were made; once the bridge is closed every
// call answers `unavailable`. Thread: the control thread. The store and the bridge outlive it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <vector>

#include "io/asio_bridge.h"
#include "store/store.h"

namespace obraz {

class StoreAccess {
 public:
  StoreAccess(Store& store, AsioBridge& bridge) : store_(store), bridge_(bridge) {}

  boost::asio::awaitable<Status> commit(Transaction transaction);
  boost::asio::awaitable<Result<std::vector<VolumeId>>> new_volume_ids(size_t count);
  boost::asio::awaitable<Result<Store::Usage>> usage(VolumeId id);
  boost::asio::awaitable<Result<uint64_t>> freed_by_deleting(std::vector<VolumeId> ids);

  using Resources = std::vector<std::pair<std::string, std::string>>;
  boost::asio::awaitable<Result<Resources>> resources();
  boost::asio::awaitable<Result<std::vector<VolumeInfo>>> volumes();

  struct State {
    SpaceInfo space;
    StoreHealth health = StoreHealth::ok;
    std::string health_reason;
    Uuid uuid;
    StoreStats stats;
    std::vector<DataDamage> damage;
  };
  boost::asio::awaitable<Result<State>> state();

  // At most `max_ranges` ranges that begin at or after `from` (bytes); `complete` when there are no more.
  struct Difference {
    std::vector<Extent> ranges;
    bool complete = true;
  };
  boost::asio::awaitable<Result<Difference>> diff(VolumeId a, VolumeId b, uint64_t from, size_t max_ranges);

 private:
  Store& store_;
  AsioBridge& bridge_;
};

}  // namespace obraz
