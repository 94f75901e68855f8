// The figures of a run as table and JSON.

#include "compress/report/run_report.h"

#include "compress/evaluate.h"
#include "compress/report/table.h"
#include "compress/version.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cmath>

namespace compress {
namespace {

// "2.50 x" as small, or as fast; empty when there is nothing to divide.
std::string times(double before, double after) {
  return before > 0 && after > 0 ? fmt::format("{:.2f} x", before / after) : std::string();
}

std::string percent(double share) { return fmt::format("{:.2f} %", 100.0 * share); }

Json latency_json(const Latency& latency) {
  return {{"median_ms", latency.median_ms},
          {"low_ms", latency.low_ms},
          {"high_ms", latency.high_ms},
          {"runs", latency.runs}};
}

Json layer_json(const LayerCost& layer) {
  Json json = {{"name", layer.name}, {"op", layer.op}, {"sizes", layer.sizes}};
  if (!layer.encoding.empty()) json["encoding"] = layer.encoding;
  json["elements"] = layer.elements;
  json["nonzeros"] = layer.nonzeros;
  if (layer.macs) json["macs"] = *layer.macs;
  json["bits_on_disk"] = layer.bits_on_disk;
  return json;
}

void add_metrics(Table& table, const RunReport& report) {
  for (size_t i = 0; i < report.before.metrics.size(); ++i) {
    const auto& [name, before] = report.before.metrics[i];
    const Metric metric = parse_metric(name);
    if (i >= report.after.metrics.size()) {
      table.add({metric_title(metric), metric_text(metric, before), "", ""});
      continue;
    }
    const double after = report.after.metrics[i].second;
    table.add({metric_title(metric), metric_text(metric, before), metric_text(metric, after),
               fmt::format("{:+.{}f}", after - before, higher_is_better(metric) ? 2 : 4)});
  }
}

}  // namespace

Json model_cost_json(const ModelCost& cost) {
  Json json = {{"parameters", cost.parameters},
               {"nonzeros", cost.nonzeros},
               {"sparsity", cost.sparsity()},
               {"weight_elements", cost.weight_elements},
               {"weight_nonzeros", cost.weight_nonzeros},
               {"weight_sparsity", cost.weight_sparsity()}};
  if (cost.macs) json["macs"] = *cost.macs;
  json["payload_bytes"] = cost.payload_bytes;
  json["bits_per_weight"] = cost.bits_per_weight;
  json["layers"] = Json::array();
  for (const LayerCost& layer : cost.layers) json["layers"].push_back(layer_json(layer));
  return json;
}

std::vector<std::string> report_remarks(const RunReport& report) {
  std::vector<std::string> remarks;
  const ModelFigures &before = report.before, &after = report.after;
  if (after.file_bytes > 0 && after.file_bytes >= before.file_bytes) {
    remarks.push_back(after.cost.nonzeros < before.cost.nonzeros
                          ? "the file is not smaller: a zero is stored like any other weight, in "
                            ".pt2 beside its mask; quantize to store fewer bits"
                          : "the file is not smaller than before");
  }
  if (before.latency && after.latency &&
      after.latency->median_ms > 1.05 * before.latency->median_ms) {
    remarks.push_back("the model is slower than before");
  } else if (before.latency && after.latency &&
             after.latency->median_ms > 0.95 * before.latency->median_ms) {
    const bool thinner = after.cost.weight_sparsity() > before.cost.weight_sparsity() ||
                         after.cost.bits_per_weight < before.cost.bits_per_weight;
    const bool smaller =
        after.cost.macs && before.cost.macs && *after.cost.macs < *before.cost.macs;
    remarks.push_back(smaller ? "the model is not faster although it multiplies less: at this "
                                "size the number of operators and their overhead decide"
                      : thinner
                          ? "the model is not faster: zeros and packed weights are multiplied "
                            "like any others by the kernels that ran"
                          : "the model is not faster than before");
  }
  return remarks;
}

Table report_rows(const RunReport& report) {
  using Align = Table::Align;
  Table table({{"", Align::kLeft}, {"before"}, {"after"}, {"change"}});
  const ModelFigures &before = report.before, &after = report.after;
  add_metrics(table, report);
  table.add({"parameters", with_thousands(before.cost.parameters),
             with_thousands(after.cost.parameters),
             times(double(before.cost.parameters), double(after.cost.parameters))});
  table.add({"non-zeros", with_thousands(before.cost.nonzeros), with_thousands(after.cost.nonzeros),
             times(double(before.cost.nonzeros), double(after.cost.nonzeros))});
  table.add({"zeros among weights", percent(before.cost.weight_sparsity()),
             percent(after.cost.weight_sparsity()), ""});
  if (before.cost.macs && after.cost.macs) {
    table.add({"MACs a sample", count_text(*before.cost.macs), count_text(*after.cost.macs),
               times(*before.cost.macs, *after.cost.macs)});
  }
  if (before.file_bytes > 0 && after.file_bytes > 0) {
    table.add({"bytes on disk", with_thousands(before.file_bytes), with_thousands(after.file_bytes),
               times(double(before.file_bytes), double(after.file_bytes))});
  } else {
    table.add({"bytes of tensors", with_thousands(before.cost.payload_bytes),
               with_thousands(after.cost.payload_bytes),
               times(double(before.cost.payload_bytes), double(after.cost.payload_bytes))});
  }
  table.add({"bits per weight", fmt::format("{:.3f}", before.cost.bits_per_weight),
             fmt::format("{:.3f}", after.cost.bits_per_weight),
             times(before.cost.bits_per_weight, after.cost.bits_per_weight)});
  if (before.latency && after.latency) {
    table.add({fmt::format("latency, batch {}, ms", report.latency_batch),
               fmt::format("{:.3f}", before.latency->median_ms),
               fmt::format("{:.3f}", after.latency->median_ms),
               times(before.latency->median_ms, after.latency->median_ms)});
  }
  return table;
}

std::string report_table(const RunReport& report) {
  std::string text = report_rows(report).text();
  if (!report.data.empty() && !report.after.metrics.empty()) {
    text += fmt::format("\nmeasured on {} samples of {}; ", with_thousands(report.samples),
                        report.data);
  } else {
    text += "\n";
  }
  if (!report.sizes.empty()) text += fmt::format("MACs and latency at {}; ", report.sizes);
  text += count_of(report.threads, "thread") + "\n";
  for (const std::string& remark : report_remarks(report))
    text += fmt::format("note: {}\n", remark);
  return text;
}

Json report_json(const RunReport& report) {
  const auto figures = [](const ModelFigures& model) {
    Json json = {{"source", model.source}};
    json["metrics"] = Json::object();
    for (const auto& [name, value] : model.metrics) json["metrics"][name] = value;
    if (model.file_bytes > 0) json["file_bytes"] = model.file_bytes;
    if (model.latency) json["latency"] = latency_json(*model.latency);
    json["cost"] = model_cost_json(model.cost);
    return json;
  };
  Json json = {{"lathe", version()},
               {"name", report.recipe_name},
               {"recipe", report.recipe},
               {"output", report.output},
               {"data", {{"name", report.data}, {"samples", report.samples}}},
               {"threads", report.threads},
               {"latency_batch", report.latency_batch},
               {"sizes", report.sizes},
               {"before", figures(report.before)},
               {"after", figures(report.after)}};
  json["steps"] = Json::array();
  for (const StepResult& step : report.steps) json["steps"].push_back(step_result_json(step));
  json["remarks"] = report_remarks(report);
  return json;
}

}  // namespace compress
