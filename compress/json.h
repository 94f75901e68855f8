// JSON as recipes, options and reports use it: keys keep their order, reading is strict.

#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>

namespace compress {

/// Keys keep the order in which they were written. Include <nlohmann/json.hpp> in sources.
using Json = nlohmann::ordered_json;

/// Parses `text`. Refused with Error(kInvalidArgument) that says file, line and column: anything
/// that is not JSON, comments, a key that comes twice in an object, nesting deeper than 64.
Json parse_json(std::string_view text, const std::string& file = {});

/// Appends a key or an index to a JSON pointer, with `~` and `/` escaped (RFC 6901).
std::string join_pointer(const std::string& pointer, std::string_view key);
std::string join_pointer(const std::string& pointer, size_t index);

/// Short text of any JSON value for messages: `"model"`, `0.5`, `[1, 2, ...]`, `an object`.
std::string brief(const Json& value);

}  // namespace compress
