// lathe apply: runs a recipe on a model and reports what it did.

#include "compress/allocator.h"
#include "compress/budget/cost.h"
#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/digest.h"
#include "compress/graph/shapes.h"
#include "compress/graph/text.h"
#include "compress/io/atomic_file.h"
#include "compress/pass_manager.h"
#include "compress/report/run_report.h"
#include "compress/stream.h"
#include "compress/train/environment.h"
#include "passes/registry.h"
#include "tools/lathe/checkpoint.h"
#include "tools/lathe/command.h"
#include "tools/lathe/evaluation.h"
#include "tools/lathe/terminal.h"

#include <ATen/Parallel.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <memory>

namespace lathe {
namespace {

namespace fs = std::filesystem;
using compress::Error;
using compress::ErrorCode;
using compress::Model;

struct Options {
  std::string recipe;
  ModelArgument model;
  ComputeOptions compute;
  std::vector<std::string> outputs, settings, limits, print_after;
  std::string stop_after, report;
  double latency_seconds = 1.0;
  bool dry_run = false, resume = false, verify = false, json = false;
};

std::map<std::string, int64_t> parse_limits(const std::vector<std::string>& limits,
                                            const compress::PassRegistry& registry) {
  std::map<std::string, int64_t> parsed;
  for (const std::string& limit : limits) {
    const size_t equals = limit.find('=');
    const std::string number = equals == std::string::npos ? "" : limit.substr(equals + 1);
    if (number.empty() || number.size() > 9 ||
        number.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("`{}` is not PASS=N", limit), "--limit");
    }
    registry.at(limit.substr(0, equals));
    parsed[limit.substr(0, equals)] = std::stoll(number);
  }
  return parsed;
}

// That the folder is there or can be made, found out before hours of work.
void check_folder(const fs::path& folder) {
  std::error_code missing;
  fs::path nearest = fs::absolute(folder);
  while (!fs::exists(nearest, missing) && nearest.has_relative_path()) {
    nearest = nearest.parent_path();
  }
  if (!fs::is_directory(nearest, missing)) {
    throw Error(ErrorCode::kIo, fmt::format("`{}` is a file, not a folder", nearest.string()),
                "--report", "name a folder, which is made if it is not there");
  }
  if (access(nearest.c_str(), W_OK) != 0) {
    throw Error(ErrorCode::kIo, fmt::format("`{}` cannot be written to", nearest.string()),
                "--report", "name another folder");
  }
}

void check_outputs(const Options& options) {
  if (options.outputs.empty() && !options.dry_run) {
    throw Error(ErrorCode::kInvalidArgument, "there is no output file", {},
                "give one with -o OUT.pt2 or -o OUT.safetensors, or look first with --dry-run");
  }
  for (const std::string& output : options.outputs) compress::check_save_path(output);
  if (!options.report.empty()) check_folder(options.report);
}

// A shallow copy in inference mode on the device to measure on, so that measuring changes nothing.
Model for_measuring(const Model& model, c10::Device device = at::kCPU) {
  Model copy = model.clone(/*deep=*/false);
  copy.eval();
  copy.to(device);
  return copy;
}

void measure(const Model& model, const RecipeData& data, const std::string& title,
             compress::ModelFigures& figures) {
  figures.cost = compress::measure_cost(model);
  if (!data.test) return;
  ProgressLine progress(title);
  compress::EvaluateOptions options;
  options.batch_size = data.evaluate.batch_size;
  options.on_progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
  const std::vector<double> values =
      compress::evaluate(model, data.test, data.evaluate.metrics, options);
  const auto names = compress::option_names(compress::Metric{});
  for (size_t i = 0; i < values.size(); ++i) {
    figures.metrics.emplace_back(names[static_cast<size_t>(data.evaluate.metrics[i])], values[i]);
  }
}

// What says the format of a file: `.pt2`, `.lathe.txt`.
std::string suffix(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".lathe.txt") ? ".lathe.txt" : file.extension().string();
}

// Bytes of the model in the format of `output`, so that before and after differ by the recipe
// alone.
int64_t bytes_in_format_of(const Model& model, const std::string& source, const fs::path& output) {
  std::error_code missing;
  if (suffix(source) == suffix(output) && fs::exists(source, missing)) {
    return compress::model_file_bytes(source);
  }
  const std::string name = output.filename().string(), format = suffix(output);
  const fs::path aside =
      output.parent_path() /
      fmt::format(".{}.before{}", name.substr(0, name.size() - format.size()), format);
  const std::shared_ptr<void> removed_at_the_end(nullptr, [&aside](void*) {
    std::error_code ignored;
    fs::remove(aside, ignored);
  });
  compress::save_model(model, aside);
  return compress::model_file_bytes(aside);
}

