// Coverage marks: places in the store that the simulations must reach, each a situation that its design has
// an answer for. A simulation that has not been everywhere has not shown much; tests/sim/simulate.cpp fails
// then.
//
// hit() counts; it is on no path that a request takes without something else happening to it. Thread: the
// store's (one store at a time in a process that looks at the counts).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace obraz::marks {

// clang-format off
#define OBRAZ_MARKS(X)                                                                            \
  /* journal */                                                                                   \
  X(journal_write_wrapped) X(journal_read_wrapped) X(journal_torn_tail) X(journal_stale_tail)     \
  X(journal_full) X(journal_several_batches)                                                      \
  /* commit */                                                                                    \
  X(commit_joined_while_another_ran) X(commit_by_time) X(data_flush_skipped) X(store_failed)      \
  /* data that the journal carries */ \
  X(blocks_carried) X(blocks_not_carried) X(blocks_landed) X(blocks_landed_alone) X(carried_replayed) X(carried_for_nobody) \
  /* small writes that are kept in memory for a while */                                          \
  X(write_kept) X(kept_block_replaced) X(kept_block_read) X(kept_blocks_thinned_out)              \
  X(write_waited_for_kept) X(kept_block_discarded)                                                \
  /* of these, blocks that cannot be written */                                                   \
  X(kept_block_stuck) X(stuck_carried) X(stuck_in_recovery) X(stuck_block_replaced)               \
  /* checkpoint: a crash or an error at each step of docs/disk-format.md, section 8 */            \
  X(checkpoint_stopped_writing_pages) X(checkpoint_stopped_flushing_pages)                        \
  X(checkpoint_stopped_at_first_superblock) X(checkpoint_stopped_flushing_superblock)             \
  X(checkpoint_stopped_at_second_superblock) X(frozen_node_forgotten) X(frozen_node_moved)        \
  X(pending_drop_frozen) X(pending_drop_checksum_filled)                                          \
  /* recovery */                                                                                  \
  X(replayed_records) X(superblock_damaged) X(superblocks_differ) X(closed_cleanly)               \
  /* sharing and the drop rule */                                                                 \
  X(node_copied) X(node_moved) X(root_grown) X(drop_waited_for_request) X(drop_waited_for_record) \
  X(subtree_dropped) X(whole_tree_dropped) X(reclaimed_shared_child)                              \
  /* writes */                                                                                    \
  X(own_turned_base) X(bounded_copy) X(in_place_lost_to_snapshot) X(revert_under_write)           \
  X(delete_under_write) X(revert_under_trim) X(snapshot_waited_for_write)                         \
  /* memory and space */                                                                          \
  X(node_evicted) X(node_reloaded) X(load_shared) X(waited_for_pages) X(waited_for_dirty_nodes)   \
  X(waited_for_clusters) X(store_full) X(slab_grown) X(slab_given_back)                           \
  /* checksums of data */                                                                         \
  X(volume_summed) X(summing_outlived) X(node_no_longer_summed)     \
  X(old_checksum_erased) X(summed_cluster_used_again_in_replay) X(read_verified)                  \
  X(last_owner_redirected) X(scrub_passed)                                                        \
  /* cache of clones */                                                                           \
  X(cache_hit) X(cache_waited_for_fill) X(cache_waited_in_vain) X(cache_fill_voided)              \
  X(cache_dropped) X(cache_evicted) X(cache_remembered) X(cache_fills_exhausted)                  \
  X(cache_not_filled_while_landing) X(cache_not_filled_for_one) X(cache_wanted_by_another)
// clang-format on

enum class Mark : uint8_t {
#define OBRAZ_MARK(name) name,
  OBRAZ_MARKS(OBRAZ_MARK)
#undef OBRAZ_MARK
};

inline constexpr const char* kNames[] = {
#define OBRAZ_MARK(name) #name,
    OBRAZ_MARKS(OBRAZ_MARK)
#undef OBRAZ_MARK
};
inline constexpr size_t kCount = sizeof kNames / sizeof *kNames;

inline std::array<uint64_t, kCount> counts{};
inline void hit(Mark mark) {
  ++counts[size_t(mark)];
}

}  // namespace obraz::marks

namespace obraz {
using marks::Mark;
}
