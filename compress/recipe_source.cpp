// From recipe files with includes to one JSON document.

#include "compress/error.h"
#include "compress/recipe.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <fstream>

namespace compress {
namespace {

namespace fs = std::filesystem;

constexpr size_t kDeepestInclude = 8;
constexpr size_t kLargestFile = 16 << 20;  // a recipe is text written by hand

std::string read_text(const fs::path& file) {
  std::error_code code;
  if (fs::is_directory(file, code)) {
    throw Error(ErrorCode::kIo, "is a folder, not a recipe", file.string());
  }
  if (!fs::exists(file, code)) {
    throw Error(ErrorCode::kIo, "there is no such file", file.string(),
                "a recipe is a JSON file, or passes in one line such as "
                "prune.magnitude{sparsity=0.5}; `lathe passes` lists them");
  }
  for (const char* suffix : {".pt2", ".pt", ".pth", ".th", ".tar", ".safetensors", ".onnx"}) {
    if (file.extension() != suffix) continue;
    throw Error(ErrorCode::kInvalidArgument, "is a model, not a recipe", file.string(),
                "the recipe comes first: lathe apply RECIPE MODEL -o OUT");
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error(ErrorCode::kIo, "cannot be read", file.string());
  // Counted while reading: a pipe has no size, and some devices have no end.
  std::string text;
  std::array<char, 65536> block;
  do {
    stream.read(block.data(), block.size());
    text.append(block.data(), static_cast<size_t>(stream.gcount()));
    if (text.size() > kLargestFile) {
      throw Error(ErrorCode::kBadFile, "is larger than 16 MiB, so it is not a recipe",
                  file.string());
    }
  } while (stream);
  if (stream.bad()) throw Error(ErrorCode::kIo, "cannot be read", file.string());
  return text;
}

// Whether an object under this key is merged entry by entry.
bool has_entries(const std::string& key) { return key == "data" || key == "variables"; }

// `over` on top of `under`: its keys win, entries of `data` and `variables` one by one, and its
// steps come after.
RecipeSource overlay(RecipeSource under, const RecipeSource& over) {
  // Takes what is known of `from` in `over` as what is known of `to`.
  const auto trace = [&](const std::string& from, const std::string& to) {
    std::erase_if(under.origins, [&](const auto& origin) {
      return origin.first == to || origin.first.starts_with(to + "/");
    });
    for (const auto& [pointer, origin] : over.origins) {
      const bool inside = pointer == from || pointer.starts_with(from + "/");
      if (inside) under.origins[to + pointer.substr(from.size())] = origin;
    }
  };
  for (const auto& [key, value] : over.json.items()) {
    Json& below = under.json[key];
    const std::string pointer = join_pointer("", key);
    if (key == "steps" && value.is_array()) {
      if (!below.is_array()) below = Json::array();
      for (size_t i = 0; i < value.size(); ++i) {
        const std::string from = join_pointer(pointer, i), to = join_pointer(pointer, below.size());
        trace(from, to);
        if (from != to) under.origins.try_emplace(to, fmt::format("{}: {}", over.file, from));
        below.push_back(value[i]);
      }
    } else if (has_entries(key) && below.is_object() && value.is_object()) {
      below.update(value);
      for (const auto& [name, entry] : value.items()) {
        const std::string inner = join_pointer(pointer, name);
        trace(inner, inner);
      }
    } else {
      below = value;
      trace(pointer, pointer);
    }
  }
  under.file = over.file;
  return under;
}

RecipeSource merge_includes(Json json, const std::string& file, std::vector<fs::path>& open);
RecipeSource load_included(const fs::path& file, std::vector<fs::path>& open);

RecipeSource load_merged(const fs::path& file, std::vector<fs::path>& open) {
  std::error_code code;
  const fs::path canonical = fs::weakly_canonical(file, code);
  if (std::find(open.begin(), open.end(), canonical) != open.end()) {
    throw Error(ErrorCode::kInvalidArgument, "the file includes itself", file.string());
  }
  if (open.size() > kDeepestInclude) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("includes are nested deeper than {} levels", kDeepestInclude),
                file.string());
  }
  open.push_back(canonical);
  RecipeSource source =
      merge_includes(parse_json(read_text(file), file.string()), file.string(), open);
  open.pop_back();
  return source;
}

RecipeSource merge_includes(Json json, const std::string& file, std::vector<fs::path>& open) {
  RecipeSource own{file, std::move(json), {}};
  if (!own.json.is_object() || !own.json.contains("include")) return own;
  const Json include = own.json["include"];
  own.json.erase("include");
  const Json files = include.is_array() ? include : Json::array({include});
  RecipeSource merged{file, Json::object(), {}};
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string pointer = include.is_array() ? fmt::format("/include/{}", i) : "/include";
    const std::string where = file.empty() ? pointer : fmt::format("{}: {}", file, pointer);
    if (!files[i].is_string()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{} is not the name of a recipe file", brief(files[i])), where);
    }
    try {
      merged =
          overlay(std::move(merged),
                  load_included(fs::path(file).parent_path() / files[i].get<std::string>(), open));
    } catch (const Error& error) {
      throw error.within(where);
    }
  }
  return overlay(std::move(merged), own);
}

// What is included remembers where it comes from.
RecipeSource load_included(const fs::path& file, std::vector<fs::path>& open) {
  RecipeSource source = load_merged(file, open);
  if (!source.json.is_object() ||
      (source.json.contains("steps") && !source.json["steps"].is_array())) {
    throw Error(ErrorCode::kInvalidArgument, "not a recipe", file.string());
  }
  const auto remember = [&](const std::string& pointer) {
    source.origins.try_emplace(pointer, fmt::format("{}: {}", source.file, pointer));
  };
  for (const auto& [key, value] : source.json.items()) {
    const std::string pointer = join_pointer("", key);
    if (key == "steps") {
      for (size_t i = 0; i < value.size(); ++i) remember(join_pointer(pointer, i));
    } else if (has_entries(key) && value.is_object()) {
      for (const auto& [name, entry] : value.items()) remember(join_pointer(pointer, name));
    } else {
      remember(pointer);
    }
  }
  return source;
}

}  // namespace

RecipeSource load_recipe_source(const fs::path& file, const std::vector<std::string>& settings) {
  std::vector<fs::path> open;
  RecipeSource source = load_merged(file, open);
  apply_settings(source, settings);
  return source;
}

RecipeSource parse_recipe_source(std::string_view text, const std::string& file,
                                 const std::vector<std::string>& settings) {
  std::vector<fs::path> open;
  RecipeSource source = merge_includes(parse_json(text, file), file, open);
  apply_settings(source, settings);
  return source;
}

}  // namespace compress