// The model that the file holds. Lathe reads no ONNX, and text holds digests of what is large:
// there the model that was written stands in.
Model read_back(const fs::path& output, const Model& model) {
  if (suffix(output) != ".onnx" && suffix(output) != ".lathe.txt")
    return compress::load_model(output.string());
  say(fmt::format("{}: accuracy and latency are those of the model that it was written from",
                  output.string()));
  return model.clone();
}

// What train steps may ask for: the recipe's data, teachers, a place beside the first output.
compress::TrainingEnvironment training_environment(const Options& options,
                                                   const compress::Recipe& recipe,
                                                   const RecipeSections& sections) {
  compress::TrainingEnvironment training;
  training.has_data = [&sections](const std::string& entry) {
    return sections.data.count(entry) > 0;
  };
  training.open_data = [&](const std::string& entry, bool channels_last) {
    return open_entry(recipe, sections, entry, channels_last);
  };
  training.describe_data = [&recipe](const std::string& entry) {
    return entry + " of " + recipe.data.dump();
  };
  training.load_model = [](const std::string& file, const std::string& architecture) {
    return compress::load_model(file, {architecture});
  };
  training.resume = options.resume;
  training.device = options.compute.where();
  if (!options.outputs.empty()) training.checkpoints = Checkpoint(options.outputs.front()).folder();
  return training;
}

bool trains(const compress::Recipe& recipe) {
  return std::any_of(recipe.steps.begin(), recipe.steps.end(), [](const compress::Step& step) {
    return step.pass->info().id == compress::kTrainId;
  });
}

compress::RunOptions run_options(const Options& options, const compress::PassRegistry& registry,
                                 const RecipeData& data, const Model& model,
                                 const compress::TrainingEnvironment& training) {
  compress::RunOptions run;
  run.verify = options.verify;
  run.training = &training;
  run.calibration = calibration_batches(data, model);
  run.limits = parse_limits(options.limits, registry);
  run.print_after = options.print_after;
  run.stop_after = options.stop_after;
  run.on_message = [](const std::string& message) { say(message); };
  run.on_print = [](const Model& model, const compress::StepResult& step) {
    say(fmt::format("after step {} ({}):\n{}", step.index, step.pass, compress::print(model)));
  };
  return run;
}

compress::RunReport begin_report(const Options& options, const compress::Recipe& recipe,
                                 const RecipeData& data, const Model& model) {
  compress::RunReport report;
  report.recipe_name = recipe.name;
  report.recipe = compress::recipe_json(recipe);
  report.threads = at::get_num_threads();
  report.sizes = compress::free_sizes_text(model);
  report.before.source = options.model.source;
  if (data.test) {
    report.data = data.test->info().name;
    report.samples = data.test->size();
  }
  return report;
}

void write_report(const fs::path& folder, const compress::RunReport& report) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw Error(ErrorCode::kIo, failed.message(), folder.string());
  compress::write_file(folder / "report.json", compress::report_json(report).dump(2) + "\n");
  compress::write_file(folder / "report.html", compress::report_html(report));
  say(fmt::format("report: {}", (folder / "report.html").string()));
}

// The table is printed even when the report cannot be written.
void print_report(const Options& options, const compress::RunReport& report) {
  std::exception_ptr failed;
  try {
    if (!options.report.empty()) write_report(options.report, report);
  } catch (...) {
    failed = std::current_exception();
  }
  print_result(options.json ? compress::report_json(report).dump(2) + "\n"
                            : compress::report_table(report));
  if (failed) std::rethrow_exception(failed);
}

// "weights_zeroed 30,735, scale_bytes 64; 0.12 s".
std::string step_summary(const compress::StepResult& result) {
  std::vector<std::string> parts;
  for (const auto& [name, count] : result.counts) {
    parts.push_back(fmt::format("{} {}", name, compress::with_thousands(count)));
  }
  for (const auto& [name, figure] : result.measures) {
    parts.push_back(fmt::format("{} {}", name, compress::figure_text(figure)));
  }
  if (result.change == compress::Change::kNone) parts.emplace_back("nothing to change");
  return fmt::format("  {}{}{:.2f} s", fmt::join(parts, ", "), parts.empty() ? "" : "; ",
                     result.seconds);
}

