// How a program is called from Python: trees of arguments and results, flattened to lists.

#include "compress/io/pt2_signature.h"

#include "compress/model.h"

#include <fmt/format.h>

namespace compress::pt2 {
namespace {

using nlohmann::json;

constexpr size_t kDeepest = 100;
constexpr size_t kMostLeaves = 1 << 20;

// "[1, {"type": ..., "context": ..., "children_spec": [...]}]": 1 is the version of the form.
json parse_spec(const std::string& text) {
  json spec = json::parse(text, nullptr, false);
  if (!spec.is_array() || spec.size() != 2 || !spec[1].is_object()) return nullptr;
  return spec[1];
}

// What the children of a node are called: the keys of a dict, else their positions.
std::vector<std::string> child_names(const json& node, size_t count) {
  std::vector<std::string> names;
  const auto context = node.find("context");
  if (context != node.end() && context->is_string()) {
    const json keys = json::parse(context->get<std::string>(), nullptr, false);
    if (keys.is_array() && keys.size() == count) {
      for (const json& key : keys) {
        if (!key.is_string()) break;
        names.push_back(key.get<std::string>());
      }
    }
  }
  if (names.size() == count) return names;
  names.clear();
  for (size_t i = 0; i < count; ++i) names.push_back(fmt::format("{}", i));
  return names;
}

bool add_leaves(const json& node, const std::string& path, size_t depth,
                std::vector<std::string>& names) {
  if (!node.is_object() || depth > kDeepest || names.size() > kMostLeaves) return false;
  const auto children = node.find("children_spec");
  if (children == node.end() || !children->is_array()) return false;
  const auto type = node.find("type");
  if (type == node.end()) return false;
  if (type->is_null()) {
    names.push_back(path.empty() ? "output" : path);
    return true;
  }
  const std::vector<std::string> keys = child_names(node, children->size());
  for (size_t i = 0; i < children->size(); ++i) {
    const std::string child = path.empty() ? keys[i] : path + "." + keys[i];
    if (!add_leaves((*children)[i], child, depth + 1, names)) return false;
  }
  return true;
}

json leaf() { return {{"type", nullptr}, {"context", nullptr}, {"children_spec", json::array()}}; }

json tuple(json children) {
  return {{"type", "builtins.tuple"}, {"context", "null"}, {"children_spec", std::move(children)}};
}

json leaves(size_t count) {
  json list = json::array();
  for (size_t i = 0; i < count; ++i) list.push_back(leaf());
  return list;
}

std::string spec_text(json spec) { return json::array({1, std::move(spec)}).dump(); }

}  // namespace

json read_metadata(const Model& model) {
  const auto found = model.metadata.find(kMetadataKey);
  if (found == model.metadata.end()) return json::object();
  json metadata = json::parse(found->second, nullptr, false);
  return metadata.is_object() ? metadata : json::object();
}

std::vector<std::string> leaf_names(const std::string& out_spec, size_t count) {
  std::vector<std::string> names;
  if (!add_leaves(parse_spec(out_spec), "", 0, names) || names.size() != count) return {};
  for (std::string& name : names) {
    if (name[0] >= '0' && name[0] <= '9') name = "output." + name;
  }
  return names;
}

int64_t count_leaves(const std::string& spec) {
  std::vector<std::string> names;
  if (!add_leaves(parse_spec(spec), "", 0, names)) return -1;
  return static_cast<int64_t>(names.size());
}

std::string positional_spec(size_t count) {
  const json keywords = {
      {"type", "builtins.dict"}, {"context", "[]"}, {"children_spec", json::array()}};
  return spec_text(tuple(json::array({tuple(leaves(count)), keywords})));
}

std::string result_spec(size_t count) {
  return spec_text(count == 1 ? leaf() : tuple(leaves(count)));
}

}  // namespace compress::pt2
