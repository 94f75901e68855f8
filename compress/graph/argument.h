// An argument of a node: nothing, a value of the graph, or a constant.

#pragma once

#include <c10/core/Device.h>
#include <c10/core/Layout.h>
#include <c10/core/MemoryFormat.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace compress {

class Value;

/// One argument of a `Node`. A list is a vector of arguments, so `[%size, -1]`, `[%a, none, %b]`
/// and
/// `[1, 1]` are all lists.
class Argument {
 public:
  using List = std::vector<Argument>;
  using Variant = std::variant<std::monostate, Value*, bool, int64_t, double, std::string,
                               c10::ScalarType, c10::Layout, c10::MemoryFormat, c10::Device, List>;

  Argument() = default;  ///< none
  Argument(Value* value) : data_(value) {}
  Argument(bool constant) : data_(constant) {}
  Argument(int constant) : data_(int64_t{constant}) {}
  Argument(int64_t constant) : data_(constant) {}
  Argument(double constant) : data_(constant) {}
  Argument(const char* constant) : data_(std::string(constant)) {}
  Argument(std::string constant) : data_(std::move(constant)) {}
  Argument(c10::ScalarType constant) : data_(constant) {}
  Argument(c10::Layout constant) : data_(constant) {}
  Argument(c10::MemoryFormat constant) : data_(constant) {}
  Argument(c10::Device constant) : data_(constant) {}
  Argument(List list) : data_(std::move(list)) {}
  Argument(const std::vector<int64_t>& numbers) : data_(List(numbers.begin(), numbers.end())) {}
  Argument(const std::vector<Value*>& values) : data_(List(values.begin(), values.end())) {}

  bool is_none() const { return std::holds_alternative<std::monostate>(data_); }
  bool is_value() const { return std::holds_alternative<Value*>(data_); }
  bool is_list() const { return std::holds_alternative<List>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }

  /// The value, or null when the argument is something else.
  Value* value() const { return is_value() ? std::get<Value*>(data_) : nullptr; }
  /// The constant of type T (std::bad_variant_access when it is something else).
  template <class T>
  const T& as() const {
    return std::get<T>(data_);
  }
  const List& list() const { return std::get<List>(data_); }
  List& list() { return std::get<List>(data_); }
  /// A list of constant numbers; throws std::bad_variant_access when an element is something else.
  std::vector<int64_t> ints() const;

  const Variant& data() const { return data_; }

  /// Equal constants, or the same value.
  friend bool operator==(const Argument& a, const Argument& b);

  /// Calls `visit(Value*)` for every value in the argument, those inside of lists included.
  template <class Visit>
  void each_value(Visit&& visit) const {
    if (Value* single = value()) visit(single);
    if (is_list()) {
      for (const Argument& element : list()) element.each_value(visit);
    }
  }

  /// Puts `replace(value)` in the place of every value in the argument.
  template <class Replace>
  void map_values(Replace&& replace) {
    if (is_value()) data_ = static_cast<Value*>(replace(std::get<Value*>(data_)));
    if (is_list()) {
      for (Argument& element : list()) element.map_values(replace);
    }
  }

 private:
  Variant data_;
};

}  // namespace compress