// What the run would give: the steps work on a copy, nothing is measured on data, nothing is
// written.
void dry_run(const Options& options, const compress::Recipe& recipe, Model& model,
             const RecipeData& data, compress::RunOptions run) {
  run.on_message = [](const std::string& message) { say(message); };
  compress::RunReport report = begin_report(options, recipe, data, model);
  report.before.cost = compress::measure_cost(for_measuring(model));
  report.steps = compress::run_recipe(recipe, model, run).steps;
  report.after.cost = compress::measure_cost(for_measuring(model));
  say("dry run: nothing is written; accuracy and latency are not measured");
  print_result(options.json ? compress::report_json(report).dump(2) + "\n"
                            : compress::report_table(report));
}

// Runs the steps, each finished one on disk before the next begins.
std::vector<compress::StepResult> run_steps(const Options& options, const compress::Recipe& recipe,
                                            Model& model, compress::RunOptions run) {
  const Checkpoint checkpoint(options.outputs.front());
  const std::string input_digest = compress::model_digest(model);
  std::optional<Checkpoint::Saved> saved;
  if (options.resume) {
    saved = checkpoint.load(recipe, input_digest);
    say(saved ? fmt::format("going on after step {} of {}", saved->state.finished(),
                            recipe.steps.size())
              : "there is no interrupted run to go on with; starting at the first step");
  } else if (checkpoint.exists()) {
    say(fmt::format("{} holds an interrupted run; starting anew (--resume would go on with it)",
                    checkpoint.folder().string()));
    checkpoint.remove();
  }
  if (saved) {
    model = std::move(saved->model);
    run.resume = &saved->state;
  }
  if (!saved && trains(recipe)) {
    // Training can be interrupted within a step: a run then goes on from "no step finished".
    checkpoint.save(model, compress::make_run_state(recipe, input_digest, {}));
  }
  std::unique_ptr<ProgressLine> progress;
  run.on_message = [&](const std::string& message) {
    if (progress) progress->clear();
    say(message);
  };
  run.on_step_begin = [&](size_t step, const compress::Step& what) {
    say(fmt::format("step {} of {}: {}", step + 1, recipe.steps.size(),
                    compress::print_step(what)));
    progress = std::make_unique<ProgressLine>(std::string(what.pass->info().id));
  };
  run.on_progress = [&](size_t, int64_t done, int64_t total) { progress->update(done, total); };
  run.on_step_end = [&](const Model& now, const compress::RunState& state) {
    progress.reset();
    say(step_summary(state.results.back()));
    checkpoint.save(now, state);
  };
  return compress::run_recipe(recipe, model, run).steps;
}

// Below this many bytes of tensors the ordinary way is quick and does more: it can be resumed, and
// its result is measured.
constexpr int64_t kStreamedBytes = int64_t{256} << 20;

int64_t tensor_bytes(const Model& model) {
  int64_t bytes = 0;
  for (const compress::NamedTensor& named : model.tensors()) {
    if (named.tensor.defined()) bytes += static_cast<int64_t>(named.tensor.nbytes());
  }
  return bytes;
}

// Whether tensors can pass through one at a time: nothing that was asked for needs them together.
bool streams(const Options& options, const compress::Recipe& recipe, const RecipeData& data,
             const Model& model) {
  return !options.dry_run && !options.resume && !options.verify && options.limits.empty() &&
         options.print_after.empty() && options.stop_after.empty() && !data.test &&
         options.outputs.size() == 1 && options.outputs.front().ends_with(".safetensors") &&
         compress::can_stream(recipe) && compress::can_stream(model) &&
         tensor_bytes(model) >= kStreamedBytes;
}

void run_streamed(const Options& options, const compress::Recipe& recipe, const RecipeData& data,
                  const Model& model) {
  const fs::path output = options.outputs.front();
  say("one tensor at a time, as every step allows it");
  compress::return_large_blocks();
  compress::RunReport report = begin_report(options, recipe, data, model);
  ProgressLine progress("compressing");
  compress::StreamOptions stream;
  stream.on_message = [](const std::string& message) { say(message); };
  stream.on_progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
  compress::StreamResult result = compress::stream_recipe(recipe, model, output, stream);
  for (const std::string& note : result.notes) say(note);
  report.steps = std::move(result.steps);
  report.before.cost = std::move(result.before);
  report.before.file_bytes = suffix(options.model.source) == suffix(output)
                                 ? compress::model_file_bytes(options.model.source)
                                 : report.before.cost.payload_bytes;
  report.after.cost = std::move(result.after);
  report.after.file_bytes = compress::model_file_bytes(output);
  report.after.source = output.string();
  report.output = output.string();
  print_report(options, report);
}

