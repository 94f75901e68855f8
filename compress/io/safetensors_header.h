// The JSON header of a safetensors file, read as a stream: memory stays in proportion to the
// tensors that it describes, whatever a hostile header holds.

#pragma once

#include "compress/io/safetensors.h"

#include <string>
#include <string_view>
#include <vector>

namespace compress::detail {

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  Metadata metadata;
};

/// Parses strictly. Throws `kBadFile` with the byte offset in the file (`text` begins at byte 8).
SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& where);

/// The header's JSON, keys in a fixed order, without padding.
std::string print_safetensors_header(const std::vector<SafetensorsEntry>& entries,
                                     const Metadata& metadata);

}  // namespace compress::detail
