// The numbers of an architecture, the sizes of a file, and `name{key=value}`.

#include "compress/zoo/architecture.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace compress::zoo {
namespace {

// Nobody means a number above this by `layers` or `vocabulary`, and products of two stay small
// enough for int64.
constexpr int64_t kLargestNumber = 1 << 24;

template <class List>
auto find_by_name(List& list, std::string_view name) {
  return std::find_if(list.begin(), list.end(),
                      [&](const auto& item) { return item.first == name; });
}

[[noreturn]] void bad_spec(std::string_view text, const std::string& message,
                           const std::string& hint = {}) {
  throw Error(ErrorCode::kInvalidArgument, message, std::string(text), hint);
}

int64_t parse_number(std::string_view text, std::string_view key, std::string_view digits) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || number < 0 ||
      number > kLargestNumber) {
    bad_spec(text, fmt::format("`{}` is `{}`, which is not a whole number from 0 to {}", key,
                               digits, kLargestNumber));
  }
  return number;
}

void parse_setting(std::string_view text, std::string_view setting, Spec& spec) {
  const size_t equals = setting.find('=');
  if (equals == std::string_view::npos) {
    bad_spec(text, fmt::format("`{}` is not of the form name=number", setting));
  }
  const std::string key(setting.substr(0, equals));
  const std::string_view value = setting.substr(equals + 1);
  if (key == "keys") {
    std::vector<std::string> names;
    for (const Dialect& dialect : spec.architecture.family.dialects) names.push_back(dialect.name);
    if (std::find(names.begin(), names.end(), value) == names.end()) {
      bad_spec(text, fmt::format("no key names `{}`", value),
               fmt::format("there are: {}", fmt::join(names, ", ")));
    }
    spec.keys = value;
    return;
  }
  if (key == "seed") {
    spec.seed = static_cast<uint64_t>(parse_number(text, key, value));
    return;
  }
  const Parameters known(spec.architecture.parameters);
  if (!known.contains(key)) {
    bad_spec(text, fmt::format("`{}` has no number `{}`", spec.architecture.name, key),
             fmt::format("it has: {}", fmt::join(known.names(), ", ")));
  }
  spec.given.emplace_back(key, parse_number(text, key, value));
}

// Numbers that may be zero: switches and paddings.
constexpr std::array<std::string_view, 4> kMayBeZero = {"bias", "padding", "bottleneck", "halve"};

void check_divides(const Architecture& architecture, const Parameters& parameters,
                   std::string_view divisor, std::string_view dividend) {
  if (!parameters.contains(divisor) || parameters[dividend] % parameters[divisor] == 0) return;
  bad_spec(architecture.name, fmt::format("{} {} is not a multiple of {} {}", dividend,
                                          parameters[dividend], divisor, parameters[divisor]));
}

void check_numbers(const Architecture& architecture, const Parameters& parameters) {
  for (const auto& [name, number] : parameters.list()) {
    if (number < 1 && std::find(kMayBeZero.begin(), kMayBeZero.end(), name) == kMayBeZero.end()) {
      bad_spec(architecture.name, fmt::format("{} is {}, but must be at least 1", name, number));
    }
  }
  check_divides(architecture, parameters, "heads", "width");
  check_divides(architecture, parameters, "patch", "image");
  // Stages of `depth` must come out whole: three of them with two convolutions a block.
  if (parameters.contains("widen") && (parameters["depth"] < 10 || parameters["depth"] % 6 != 4)) {
    bad_spec(architecture.name,
             fmt::format("depth is {}, but must be 6n+4: 10, 16, 22, ...", parameters["depth"]));
  }
  if (parameters.contains("growth")) {
    const int64_t step = parameters["bottleneck"] != 0 ? 6 : 3;
    if (parameters["depth"] < 4 + step || (parameters["depth"] - 4) % step != 0) {
      bad_spec(architecture.name,
               fmt::format("depth is {}, but must be {}n+4", parameters["depth"], step));
    }
  }
}

}  // namespace

int64_t Parameters::operator[](std::string_view name) const {
  const auto found = find_by_name(list_, name);
  COMPRESS_CHECK(found != list_.end(), fmt::format("undeclared parameter `{}`", name));
  return found->second;
}

void Parameters::set(std::string_view name, int64_t number) {
  const auto found = find_by_name(list_, name);
  COMPRESS_CHECK(found != list_.end(), fmt::format("undeclared parameter `{}`", name));
  found->second = number;
}

bool Parameters::contains(std::string_view name) const {
  return find_by_name(list_, name) != list_.end();
}

std::vector<std::string> Parameters::names() const {
  std::vector<std::string> names;
  for (const auto& [name, number] : list_) names.push_back(name);
  return names;
}

const std::vector<int64_t>* Shapes::find(const std::string& name) const {
  const auto found = sizes_.find(GraphBuilder::renamed(name, renames_));
  return found == sizes_.end() ? nullptr : &found->second;
}

std::optional<int64_t> Shapes::dim(const std::string& name, size_t dim) const {
  const std::vector<int64_t>* sizes = find(name);
  // A size beyond all reason stays uninferred; the file then fails to fit, with its sizes listed.
  if (sizes == nullptr || dim >= sizes->size() || (*sizes)[dim] > kLargestNumber) return {};
  return (*sizes)[dim];
}

std::optional<int64_t> Shapes::count(const std::string& front, const std::string& back) const {
  int64_t count = 0;
  while (contains(front + std::to_string(count) + back)) ++count;
  return count == 0 ? std::nullopt : std::optional(count);
}

Architecture find_architecture(std::string_view name) {
  std::vector<std::string> names;
  for (Architecture& architecture : architectures()) {
    if (architecture.name == name) return std::move(architecture);
    names.push_back(architecture.name);
  }
  const std::string hint = did_you_mean(name, names);
  bad_spec(name, "no architecture of the zoo has this name",
           hint.empty() ? "`lathe models` lists them" : hint);
}

Spec parse_spec(std::string_view text) {
  const size_t brace = text.find('{');
  Spec spec{find_architecture(text.substr(0, brace)), {}, {}, 0};
  if (brace == std::string_view::npos) return spec;
  if (text.back() != '}') bad_spec(text, "`}` is missing at the end");
  std::string_view rest = text.substr(brace + 1, text.size() - brace - 2);
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    parse_setting(text, rest.substr(0, comma), spec);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return spec;
}

Parameters default_parameters(const Architecture& architecture) {
  Parameters::List list = architecture.fixed;
  list.insert(list.end(), architecture.parameters.begin(), architecture.parameters.end());
  return list;
}

Blueprint blueprint(const Architecture& architecture, const Parameters& parameters,
                    const Dialect& dialect) {
  check_numbers(architecture, parameters);
  GraphBuilder net(dialect.renames);
  std::vector<Output> outputs = architecture.family.build(net, parameters);
  return net.finish(std::move(outputs));
}

}  // namespace compress::zoo