void run(const Options& options) {
  options.compute.apply();
  const compress::PassRegistry registry = compress::builtin_passes();
  RecipeSections sections;
  const compress::Recipe recipe =
      compress::load_recipe(options.recipe, registry, options.settings,
                            [&](const compress::Recipe& read, compress::Problems& problems) {
                              sections = read_sections(read, problems);
                            });
  check_outputs(options);
  parse_limits(options.limits, registry);
  const RecipeData data = open_recipe_data(recipe, sections);
  Model model = load(options.model);
  if (data.test) compress::require_fit(model, data.test->info());
  if (streams(options, recipe, data, model)) return run_streamed(options, recipe, data, model);
  const compress::TrainingEnvironment training = training_environment(options, recipe, sections);
  compress::RunOptions run_with = run_options(options, registry, data, model, training);
  compress::at_origins(compress::check_recipe(recipe, model, run_with), recipe.origins)
      .throw_if_any(recipe.file);
  for (const std::string& path : options.outputs) compress::check_save(model, path);
  if (options.dry_run) {
    if (trains(recipe)) {
      throw Error(ErrorCode::kInvalidArgument, "a training has no dry run", "--dry-run",
                  "its recipe was checked and is fine; leave the train step out to see costs");
    }
    return dry_run(options, recipe, model, data, run_with);
  }

  compress::RunReport report = begin_report(options, recipe, data, model);
  const c10::Device device = options.compute.where();
  const fs::path output = options.outputs.front();
  report.before.file_bytes = bytes_in_format_of(model, options.model.source, output);
  const Model original = for_measuring(model.clone(), device);
  run_with.original = &original;
  measure(original, data, "measuring the original", report.before);

  report.steps = run_steps(options, recipe, model, run_with);
  for (const std::string& path : options.outputs) {
    for (const std::string& note : compress::save_model(model, path)) say(path + ": " + note);
  }

  // From here on only what the file says counts.
  const Model written = for_measuring(read_back(output, model), device);
  report.output = output.string();
  report.after.source = output.string();
  measure(written, data, "measuring the result", report.after);
  report.after.file_bytes = compress::model_file_bytes(output);
  if (!written.is_tensor_set() && !original.is_tensor_set()) {
    compress::LatencyOptions latency;
    latency.batch = report.latency_batch;
    latency.seconds = options.latency_seconds;
    const auto latencies = compress::measure_latency({&original, &written}, latency);
    report.before.latency = latencies[0];
    report.after.latency = latencies[1];
  }
  Checkpoint(output).remove();
  print_report(options, report);
}

}  // namespace

void add_apply(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("apply", "Run a recipe on a model");
  command
      ->add_option(
          "RECIPE", options->recipe,
          "a recipe file, or passes in one line: 'prune.magnitude{sparsity=0.5},quantize.weights'")
      ->required()
      ->type_name("");
  options->model.add_to(*command);
  options->model.add_sizes_to(*command);
  add_repeatable(
      *command, "-o,--output", options->outputs,
      "the .pt2, .safetensors or .onnx file to write; may be repeated, the first one is measured",
      "OUT");
  add_repeatable(*command, "--set", options->settings,
                 "change the recipe: steps.0.sparsity=0.4; may be repeated", "KEY=VALUE");
  CLI::Option* dry =
      command->add_flag("--dry-run", options->dry_run, "show what would come out, write nothing");
  command
      ->add_flag("--resume", options->resume,
                 "go on after the last finished step of an interrupted run")
      ->excludes(dry);
  command->add_option("--report", options->report, "a folder for report.json and report.html")
      ->type_name("DIR")
      ->excludes(dry);
  command->add_flag("--verify", options->verify,
                    "check the model after every step against what its pass promises");
  add_repeatable(*command, "--print-after", options->print_after,
                 "print the model after this pass (or `all`); may be repeated", "PASS");
  command
      ->add_option("--stop-after", options->stop_after,
                   "stop after this pass or step number (from 0)")
      ->type_name("PASS");
  add_repeatable(*command, "--limit", options->limits,
                 "let a pass change at most N weights, to bisect a problem; may be repeated",
                 "PASS=N");
  command
      ->add_option("--latency-seconds", options->latency_seconds,
                   "time spent on measuring each model's latency")
      ->capture_default_str()
      ->type_name("S")
      ->check(within(0.01, 3600.0));
  command->add_flag("--json", options->json, "print the report as JSON");
  options->compute.add_to(*command);
  command->footer(
      "Examples:\n"
      "  lathe apply recipes/models/cifar10-int4.json resnet20.pt2 -o small.pt2 --report report\n"
      "  lathe apply 'prune.magnitude{sparsity=0.5}' resnet20.pt2 --dry-run\n"
      "The model is measured on --device; the passes work on the CPU.");
  command->callback([options] { run(*options); });
}

}  // namespace lathe
