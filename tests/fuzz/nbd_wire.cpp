// Fuzzes the pure part of NBD: every decoder, and the judgement of requests. The first byte chooses which;
// the rest is what a peer sent. Beyond not crashing: whatever passes must be inside the limits it was checked
// for.
#include <cstdint>

#include "base/check.h"
#include "nbd/wire.h"

using namespace obraz;
using namespace obraz::nbd;

namespace {

void try_request(ConstBytes bytes) {
  if (bytes.size() < kRequestSize + 9)
    return;
  const Result<Request> request = decode_request(bytes.first(kRequestSize));
  if (!request)
    return;
  const std::byte* at = bytes.data() + kRequestSize;
  const auto bits = std::to_integer<unsigned>(at[8]);
  const Terms terms{.size_bytes = load_be<uint64_t>(at) % (limits::kMaxVolumeSize + 1),
                    .read_only = (bits & 1) != 0,
                    .structured = (bits & 2) != 0,
                    .base_allocation = (bits & 4) != 0};
  if (validate(*request, terms).error != WireError::none || request->command == Command::disconnect)
    return;
  OBRAZ_CHECK(request->offset <= terms.size_bytes && request->length <= terms.size_bytes - request->offset);
  const bool changes = request->command == Command::write || request->command == Command::trim ||
                       request->command == Command::write_zeroes;
  OBRAZ_CHECK(!changes || !terms.read_only);
  const bool payload = request->command == Command::read || request->command == Command::write;
  OBRAZ_CHECK(!payload || request->length <= kMaxPayload);
  OBRAZ_CHECK(request->command != Command::block_status || terms.base_allocation);
}

void try_export_query(ConstBytes bytes) {
  const Result<ExportQuery> query = decode_export_query(bytes);
  if (query)
    OBRAZ_CHECK(query->name.size() <= limits::kMaxExportName &&
                query->name.size() + 2 * query->infos.size() + 6 == bytes.size());
}

void try_context_query(ConstBytes bytes) {
  const Result<ContextQuery> query = decode_context_query(bytes);
  if (!query)
    return;
  size_t size = 8 + query->name.size();
  for (const std::string& text : query->queries) {
    OBRAZ_CHECK(text.size() <= limits::kMaxExportName);
    size += 4 + text.size();
    selects_base_allocation(text, true);
  }
  OBRAZ_CHECK(size == bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0)
    return 0;
  const ConstBytes bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      try_request(bytes);
      break;
    case 1:
      try_export_query(bytes);
      break;
    case 2:
      try_context_query(bytes);
      break;
    default:
      if (bytes.size() >= kOptionHeaderSize)
        static_cast<void>(decode_option_header(bytes.first(kOptionHeaderSize)));
      break;
  }
  return 0;
}
