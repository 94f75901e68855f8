// lathe bench: latency and throughput of a model, alone or against another.

#include "compress/budget/latency.h"
#include "compress/error.h"
#include "compress/graph/shapes.h"
#include "compress/report/table.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <functional>
#include <memory>

namespace lathe {
namespace {

struct Options {
  ModelArgument model;
  std::string against, against_architecture;
  ComputeOptions compute;
  EngineOptions engine;
  compress::LatencyOptions latency;
  bool json = false;
};

// Times each model, and with the engine each model's plan beside it, in turns.
std::vector<compress::Latency> measure(const std::vector<compress::Model>& models,
                                       std::vector<std::string>& sources, const Options& options) {
  std::vector<const compress::Model*> pointers;
  for (const compress::Model& model : models) pointers.push_back(&model);
  if (!options.engine.engine) return compress::measure_latency(pointers, options.latency);
  const at::NoGradGuard no_grad;
  std::vector<compress::Plan> plans;
  std::vector<std::vector<at::Tensor>> inputs;
  for (const compress::Model& model : models) {
    inputs.push_back(compress::example_inputs(model, options.latency.batch));
    plans.push_back(options.engine.plan_of(model, inputs.back()));
  }
  std::vector<std::function<void()>> runs;
  std::vector<std::string> names;
  for (size_t i = 0; i < models.size(); ++i) {
    if (options.engine.print_plan) {
      say(fmt::format("the plan of {}:\n{}", sources[i], plans[i].text()));
    }
    names.push_back(sources[i]);
    runs.emplace_back([&, i] { models[i].forward(inputs[i]); });
    names.push_back(sources[i] + " (engine)");
    runs.emplace_back([&, i] { plans[i].run(inputs[i]); });
  }
  sources = std::move(names);
  return compress::time_in_turns(runs, options.latency);
}

void run(const Options& options) {
  options.compute.apply();
  options.engine.check(options.compute);
  std::vector<std::string> sources = {options.model.source};
  std::vector<compress::Model> models;
  models.push_back(load(options.model));
  if (!options.against.empty()) {
    sources.push_back(options.against);
    models.push_back(load({options.against, options.against_architecture, options.model.sizes}));
  }
  for (size_t i = 0; i < models.size(); ++i) {
    if (!models[i].is_tensor_set()) continue;
    throw compress::Error(compress::ErrorCode::kInvalidArgument,
                          "is a bare set of tensors and cannot be run", sources[i],
                          "give its architecture with --arch (see: lathe models)");
  }
  for (compress::Model& model : models) {
    model.eval();
    model.to(options.compute.where());
  }
  const std::vector<compress::Latency> latencies = measure(models, sources, options);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  compress::Table table({{"model", compress::Table::Align::kLeft},
                         {"median ms"},
                         {"10 % below"},
                         {"90 % below"},
                         {"samples/s"},
                         {"runs"},
                         {"speed"}});
  for (size_t i = 0; i < latencies.size(); ++i) {
    const compress::Latency& latency = latencies[i];
    const double rate = 1000.0 * static_cast<double>(options.latency.batch) / latency.median_ms;
    // Of this model against the first.
    const double speed = latencies[0].median_ms / latency.median_ms;
    table.add({sources[i], fmt::format("{:.3f}", latency.median_ms),
               fmt::format("{:.3f}", latency.low_ms), fmt::format("{:.3f}", latency.high_ms),
               fmt::format("{:.1f}", rate), std::to_string(latency.runs),
               speed < 100 ? fmt::format("{:.3g} x", speed) : fmt::format("{:.0f} x", speed)});
    rows.push_back({{"model", sources[i]},
                    {"batch", options.latency.batch},
                    {"sizes", compress::free_sizes_text(models[0])},
                    {"threads", at::get_num_threads()},
                    {"median_ms", latency.median_ms},
                    {"low_ms", latency.low_ms},
                    {"high_ms", latency.high_ms},
                    {"samples_per_second", rate},
                    {"runs", latency.runs}});
  }
  if (options.json) return print_result(rows.dump(2) + "\n");
  print_result(table.text());
  const std::string sizes = compress::free_sizes_text(models[0]);
  print_result(fmt::format("batch {}, {}{}{}, no gradients\n", options.latency.batch, sizes,
                           sizes.empty() ? "" : ", ",
                           compress::count_of(at::get_num_threads(), "thread")));
}

}  // namespace

void add_bench(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("bench", "Measure a model's latency");
  options->model.add_to(*command);
  options->model.add_sizes_to(*command);
  CLI::Option* against =
      command
          ->add_option("--against", options->against, "a second model, run in turns with the first")
          ->type_name("MODEL");
  command
      ->add_option("--against-arch", options->against_architecture,
                   "its architecture, if it holds weights only")
      ->type_name("NAME")
      ->needs(against);
  command->add_option("--batch", options->latency.batch, "samples in one run")
      ->capture_default_str()
      ->type_name("N")
      ->check(within(1, 1 << 20));
  command->add_option("--seconds", options->latency.seconds, "time spent on each model")
      ->capture_default_str()
      ->type_name("S")
      ->check(within(0.01, 3600.0));
  command->footer("Example: lathe bench zoo:resnet20-cifar10 --against small.pt2 --batch 32");
  command->add_flag("--json", options->json, "print JSON");
  options->engine.add_to(*command);
  options->compute.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace lathe
