// The lathe command: reads the command line, calls the subcommand, turns errors into exit codes.

#include "compress/error.h"
#include "tools/lathe/command.h"

#include <c10/util/Exception.h>

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

namespace {

enum ExitCode { kDone = 0, kRunFailed = 1, kWrongCommand = 2, kBug = 3 };

constexpr const char* kFooter = R"(Start here:
  lathe models                                         architectures that come with lathe
  lathe passes                                         what can be done to a model
  lathe inspect MODEL                                  what is in a model
  lathe apply RECIPE MODEL -o OUT.pt2                  compress it
  lathe apply 'prune.magnitude{sparsity=0.5}' MODEL -o OUT.pt2
Exit codes: 0 done, 1 the run failed, 2 the command or recipe is wrong, 3 a bug in lathe.)";

int report(ExitCode code, const std::string& message) {
  fmt::print(stderr, "lathe: error: {}\n", message);
  return code;
}

int run(int argc, char** argv) {
  CLI::App app("Compresses trained PyTorch networks: pruning, quantization and more, by recipe.",
               "lathe");
  app.require_subcommand(1);
  app.footer(kFooter);
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
  try {
    app.parse(argc, argv);
    return kDone;
  } catch (const CLI::Success& success) {  // --help
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return report(kWrongCommand, fmt::format("{} (see: lathe --help)", error.what()));
  }
}

}  // namespace

int main(int argc, char** argv) {
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
