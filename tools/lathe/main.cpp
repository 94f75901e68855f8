// The lathe command: reads the command line, calls the subcommand, turns errors into exit codes.

#include "compress/allocator.h"
#include "compress/error.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <c10/util/Exception.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

enum ExitCode { kDone = 0, kRunFailed = 1, kWrongCommand = 2, kBug = 3 };

constexpr const char* kFooter = R"(Start here:
  lathe models                             architectures that come with lathe
  lathe passes                             what can be done to a model
  lathe inspect MODEL                      what is in a model
  lathe apply RECIPE MODEL -o OUT.pt2      compress it
  lathe COMMAND --help                     more about a command, with an example

Exit codes: 0 done, 1 the run failed, 2 the command or recipe is wrong, 3 a bug in lathe.)";

int report(ExitCode code, const std::string& message) {
  lathe::say("error: " + message);
  return code;
}

// "lathe apply" once the subcommand is known.
std::string command_name(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? "lathe" : "lathe " + chosen.front()->get_name();
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands(nullptr)) names.push_back(command->get_name());
  return names;
}

// What was left over, with the nearest option of the chosen command.
std::string unexpected(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  const std::vector<std::string> left = app.remaining(/*recurse=*/true);
  if (left.empty()) return "there is something too much";
  const std::string& word = left.front();
  if (!word.starts_with("-")) return fmt::format("`{}` is one word too many", word);
  std::vector<std::string> options;
  for (const CLI::App* command : {&app, chosen.empty() ? &app : chosen.front()}) {
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
    }
  }
  const std::string hint = compress::did_you_mean(word.substr(0, word.find('=')), options);
  return fmt::format("there is no option `{}`{}", word, hint.empty() ? "" : " (" + hint + ")");
}

void add_commands(CLI::App& app) {
  app.require_subcommand(1);
  app.get_formatter()->column_width(26);
  lathe::add_inspect(app);
  lathe::add_apply(app);
  lathe::add_run(app);
  lathe::add_eval(app);
  lathe::add_bench(app);
  lathe::add_convert(app);
  lathe::add_diff(app);
  lathe::add_passes(app);
  lathe::add_models(app);
  lathe::add_schema(app);
  lathe::add_version(app);
  app.footer(kFooter);  // after the commands, which would inherit it
}

int run(int argc, char** argv) {
  CLI::App app("Compresses trained PyTorch networks: pruning, quantization and more, by recipe.",
               "lathe");
  add_commands(app);
  if (argc < 2) {
    fmt::print(stderr, "{}", app.help());
    return kWrongCommand;
  }
  const std::string first = argv[1];
  const std::vector<std::string> commands = command_names(app);
  if (!first.starts_with("-") &&
      std::find(commands.begin(), commands.end(), first) == commands.end()) {
    const std::string hint = compress::did_you_mean(first, commands);
    return report(kWrongCommand, fmt::format("there is no command `{}` ({})", first,
                                             hint.empty() ? "see: lathe --help" : hint));
  }
  try {
    app.parse(argc, argv);
    return kDone;
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ExtrasError&) {
    return report(kWrongCommand,
                  fmt::format("{}; see: {} --help", unexpected(app), command_name(app)));
  } catch (const CLI::ParseError& error) {
    return report(kWrongCommand,
                  fmt::format("{}; see: {} --help", error.what(), command_name(app)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  compress::use_huge_pages();
  compress::keep_freed_memory();
  try {
    return run(argc, argv);
  } catch (const compress::Error& error) {
    const bool wrong = error.code() == compress::ErrorCode::kInvalidArgument;
    return report(wrong ? kWrongCommand : kRunFailed, error.what());
  } catch (const c10::OutOfMemoryError& error) {
    return report(kRunFailed, fmt::format("out of memory: {}", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return report(kRunFailed, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return report(kRunFailed, "out of memory");
  } catch (const std::logic_error& error) {
    return report(kBug, error.what());
  } catch (const std::exception& error) {
    return report(kRunFailed, error.what());
  }
}
