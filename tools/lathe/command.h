// What the subcommands of `lathe` share.

#pragma once

#include "compress/engine/plan.h"

#include <c10/core/Device.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace lathe {

// Each adds its subcommand to the application; its callback throws compress::Error.
void add_inspect(CLI::App& app);
void add_apply(CLI::App& app);
void add_run(CLI::App& app);
void add_eval(CLI::App& app);
void add_bench(CLI::App& app);
void add_convert(CLI::App& app);
void add_diff(CLI::App& app);
void add_passes(CLI::App& app);
void add_models(CLI::App& app);
void add_schema(CLI::App& app);
void add_version(CLI::App& app);

/// The description of every MODEL argument.
inline constexpr const char* kModelHelp =
    "a .pt2, .pth, .pt, .th, .tar or .safetensors file, `-` for standard input, or zoo:NAME";

/// A model on the command line, with the architecture that a bare file of weights needs.
struct ModelArgument {
  std::string source, architecture;
  std::vector<std::string> sizes;  // of free dimensions: "sequence=128"
  /// `name` is the placeholder in the help; --arch, or --arch-b of the second of two models.
  void add_to(CLI::App& command, const std::string& name = "MODEL");
  /// Adds --size, for commands whose figures depend on the inputs' sizes.
  void add_sizes_to(CLI::App& command);
};

/// Options of commands that compute: `--threads`, `--device`.
struct ComputeOptions {
  int threads = 0;
  std::string device = "cpu";
  void add_to(CLI::App& command);
  /// Sets LibTorch's number of threads. Throws compress::Error for a device that is not there.
  void apply() const;
  c10::Device where() const { return c10::Device(device); }
};

/// Options of commands that run a model: `--engine`, `--precision`, `--plan`.
struct EngineOptions {
  bool engine = false, print_plan = false;
  std::string precision = "graph";
  void add_to(CLI::App& command);
  /// Throws compress::Error if the engine is asked for and is not in this build, or not for
  /// `compute`.
  void check(const ComputeOptions& compute) const;
  compress::PlanOptions plan() const;
  /// A plan, made in little memory.
  compress::Plan plan_of(const compress::Model& model, const std::vector<at::Tensor>& inputs) const;
};

/// An option that may be repeated and takes one value each time, so that the words behind it stay
/// what they are: `-o a.pt2 RECIPE MODEL`.
template <class T>
CLI::Option* add_repeatable(CLI::App& command, const std::string& name, std::vector<T>& values,
                            const std::string& description, const std::string& placeholder) {
  return command.add_option(name, values, description)
      ->type_name(placeholder)
      ->allow_extra_args(false);
}

/// A range check that does not print itself into the help.
template <class T>
CLI::Validator within(T least, T most) {
  CLI::Validator validator = CLI::Range(least, most);
  validator.description("");
  return validator;
}

}  // namespace lathe
