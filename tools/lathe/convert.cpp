// lathe convert: from one format to another, by extension.

#include "compress/error.h"
#include "compress/files.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <fmt/format.h>

#include <memory>

namespace lathe {
namespace {

struct Options {
  ModelArgument in;
  std::string out;
};

void run(const Options& options) {
  compress::check_save_path(options.out);
  const compress::Model model = load(options.in);
  compress::save_model(model, options.out);
  say(fmt::format("wrote {} ({} bytes)", options.out, std::filesystem::file_size(options.out)));
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("convert", "Write a model in another format");
  options->in.add_to(*command, "IN");
  command->add_option("OUT", options->out, "the .pt2, .safetensors or .lathe.txt file to write")
      ->required();
  command->callback([options] { run(*options); });
}

}  // namespace lathe
