// The figures of a run as a page that stands alone: no scripts, no other files.

#include "compress/report/run_report.h"
#include "compress/version.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

namespace compress {
namespace {

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--ink:#1c2430;--dim:#667;--line:#dde1e8;--bar:#3b6fd4;--zero:#e3a04f;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaf0;--dim:#9aa;--line:#333a46;--bar:#6f9bf0;--zero:#c98b3d;--paper:#14181f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}p.sub{color:var(--dim);margin-top:0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child,td.l,th.l{text-align:left}th{color:var(--dim);font-weight:600}
td.bar{width:30%;min-width:8rem}.track{height:.8rem;position:relative}
.track i{position:absolute;left:0;top:0;bottom:0;background:var(--line)}.track i+i{background:var(--bar)}
td.keep{white-space:pre}pre{overflow-x:auto}.note{color:var(--dim)}
code{font-size:.9em;white-space:pre-wrap;word-break:break-word})";

std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string summary_table(const RunReport& report) {
  std::string html = "<table>\n";
  bool header = true;
  for (const std::vector<std::string>& row : report_rows(report).rows_with_header()) {
    html += "<tr>";
    for (const std::string& cell : row) {
      html += header ? fmt::format("<th>{}</th>", escape(cell))
                     : fmt::format("<td>{}</td>", escape(cell));
    }
    html += "</tr>\n";
    header = false;
  }
  return html + "</table>\n";
}

// "bits=4 grid=affine", which breaks between options.
std::string asked(const Json& options) {
  std::string text;
  for (const auto& [name, value] : options.items()) {
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name,
                        value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

std::string steps_table(const RunReport& report) {
  std::string html =
      "<table>\n<tr><th>step</th><th class=l>asked</th><th "
      "class=l>achieved</th><th>seconds</th></tr>\n";
  for (const StepResult& step : report.steps) {
    std::string achieved;
    for (const auto& [name, count] : step.counts)
      achieved += fmt::format("{} {}\n", name, with_thousands(count));
    for (const auto& [name, figure] : step.measures)
      achieved += fmt::format("{} {}\n", name, figure_text(figure));
    html += fmt::format(
        "<tr><td>{}</td><td class=l><code>{}</code></td><td class=\"l keep\">{}</td>"
        "<td>{:.2f}</td></tr>\n",
        escape(step.pass), escape(asked(step.options)), escape(achieved), step.seconds);
  }
  return html + "</table>\n";
}

// One line a layer: bars as long as its bits before and after, the longest for the largest layer.
std::string layers_table(const RunReport& report) {
  int64_t largest = 1;
  std::map<std::string, int64_t> before;
  for (const LayerCost& layer : report.before.cost.layers) before[layer.name] = layer.bits_on_disk;
  for (const auto* cost : {&report.before.cost, &report.after.cost}) {
    for (const LayerCost& layer : cost->layers) largest = std::max(largest, layer.bits_on_disk);
  }
  const auto width = [&](int64_t bits) {
    return 100.0 * static_cast<double>(bits) / static_cast<double>(largest);
  };
  std::string html =
      "<table>\n<tr><th>layer</th><th class=l>encoding</th><th>weights</th><th>zeros</th><th>bits "
      "per weight</th>"
      "<th class=l>size, before and after</th></tr>\n";
  for (const LayerCost& layer : report.after.cost.layers) {
    if (layer.elements == 0) continue;
    const auto elements = static_cast<double>(layer.elements);
    const double zeros = 100.0 * (1.0 - static_cast<double>(layer.nonzeros) / elements);
    html += fmt::format(
        "<tr><td>{}</td><td class=l>{}</td><td>{}</td><td>{:.1f} %</td><td>{:.2f}</td>"
        "<td class=bar><div class=track><i style=\"width:{:.2f}%\"></i><i "
        "style=\"width:{:.2f}%\"></i></div></td></tr>\n",
        escape(layer.name), escape(layer.encoding), with_thousands(layer.elements), zeros,
        static_cast<double>(layer.bits_on_disk) / elements, width(before[layer.name]),
        width(layer.bits_on_disk));
  }
  return html + "</table>\n";
}

}  // namespace

std::string report_html(const RunReport& report) {
  const std::string title = report.recipe_name.empty() ? "Lathe run" : report.recipe_name;
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
      "content=\"width=device-width\">"
      "<title>{}</title><style>{}</style></head><body>\n<h1>{}</h1>\n<p class=sub>{} &rarr; "
      "{}</p>\n",
      escape(title), kStyle, escape(title), escape(report.before.source), escape(report.output));
  html += summary_table(report);
  html += "<p class=note>";
  if (!report.data.empty())
    html += fmt::format("Measured on {} samples of {}. ", with_thousands(report.samples),
                        escape(report.data));
  if (!report.sizes.empty()) html += fmt::format("MACs and latency at {}. ", escape(report.sizes));
  html += count_of(report.threads, "thread") + ".</p>\n";
  for (const std::string& remark : report_remarks(report))
    html += fmt::format("<p class=note>Note: {}.</p>\n", escape(remark));
  html += "<h2>Steps</h2>\n" + steps_table(report);
  html += "<h2>Layers</h2>\n" + layers_table(report);
  html += fmt::format(
      "<h2>Recipe</h2>\n<pre><code>{}</code></pre>\n<p class=note>Lathe {}</p>\n</body></html>\n",
      escape(report.recipe.dump(2)), version());
  return html;
}

}  // namespace compress
