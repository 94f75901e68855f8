// What is said about options: JSON schema, help for the terminal, a table for the documentation.

#include "compress/options.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace compress {
namespace {

std::string range_text(const Field& field) {
  if (field.minimum && field.maximum)
    return fmt::format("{} to {}", *field.minimum, *field.maximum);
  return field.minimum ? fmt::format("at least {}", *field.minimum) : "";
}

void add_range(const Field& field, Json& schema) {
  Json& numbers = schema.contains("items") ? schema["items"] : schema;
  // The canonical writer turns 1.0 into 1, as in the recipes.
  const auto limit = [](double value) {
    return detail::option_type(static_cast<const double*>(nullptr)).write(&value);
  };
  if (field.minimum) numbers["minimum"] = limit(*field.minimum);
  if (field.maximum) numbers["maximum"] = limit(*field.maximum);
}

std::string default_text(const Field& field) { return line_value(field.type->write(field.member)); }

// `|` would end a cell of a Markdown table.
std::string table_cell(const std::string& text) {
  std::string cell;
  for (const char c : text) {
    if (c == '|') cell += '\\';
    cell += c;
  }
  return cell;
}

}  // namespace

Json options_schema(const AnyOptions& defaults) {
  const std::unique_ptr<AnyOptions> options = defaults.clone();
  Json properties = Json::object();
  for (const Field& field : options->fields()) {
    Json schema = field.type->schema();
    add_range(field, schema);
    schema["description"] = field.help;
    schema["default"] = field.type->write(field.member);
    properties[field.name] = std::move(schema);
  }
  return {{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
}

std::string options_help(const AnyOptions& defaults) {
  const std::unique_ptr<AnyOptions> options = defaults.clone();
  std::string text;
  for (const Field& field : options->fields()) {
    const std::string range = range_text(field);
    text += fmt::format("  {}={}   ({}{})\n      {}\n", field.name, default_text(field),
                        field.type->name(), range.empty() ? "" : ", " + range, field.help);
  }
  return text.empty() ? "  (no options)\n" : text;
}

std::string options_table(const AnyOptions& defaults) {
  const std::unique_ptr<AnyOptions> options = defaults.clone();
  std::string text = "| option | type | default | meaning |\n| --- | --- | --- | --- |\n";
  for (const Field& field : options->fields()) {
    const std::string range = range_text(field);
    text += fmt::format("| `{}` | {}{} | `{}` | {} |\n", field.name, table_cell(field.type->name()),
                        range.empty() ? "" : ", " + range, table_cell(default_text(field)),
                        table_cell(field.help));
  }
  return text;
}

}  // namespace compress
