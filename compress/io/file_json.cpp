// JSON from files that may be hostile.

#include "compress/io/file_json.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <unordered_set>
#include <vector>

namespace compress {

nlohmann::ordered_json parse_file_json(std::string_view text, const std::string& where,
                                       int max_depth) {
  using Json = nlohmann::ordered_json;
  const auto bad = [&](const std::string& problem) {
    return Error(ErrorCode::kBadFile, problem, where, "the file is damaged");
  };
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        if (depth >= max_depth) throw bad(fmt::format("JSON nested deeper than {}", max_depth));
        if (event == Json::parse_event_t::object_start) keys.emplace_back();
        break;
      case Json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(value.get<std::string>()).second) {
          throw bad(fmt::format("key `{}` appears twice", value.get<std::string>()));
        }
        break;
      default:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::parse_error& error) {
    throw Error(ErrorCode::kBadFile, "no valid JSON", fmt::format("{}: byte {}", where, error.byte),
                "the file is cut off or damaged");
  } catch (const Json::out_of_range&) {  // 1e999
    throw bad("a number in the JSON is out of range");
  }
}

}  // namespace compress
