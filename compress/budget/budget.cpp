// Reading of budgets.

#include "compress/budget/budget.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

namespace compress {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"macs", "parameters", "bytes", "latency_ms",
                                                    "engine_ms"};

class BudgetType final : public OptionType {
 public:
  void read(const Json& json, const std::string& where, void* member,
            Problems& problems) const override {
    if (!json.is_object() || json.size() != 1) {
      problems.add(where, fmt::format("{} is not a budget, which has one limit", json.dump()),
                   R"(write {"macs": 0.5}, {"parameters": 0.5}, {"bytes": "200 KB"} or )"
                   R"({"latency_ms": 1.5} (through the engine: engine_ms))");
      return;
    }
    const std::string key = json.begin().key(), pointer = where + "/" + key;
    const Json& value = json.begin().value();
    for (size_t kind = 0; kind < kNames.size(); ++kind) {
      if (key != kNames[kind]) continue;
      Budget budget{static_cast<Budget::Kind>(kind), 0};
      if (read_amount(value, pointer, budget, problems)) *static_cast<Budget*>(member) = budget;
      return;
    }
    problems.add(pointer, fmt::format("unknown limit `{}`", key),
                 "it is macs, parameters, bytes, latency_ms or engine_ms");
  }

  Json write(const void* member) const override {
    const auto& budget = *static_cast<const Budget*>(member);
    const std::string name(kNames[static_cast<size_t>(budget.kind)]);
    if (budget.kind == Budget::Kind::kBytes) return {{name, std::llround(budget.amount)}};
    return {{name, budget.amount}};
  }

  Json schema() const override {
    const Json share = {{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1}};
    const Json amount = {{"type", "number"}, {"exclusiveMinimum", 0}};
    const Json size = {{"type", "string"}, {"pattern", "^[0-9.]+ ?(B|KB|kB|MB|GB)?$"}};
    return {{"type", "object"},
            {"properties",
             {{"macs", share},
              {"parameters", share},
              {"bytes", {{"anyOf", Json::array({amount, size})}}},
              {"latency_ms", amount},
              {"engine_ms", amount}}},
            {"minProperties", 1},
            {"maxProperties", 1},
            {"additionalProperties", false}};
  }

  std::string name() const override {
    return "{macs} | {parameters} | {bytes} | {latency_ms} | {engine_ms}";
  }

 private:
  static bool read_amount(const Json& value, const std::string& where, Budget& budget,
                          Problems& problems) {
    if (budget.kind == Budget::Kind::kBytes && value.is_string()) {
      const std::optional<int64_t> bytes = parse_bytes(value.get<std::string>());
      if (!bytes) {
        problems.add(where, fmt::format("{} is not a size", value.dump()),
                     "write `200 KB`, `1.5 MB` or a number of bytes");
        return false;
      }
      budget.amount = static_cast<double>(*bytes);
    } else if (value.is_number()) {
      budget.amount = value.get<double>();
    } else {
      problems.add(where, fmt::format("{} is not a number", value.dump()));
      return false;
    }
    const double most = budget.is_share() ? 1 : 1e18;
    if (budget.amount > 0 && budget.amount <= most) return true;
    problems.add(where, fmt::format("{} is outside (0, {}]", value.dump(), most),
                 budget.is_share() ? "it is the share to keep" : "");
    return false;
  }
};

}  // namespace

std::optional<int64_t> parse_bytes(const std::string& text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  std::string_view unit(rest, static_cast<size_t>(end - rest));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  double factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  if (unit == "KB" || unit == "kB") factor = 1e3;
  if (unit == "MB") factor = 1e6;
  if (unit == "GB") factor = 1e9;
  if (factor == 0 || number * factor > 9e18) return std::nullopt;
  return std::llround(number * factor);
}

const OptionType& option_type(const Budget*) {
  static const BudgetType type;
  return type;
}

}  // namespace compress
