// lathe convert: from one format to another, by extension.

#include "compress/error.h"
#include "compress/files.h"
#include "compress/report/table.h"
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
  for (const std::string& note : compress::save_model(model, options.out)) {
    say(options.out + ": " + note);
  }
  say(fmt::format("wrote {} ({} bytes)", options.out,
                  compress::with_thousands(compress::model_file_bytes(options.out))));
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("convert", "Write a model in another format");
  options->in.add_to(*command, "IN");
  command
      ->add_option("OUT", options->out, "the .pt2, .safetensors, .onnx or .lathe.txt file to write")
      ->required()
      ->type_name("");
  command->footer(
      "Example: lathe convert resnet20.th resnet20.pt2 --arch resnet20-cifar10\n"
      "The extension of OUT decides the format; the content of IN does.");
  command->callback([options] { run(*options); });
}

}  // namespace lathe
