// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as in iSCSI (RFC 3720) and ext4. Uses the SSE 4.2
// instruction where the processor has it.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace obraz {

// The checksum of `bytes` that follow data whose checksum is `seed` (0 for none).
uint32_t crc32c(ConstBytes bytes, uint32_t seed = 0);

}  // namespace obraz
