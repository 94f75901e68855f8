// JSON from files that may be hostile.

#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

namespace compress {

/// Parses strict JSON, keeping the order of keys. Throws `kBadFile` (at `where`, with the byte) for
/// anything else, for duplicate keys, and for nesting deeper than `max_depth`. Memory is bounded by
/// a constant times the text.
nlohmann::ordered_json parse_file_json(std::string_view text, const std::string& where,
                                       int max_depth = 64);

}  // namespace compress
