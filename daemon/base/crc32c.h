// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as in iSCSI (RFC 3720) and ext4, by ISA-L: several
// streams at once, at tens of GB/s where the processor has the instructions. At most 2 GiB - 1 in one call.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace obraz {

// The checksum of `bytes` that follow data whose checksum is `seed` (0 for none).
uint32_t crc32c(ConstBytes bytes, uint32_t seed = 0);

}  // namespace obraz
