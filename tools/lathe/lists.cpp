// lathe passes, models, schema and version: what this build contains.

#include "compress/error.h"
#include "compress/report/table.h"
#include "compress/schema.h"
#include "compress/zoo/zoo.h"
#include "passes/registry.h"
#include "tools/lathe/command.h"
#include "tools/lathe/evaluation.h"
#include "tools/lathe/terminal.h"

#include <ATen/Config.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>

namespace lathe {
namespace {

using compress::Table;

void list_passes(const std::string& id, bool json, bool markdown) {
  const compress::PassRegistry registry = compress::builtin_passes();
  if (markdown) return print_result(compress::pass_page(registry.at(id)));
  if (!id.empty() && !json) return print_result(compress::pass_help(registry.at(id)));
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  Table table({{"pass", Table::Align::kLeft}, {"what it does", Table::Align::kLeft}});
  for (const compress::Pass* pass : registry.passes()) {
    if (!id.empty() && pass != &registry.at(id)) continue;
    table.add({std::string(pass->info().id), std::string(pass->info().summary)});
    rows.push_back({{"id", pass->info().id},
                    {"summary", pass->info().summary},
                    {"paper", pass->info().paper},
                    {"options", compress::options_schema(*pass->default_options())}});
  }
  if (json) return print_result(rows.dump(2) + "\n");
  print_result(table.text() + "\nlathe passes ID shows the options of one.\n");
}

void list_models(const std::string& name, bool json) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  Table table({{"architecture", Table::Align::kLeft}, {"what it is", Table::Align::kLeft}});
  std::vector<std::string> names;
  std::string settings_text;
  for (const compress::zoo::Entry& entry : compress::zoo::entries()) {
    names.push_back(entry.name);
    if (!name.empty() && entry.name != name) continue;
    std::vector<std::string> settings;
    nlohmann::ordered_json defaults = nlohmann::ordered_json::object();
    for (const auto& [key, value] : entry.parameters) {
      settings.push_back(fmt::format("{}={}", key, value));
      defaults[key] = value;
    }
    table.add({entry.name, entry.summary});
    settings_text = fmt::format("{}", fmt::join(settings, ","));
    rows.push_back({{"name", entry.name},
                    {"summary", entry.summary},
                    {"inputs", entry.inputs},
                    {"parameters", defaults},
                    {"keys", entry.keys}});
  }
  if (table.empty()) {
    throw compress::Error(compress::ErrorCode::kInvalidArgument,
                          fmt::format("there is no architecture `{}`", name), {},
                          compress::did_you_mean(name, names));
  }
  if (json) return print_result(rows.dump(2) + "\n");
  std::string text = table.text();
  if (!name.empty()) {
    text += fmt::format("\ninputs: {}\nsettings: {}\nkey names: {}\n",
                        rows[0]["inputs"].get<std::string>(), settings_text,
                        fmt::join(rows[0]["keys"].get<std::vector<std::string>>(), ", "));
  } else {
    text +=
        "\nGive one as --arch NAME, --arch 'NAME{setting=value}', or as the model zoo:NAME.\n"
        "lathe models NAME shows the inputs and settings of one.\n";
  }
  print_result(text);
}

}  // namespace

void add_passes(CLI::App& app) {
  const auto id = std::make_shared<std::string>();
  const auto json = std::make_shared<bool>(false);
  const auto markdown = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("passes", "List the passes, or show the options of one");
  CLI::Option* pass =
      command->add_option("ID", *id, "a pass, such as prune.magnitude")->type_name("");
  command->add_flag("--json", *json, "print JSON");
  command->add_flag("--markdown", *markdown, "print the page of the pass, as in docs/passes")
      ->needs(pass);
  command->footer("Example: lathe passes prune.magnitude");
  command->callback([id, json, markdown] { list_passes(*id, *json, *markdown); });
}

void add_models(CLI::App& app) {
  const auto name = std::make_shared<std::string>();
  const auto json = std::make_shared<bool>(false);
  CLI::App* command =
      app.add_subcommand("models", "List the architectures for files that hold weights only");
  command->add_option("NAME", *name, "an architecture")->type_name("");
  command->add_flag("--json", *json, "print JSON");
  command->footer("Example: lathe models resnet20-cifar10");
  command->callback([name, json] { list_models(*name, *json); });
}

void add_schema(CLI::App& app) {
  CLI::App* command = app.add_subcommand("schema", "Print the JSON schema of recipes, for editors");
  command->callback([] {
    const compress::PassRegistry registry = compress::builtin_passes();
    const compress::Json data = {{"additionalProperties", compress::data_spec_schema()}};
    const compress::Json evaluate =
        compress::options_schema(compress::OptionsOf<EvaluateSection>());
    print_result(
        compress::recipe_schema(registry, {{"data", data}, {"evaluate", evaluate}}).dump(2) + "\n");
  });
}

void add_version(CLI::App& app) {
  const auto text = [] {
    return fmt::format("lathe {}\nLibTorch {}\nthreads {}", LATHE_VERSION, TORCH_VERSION,
                       at::get_num_threads());
  };
  CLI::App* command = app.add_subcommand("version", "Print the versions of lathe and LibTorch");
  command->callback([text] { print_result(text() + "\n"); });
  app.set_version_flag("--version", text, "The same as `version`");
}

}  // namespace lathe
