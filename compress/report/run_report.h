// The figures of a run: before and after, as table, JSON and HTML.

#pragma once

#include "compress/budget/cost.h"
#include "compress/budget/latency.h"
#include "compress/json.h"
#include "compress/report/table.h"
#include "compress/run_state.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace compress {

/// What was measured of one model. Every figure comes from tensors, files and clocks.
struct ModelFigures {
  std::string source;                                   ///< the file, or what it came from
  std::vector<std::pair<std::string, double>> metrics;  ///< by name: {"top1", 91.73}
  ModelCost cost;
  int64_t file_bytes = 0;  ///< of the file on disk
  std::optional<Latency> latency;
};

/// All that one `lathe apply` found out.
struct RunReport {
  std::string recipe_name;
  Json recipe;       ///< canonical
  std::string data;  ///< what the metrics were measured on; empty: nothing
  int64_t samples = 0;
  int64_t latency_batch = 1;
  std::string sizes;  ///< of the inputs' free dimensions that MACs and latency are of
  int threads = 0;
  std::string output;  ///< the file that was written
  ModelFigures before, after;
  std::vector<StepResult> steps;
};

/// The rows of the table that ends a run: a figure, before, after, and how many times smaller (or,
/// of metrics, the difference).
Table report_rows(const RunReport& report);
/// What did not pay, a sentence each: masks that save no bytes, a model that is not faster.
std::vector<std::string> report_remarks(const RunReport& report);
/// Rows and remarks as text.
std::string report_table(const RunReport& report);
/// The same figures and all steps with what was asked and what was achieved, as report.json.
Json report_json(const RunReport& report);
/// A page that stands alone: the table, the steps, each layer's bits, zeros and size.
std::string report_html(const RunReport& report);

/// The cost of a model with all layers, as in report.json and `lathe inspect --json`.
Json model_cost_json(const ModelCost& cost);

}  // namespace compress
