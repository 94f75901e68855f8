// lathe run: tensors in, tensors out.

#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/dtype_names.h"
#include "compress/graph/text.h"
#include "compress/io/safetensors.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>

namespace lathe {
namespace {

using compress::Error;
using compress::ErrorCode;

struct Options {
  ModelArgument model;
  ComputeOptions compute;
  EngineOptions engine;
  std::string inputs, outputs;
  bool train = false;
};

// Inputs by the graph's names, or by position: in.0, in.1, ...
std::vector<at::Tensor> read_inputs(const compress::Model& model, const std::string& path) {
  const auto file = compress::SafetensorsFile::open(path);
  std::vector<at::Tensor> inputs;
  std::vector<std::string> names;
  for (const auto& entry : file.entries()) names.push_back(entry.name);
  const auto& declared = model.graph().inputs();
  for (size_t i = 0; i < declared.size(); ++i) {
    const auto* entry = file.find(declared[i]->name());
    if (entry == nullptr) entry = file.find(fmt::format("in.{}", i));
    if (entry == nullptr) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("has no tensor `{}` or `in.{}`; it has: {}", declared[i]->name(), i,
                              fmt::join(names, ", ")),
                  path);
    }
    inputs.push_back(file.tensor(*entry));
  }
  return inputs;
}

// The model's own words about a wrong input name a node deep inside; these name the input.
void check_input(const compress::Value& declared, const at::Tensor& input,
                 const std::string& path) {
  const auto& sizes = declared.type.sizes;
  bool fits = !sizes || sizes->size() == static_cast<size_t>(input.dim());
  for (size_t i = 0; fits && sizes && i < sizes->size(); ++i) {
    fits = (*sizes)[i].is_symbolic() || (*sizes)[i].size == input.size(static_cast<int64_t>(i));
  }
  if (declared.type.dtype && *declared.type.dtype != input.scalar_type()) fits = false;
  if (fits) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("the tensor for `{}` is {}[{}], the model takes {}", declared.name(),
                          compress::dtype_name(input.scalar_type()), fmt::join(input.sizes(), ","),
                          compress::print(declared.type)),
              path);
}

void check_output(const std::string& path) {
  if (std::filesystem::path(path).extension() != ".safetensors") {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("`{}` is no .safetensors file", path),
                "--outputs", "the tensors that come out are written as .safetensors");
  }
  compress::check_save_path(path);
}

std::vector<at::Tensor> outputs_of(const compress::Model& model,
                                   const std::vector<at::Tensor>& inputs,
                                   const EngineOptions& engine) {
  if (!engine.engine) return model.forward(inputs);
  compress::Plan plan = engine.plan_of(model, inputs);
  if (engine.print_plan) say("the plan:\n" + plan.text());
  return plan.run(inputs);
}

void run(const Options& options) {
  options.compute.apply();
  options.engine.check(options.compute);
  if (options.train && options.engine.engine) {
    throw Error(ErrorCode::kInvalidArgument, "the engine runs in inference mode only", "--train",
                "leave out --train or --engine");
  }
  check_output(options.outputs);
  compress::Model model = load(options.model);
  if (model.is_tensor_set()) {
    throw Error(ErrorCode::kInvalidArgument, "is a bare set of tensors and cannot be run",
                options.model.source, "give its architecture with --arch (see: lathe models)");
  }
  if (options.train) model.train();
  model.to(options.compute.where());
  std::vector<at::Tensor> inputs = read_inputs(model, options.inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_input(*model.graph().inputs()[i], inputs[i], options.inputs);
    inputs[i] = inputs[i].to(options.compute.where());
  }
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> outputs = outputs_of(model, inputs, options.engine);
  compress::NamedTensors named;
  // A copy each: an output may be a view of another, which the file would take for a tie.
  for (size_t i = 0; i < outputs.size(); ++i) {
    named.emplace_back(fmt::format("out.{}", i),
                       outputs[i].cpu().clone(at::MemoryFormat::Contiguous));
  }
  compress::save_safetensors(options.outputs, named);
}

}  // namespace

void add_run(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "Run a model on tensors of a file");
  options->model.add_to(*command);
  command
      ->add_option(
          "--inputs", options->inputs,
          "a .safetensors file with tensors named as the graph's inputs, or in.0, in.1, ...")
      ->required()
      ->type_name("FILE");
  command
      ->add_option("--outputs", options->outputs,
                   "the .safetensors file to write: out.0, out.1, ...")
      ->required()
      ->type_name("FILE");
  command->footer(
      "Example: lathe run resnet20.pt2 --inputs in.safetensors --outputs out.safetensors");
  command->add_flag("--train", options->train, "run in training mode (batch norm and dropout)");
  options->engine.add_to(*command);
  options->compute.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace lathe
