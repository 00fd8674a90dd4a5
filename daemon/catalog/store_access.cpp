#include "catalog/store_access.h"

#include <utility>

namespace obraz {
namespace {

template <typename T>
using Start = std::move_only_function<Task<T>()>;

Failure closed() {
  return fail(ErrorCode::unavailable, "the store is being closed");
}

// --- on the reactor; named coroutines, so that nothing depends on a lambda's captures
// -------------------------------
Task<Result<std::vector<VolumeId>>> take_volume_ids(Store* store, size_t count) {
  std::vector<VolumeId> ids;
  for (size_t i = 0; i < count; ++i)
    ids.push_back(store->new_volume_id());
  co_return ids;
}

Task<Result<Store::Usage>> count_usage(Store* store, VolumeId id) {
  Result<Volume> volume = store->open_volume(id);
  OBRAZ_CO_TRY(volume);
  Result<Store::Usage> usage = co_await store->usage(*volume);
  co_return usage;
}

Task<Result<uint64_t>> count_freed(Store* store, std::vector<VolumeId> ids) {
  std::vector<Volume> volumes;
  for (const VolumeId id : ids) {
    Result<Volume> volume = store->open_volume(id);
    OBRAZ_CO_TRY(volume);
    volumes.push_back(std::move(*volume));
  }
  Result<uint64_t> freed = co_await store->freed_by_deleting(std::move(volumes));
  co_return freed;
}

Task<Result<StoreAccess::Resources>> list_resources(Store* store) {
  co_return store->resources();
}
Task<Result<std::vector<VolumeInfo>>> list_volumes(Store* store) {
  co_return store->volumes();
}

Task<Result<StoreAccess::State>> read_state(Store* store) {
  co_return StoreAccess::State{store->space(), store->health(), store->health_reason(),
                               store->uuid(),  store->stats(),  store->data_damage()};
}

Task<Result<StoreAccess::Difference>> find_difference(Store* store, VolumeId a, VolumeId b, uint64_t from,
                                                      size_t max_ranges) {
  Result<Volume> first = store->open_volume(a);
  OBRAZ_CO_TRY(first);
  Result<Volume> second = store->open_volume(b);
  OBRAZ_CO_TRY(second);
  StoreAccess::Difference difference;
  std::move_only_function<bool(Extent)> visit = [&difference, from, max_ranges](Extent range) {
    if (range.offset + range.length <= from)
      return true;
    if (range.offset < from) {  // the volume changed between two pages
      range.length -= from - range.offset;
      range.offset = from;
    }
    difference.complete = difference.ranges.size() < max_ranges;
    if (difference.complete)
      difference.ranges.push_back(range);
    return difference.complete;
  };
  Status status = co_await store->diff(*first, *second, std::move(visit));
  OBRAZ_CO_TRY(status);
  co_return difference;
}

}  // namespace

boost::asio::awaitable<Status> StoreAccess::commit(Transaction transaction) {
  Start<Status> start = [store = &store_, transaction = std::move(transaction)]() mutable {
    return store->commit(std::move(transaction));
  };
  Status otherwise = closed();
  Status status = co_await bridge_.call<Status>(std::move(start), std::move(otherwise));
  co_return status;
}

boost::asio::awaitable<Result<std::vector<VolumeId>>> StoreAccess::new_volume_ids(size_t count) {
  using Answer = Result<std::vector<VolumeId>>;
  Start<Answer> start = [store = &store_, count] { return take_volume_ids(store, count); };
  Answer otherwise = closed();
  Answer ids = co_await bridge_.call<Answer>(std::move(start), std::move(otherwise));
  co_return ids;
}

boost::asio::awaitable<Result<Store::Usage>> StoreAccess::usage(VolumeId id) {
  Start<Result<Store::Usage>> start = [store = &store_, id] { return count_usage(store, id); };
  Result<Store::Usage> otherwise = closed();
  Result<Store::Usage> usage =
      co_await bridge_.call<Result<Store::Usage>>(std::move(start), std::move(otherwise));
  co_return usage;
}

boost::asio::awaitable<Result<uint64_t>> StoreAccess::freed_by_deleting(std::vector<VolumeId> ids) {
  Start<Result<uint64_t>> start = [store = &store_, ids = std::move(ids)] { return count_freed(store, ids); };
  Result<uint64_t> otherwise = closed();
  Result<uint64_t> freed = co_await bridge_.call<Result<uint64_t>>(std::move(start), std::move(otherwise));
  co_return freed;
}

boost::asio::awaitable<Result<StoreAccess::Resources>> StoreAccess::resources() {
  Start<Result<Resources>> start = [store = &store_] { return list_resources(store); };
  Result<Resources> otherwise = closed();
  Result<Resources> resources =
      co_await bridge_.call<Result<Resources>>(std::move(start), std::move(otherwise));
  co_return resources;
}

boost::asio::awaitable<Result<std::vector<VolumeInfo>>> StoreAccess::volumes() {
  using Answer = Result<std::vector<VolumeInfo>>;
  Start<Answer> start = [store = &store_] { return list_volumes(store); };
  Answer otherwise = closed();
  Answer volumes = co_await bridge_.call<Answer>(std::move(start), std::move(otherwise));
  co_return volumes;
}

boost::asio::awaitable<Result<StoreAccess::State>> StoreAccess::state() {
  Start<Result<State>> start = [store = &store_] { return read_state(store); };
  Result<State> otherwise = closed();
  Result<State> state = co_await bridge_.call<Result<State>>(std::move(start), std::move(otherwise));
  co_return state;
}

boost::asio::awaitable<Result<StoreAccess::Difference>> StoreAccess::diff(VolumeId a, VolumeId b,
                                                                          uint64_t from, size_t max_ranges) {
  Start<Result<Difference>> start = [store = &store_, a, b, from, max_ranges] {
    return find_difference(store, a, b, from, max_ranges);
  };
  Result<Difference> otherwise = closed();
  Result<Difference> difference =
      co_await bridge_.call<Result<Difference>>(std::move(start), std::move(otherwise));
  co_return difference;
}

}  // namespace obraz
