// Every limit of the daemon, with its reason, in one place (property: no peer can make memory grow without
// bound). Sizes are in bytes unless the name says otherwise. Defaults that an operator may change are marked
// (config).
#pragma once

#include <cstdint>

namespace obraz::limits {

constexpr uint64_t KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB, TiB = 1024 * GiB;

// --- store
// ---------------------------------------------------------------------------------------------------------
constexpr uint64_t kVolumeSizeUnit = 4 * MiB;  // sizes of disks are rounded up to it
constexpr uint64_t kMinVolumeSize = 4 * MiB;   //
constexpr uint64_t kMaxVolumeSize = 4 * TiB;   // what the cloud this project follows allows for a disk
constexpr uint64_t kMaxVolumes = 1u << 20;     // 64 bytes each, resident
constexpr uint64_t kMaxDataSize = 64 * TiB;  // 4 bytes of count per 64 KiB cluster stay resident: 4 GiB then
constexpr uint64_t kMinDataSize = 16 * MiB;  //
constexpr uint64_t kDefaultDataSize = 64 * GiB;     // (config) taken as it fills
constexpr uint64_t kDefaultJournalSize = 64 * MiB;  // (config) bounds the time of recovery
constexpr uint64_t kMinJournalSize = 256 * KiB;  // one largest batch, its successor, and room to checkpoint
constexpr uint64_t kMaxJournalSize = 1 * GiB;    //
constexpr uint64_t kMaxBatchSize = 128 * KiB;    // a journal batch; recovery reads one at a time
constexpr uint64_t kMaxCarriedBlocks = 24;       // of data, in one batch
constexpr uint64_t kMaxCarriedWrite = 16 * KiB;  // a longer one is flushed
constexpr uint64_t kKeptBlocks = 64;             // small writes in memory that go to the device later
constexpr uint64_t kMaxStuckBlocks = 7;          // of them that cannot be written; with more the store fails
constexpr uint64_t kMaxResourceSize =
    32 * KiB;  // one resource record; 64 labels of 126 bytes and the rest fit
constexpr uint64_t kDefaultNodeCacheSize = 256 * MiB;  // (config) mapping nodes kept in memory
constexpr uint64_t kCloneCacheShare = 8;               // (config) of the memory there is, one part in so many
constexpr uint64_t kMaxDefaultCloneCache =
    4 * GiB;  // what a few dozen images are booted from; more is for the operator to say
constexpr uint64_t kMaxCachedRead =
    256 * KiB;  // larger reads are copies, backups: no reason to keep what they read
constexpr uint64_t kClonesKeptForOne =
    32 * MiB;  // of what one volume reads while no other one does; a larger part of a boot than of a scan
constexpr unsigned kMaxCloneFills = 1024;       // reads for the cache of clones under way; more are not kept
constexpr uint64_t kDefaultDirtyNodes = 8192;   // (config) 32 MiB: checksumming them at a freeze takes ~4 ms
constexpr uint64_t kMaxRequestSize = 32 * MiB;  // one read or write; the NBD protocol's customary maximum
constexpr uint64_t kWindowSize =
    4 * MiB;  // a longer write is done in windows of this, each atomic in the map
constexpr uint64_t kDefaultSumRate = 256 * MiB;  // (config) read per second to checksum new images, snapshots
constexpr uint64_t kDefaultDigestRate = 128 * MiB;  // (config) the same for the digests of images
constexpr uint64_t kDefaultScrubRate = 16 * MiB;  // (config) the same to verify them later; 1 TiB takes 18 h
constexpr uint64_t kDefaultScrubDays = 7;         // (config) from the start of one pass to that of the next
constexpr uint64_t kMaxBadClusters = 1024;        // with blocks that do not verify, remembered by place
constexpr unsigned kShownDamage = 16;             // places of damage in one status
constexpr uint64_t kLockPatienceMs = 5000;        // for the I/O of a killed predecessor to drain
constexpr uint64_t kEssentialPages = 64;  // of metadata that only deletes, trims and small resources may take
constexpr uint64_t kSlabSize = 64 * MiB;  // unit in which the data file is preallocated and punched
// Of the slabs that data has taken, one in so many is kept when nothing uses it, and at most so many.
constexpr uint64_t kKeptSlabShare = 16, kMaxKeptSlabs = 16;
constexpr uint64_t kGiveBackRate = 256 * MiB;  // bytes per second
constexpr uint64_t kGiveBackPart = 1 * MiB;    // punched at a time
constexpr uint64_t kGiveBackRest = 30;         // times as long as that took, before the next
constexpr uint64_t kPageSlabSize = 8 * MiB;    // the same for node pages of the meta file

// --- io
constexpr uint64_t kDefaultSpinUs = 100, kMaxSpinUs = 1000;
// ------------------------------------------------------------------------------------------------------------
constexpr uint64_t kDefaultBufferArena =
    128 * MiB;                           // (config) all payloads in flight; none free = stop receiving
constexpr unsigned kRingEntries = 1024;  // submissions per turn of the loop; more wait for the next

// --- nbd
// -----------------------------------------------------------------------------------------------------------
constexpr unsigned kMaxSessions = 1024;           // (config) clients connected at once, handshakes included
constexpr unsigned kMaxRequestsPerSession = 128;  // requests in flight; more stay in the socket
constexpr unsigned kMaxOptions = 64;              // options in one handshake before the session is closed
constexpr uint64_t kMaxOptionLength = 64 * KiB;   // data of one option
constexpr unsigned kMaxExportName = 4096;         // NBD's own limit on strings
constexpr unsigned kMaxStatusExtents = 16384;     // extents in one block status reply
constexpr unsigned kHandshakeSeconds = 10;        // (config) from accept to transmission
constexpr uint64_t kMaxOptionDrain =
    1 * MiB;  // a longer option than kMaxOptionLength is refused, up to this one
constexpr uint64_t kReceiveBuffer = 16 * KiB,
                   kMaxReceiveBuffer = 128 * KiB;  // of a session; small requests share one receive
constexpr uint64_t kHugeBufferMemory =
    8 * MiB;  // of the buffers, in huge pages: what is nearly always in use, so requests of 128 KiB at QD32
constexpr int kUnixSendBuffer =
    512 * KiB;  // of a local client's socket: replies of 128 KiB leave in one send, and the next with them
constexpr uint64_t kMaxSessionPayload =
    32 * MiB;                              // in flight or unsent; one largest request, so none is shut out
constexpr uint64_t kMaxDrain = 64 * MiB;   // payload of a refused write that is read and thrown away
constexpr unsigned kMaxReadChunks = 256;   // chunks of one read reply; what is left goes as one
constexpr unsigned kStopGraceSeconds = 2;  // for peers to take their last replies when sessions are closed
constexpr unsigned kStallSeconds = 10;     // a peer that takes nothing for so long yields to those who wait

// --- control
// -------------------------------------------------------------------------------------------------------
constexpr uint64_t kMaxControlFrame = 4 * MiB;     // one request or response
constexpr unsigned kMaxControlConnections = 256;   //
constexpr unsigned kMaxControlInFlight = 64;       // requests of one connection being worked on
constexpr unsigned kMaxOperations = 1000;          // finished operations kept; the oldest are forgotten first
constexpr int64_t kOperationDays = 30;             // a finished one is kept so long at most…
constexpr unsigned kMaxExpiredOperations = 16;     // …and so many go with the end of another
constexpr unsigned kMaxRunningOperations = 16;     // imports and exports under way at once
constexpr uint64_t kMaxControlRequest = 64 * KiB;  // one request; the largest sensible one has about 15 KiB
constexpr uint64_t kMaxListBytes =
    256 * KiB;                               // resources of one page; a page that would be longer ends early
constexpr unsigned kMaxPageSize = 1000;      // resources of one page
constexpr unsigned kDefaultPageSize = 100;   //
constexpr unsigned kMaxPageToken = 100;      // bytes
constexpr unsigned kMaxFilterLength = 1000;  // characters of the filter of a list call
constexpr unsigned kMaxFilterConditions = 64;  // each is asked of every resource of the list
constexpr unsigned kMaxFilterValues = 200;     // of all its conditions
constexpr unsigned kMaxOrderLength = 100;      // characters of the order_by of a list call
constexpr unsigned kMaxListLooks = 20'000;     // resources that one page by name looks at
constexpr unsigned kMaxDiffRanges = 8192;      // ranges of one page of a difference, 24 bytes each
constexpr unsigned kMaxSnapshotsPerCall = 32;  // of the same instant
constexpr uint64_t kMaxTransactionBytes =
    96 * KiB;  // resources changed by one call; they must fit one journal batch
constexpr unsigned kMaxIdempotencyKey = 100;  // bytes; kept as long as the operation
constexpr unsigned kControlCloseSeconds = 3;  // for clients to take their last answers when the daemon stops
constexpr unsigned kMaxMeasurements = 4096;   // volumes waiting to have their space counted; more ask again

// --- resources (the rules of the cloud this project follows)
// -------------------------------------------------------
constexpr unsigned kMaxNameLength = 63;          //
constexpr unsigned kMaxDescriptionLength = 256;  // characters, each at most 4 bytes
constexpr unsigned kMaxLabels = 64;              //
constexpr uint64_t kMaxProductIds = 64, kMaxProductId = 50;
constexpr uint64_t kMaxSpaceNames = 100;  // counted in one call
constexpr uint64_t kMaxFolders = 10'000;
constexpr uint64_t kMaxSchedules = 10'000;
constexpr int64_t kMaxRetentionCount = 10'000;           // snapshots of each disk that a schedule keeps
constexpr int64_t kMinRetentionSeconds = 60;             // or for how long
constexpr int64_t kMaxRetentionSeconds = 3650 * 86'400;  //
constexpr int kUsageMonths = 25;                         // of usage that are kept, the present one included
constexpr unsigned kFirstUsageRoundSeconds = 60;   // from the start to the first count of exclusive bytes…
constexpr unsigned kUsageRoundSeconds = 3600;      // …and from the end of one to the next
constexpr int64_t kMaxTrashSeconds = 90 * 86'400;  // of a folder's window to have things back
constexpr unsigned kMaxBindings = 1000;            // of one resource, and changes of one call
constexpr uint64_t kMaxBindingBytes = 28 * KiB;    // of the former, encoded
constexpr unsigned kMaxKnownSubjects = 1024;       // whom the name service is not asked about again…
constexpr unsigned kSubjectSeconds = 60;           // …for so long
constexpr int kMaxSubjectGroups = 1024;            // of a user; more are not looked at
constexpr unsigned kMaxUserConnections = 32;       // of the control socket, for one user who is no superuser
constexpr unsigned kMaxSubjectName = 64;           // characters of a user's or group's name
constexpr uint64_t kMaxContentSize = 24 * KiB;     // of what is kept about the content of an image
constexpr unsigned kMaxLabelLength = 63;           // of a key, of a value
constexpr unsigned kMaxSourceLength = 4096;        // a path or URI to import from or export to

// --- import
// --------------------------------------------------------------------------------------------------------
constexpr unsigned kImportRequests = 16;          // reads in flight on an import source
constexpr uint64_t kImportRequestSize = 1 * MiB;  // bytes of one of them
constexpr uint64_t kMaxFormatTable =
    64 * MiB;                                  // a table of a foreign format in memory; 4 TiB need half of it
constexpr uint64_t kMaxSourceExtents = 16384;  // runs of data and zeros asked of a source or volume at a time
constexpr uint64_t kImportChildMemory = 1 * GiB;  // of a program that reads a foreign format (RLIMIT_DATA)
constexpr unsigned kImportChildCpuSeconds =
    24 * 3600;                                 // of the same: 4 TiB of compressed data take a tenth of it
constexpr unsigned kImportChildFiles = 64;     // descriptors of the same
constexpr unsigned kImportStallSeconds = 120;  // without any answer of a source, after which it has failed

// --- what is on a disk (image/layout.h)
// ----------------------------------------------------------------------------------
constexpr uint64_t kLayoutReadSize = 1 * MiB;    // one read that the program which looks asks for
constexpr uint64_t kLayoutReadTotal = 64 * MiB;  // all of them; they stay in memory until it ends
constexpr unsigned kLayoutReads = 8192;          //
constexpr uint64_t kLayoutMemory = 128 * MiB;    // of that program (RLIMIT_DATA)
constexpr unsigned kLayoutCpuSeconds = 20;       // of the same; a disk takes a few hundredths
constexpr unsigned kLayoutSeconds = 120;         // from its start to its answer, the reads included
constexpr uint64_t kMaxLayoutAnswer = 128 * KiB;
constexpr unsigned kMaxPartitions = 128;       // as many as a partition table of the usual size has room for
constexpr unsigned kMaxLayoutText = 256;       // bytes of a label; btrfs has the longest
constexpr unsigned kMaxPartitionName = 144;    // bytes; 36 units of UTF-16 have 108
constexpr unsigned kMaxLayoutIdentifier = 64;  // bytes of a UUID, a type, the name of a file system

}  // namespace obraz::limits
