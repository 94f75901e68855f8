// lathe eval: metrics of a model on a data set.

#include "compress/allocator.h"
#include "compress/data/spec.h"
#include "compress/error.h"
#include "compress/evaluate.h"
#include "compress/report/table.h"
#include "tools/lathe/command.h"
#include "tools/lathe/terminal.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lathe {
namespace {

struct Options {
  ModelArgument model;
  ComputeOptions compute;
  EngineOptions engine;
  std::string data;
  std::vector<std::string> metrics = {"top1"};
  int64_t batch = 250;
  bool json = false;
};

void run(const Options& options) {
  options.compute.apply();
  options.engine.check(options.compute);
  std::vector<compress::Metric> metrics;
  for (const std::string& name : options.metrics) metrics.push_back(compress::parse_metric(name));
  const compress::DatasetPtr data = compress::open_data(compress::parse_data_spec(options.data));
  compress::Model model = load(options.model);
  model.to(options.compute.where());
  ProgressLine progress("evaluating");
  compress::EvaluateOptions evaluate_options;
  evaluate_options.batch_size = options.batch;
  evaluate_options.on_progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
  compress::PlannedModel planned(model, options.engine.plan());
  bool plan_is_known = !options.engine.print_plan;
  if (options.engine.engine) {
    evaluate_options.run = [&](const std::vector<at::Tensor>& inputs) {
      if (!planned.has_plan_for(inputs)) {
        const compress::ReturnLargeBlocks while_packing;
        planned.plan_for(inputs);
      }
      if (!plan_is_known) say("the plan:\n" + planned.plan_for(inputs).text());
      plan_is_known = true;
      return planned.run(inputs);
    };
  }
  const std::vector<double> figures = compress::evaluate(model, data, metrics, evaluate_options);
  if (options.json) {
    nlohmann::ordered_json json = {
        {"model", options.model.source}, {"data", data->info().name}, {"samples", data->size()}};
    for (size_t i = 0; i < metrics.size(); ++i) json[options.metrics[i]] = figures[i];
    return print_result(json.dump(2) + "\n");
  }
  compress::Table table({{"metric", compress::Table::Align::kLeft}, {"value"}, {"samples"}});
  for (size_t i = 0; i < metrics.size(); ++i) {
    table.add({compress::metric_title(metrics[i]), compress::metric_text(metrics[i], figures[i]),
               compress::with_thousands(data->size())});
  }
  print_result(table.text());
}

}  // namespace

void add_eval(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model's accuracy on a data set");
  options->model.add_to(*command);
  command
      ->add_option(
          "--data", options->data,
          "the data: cifar10:test,normalize=imagenet, images:DIR, tensors:FILE, text:FILE or JSON")
      ->required()
      ->type_name("DATA");
  add_repeatable(*command, "--metric", options->metrics,
                 "top1, top5, loss, perplexity, mse or psnr; may be repeated (default: top1)",
                 "METRIC");
  command->add_option("--batch", options->batch, "samples that run at once")
      ->capture_default_str()
      ->type_name("N")
      ->check(within(1, 1 << 20));
  command->footer(
      "Example: lathe eval resnet20.pt2 --data cifar10:test --metric top1 --metric loss");
  command->add_flag("--json", options->json, "print JSON");
  options->engine.add_to(*command);
  options->compute.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace lathe
