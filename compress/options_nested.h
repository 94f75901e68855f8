// Options inside of options: a struct as a member, and a choice of one struct among several.
//
//   struct SgdOptions {
//     static constexpr std::string_view kName = "sgd";
//     double lr = 0.1;
//     template <class Visitor> void visit(Visitor& field) { ... }
//   };
//   OneOf<SgdOptions, AdamOptions> optimizer;    {"optimizer": {"sgd": {"lr": 0.1}}} or "sgd"
//   std::vector<GroupOptions> groups;            {"groups": [{"where": "*.bias"}, ...]}

#pragma once

#include "compress/options.h"

#include <array>
#include <functional>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace compress {

/// Exactly one of several structs of options, each with a `kName`; at first the first one.
template <class... Choices>
struct OneOf {
  std::variant<Choices...> value;

  OneOf() = default;
  template <class Choice, class = std::enable_if_t<(std::is_same_v<Choice, Choices> || ...)>>
  OneOf(Choice choice) : value(std::move(choice)) {}  // NOLINT: a choice is meant to convert

  /// The chosen struct if it is a `Choice`, else null.
  template <class Choice>
  const Choice* get() const {
    return std::get_if<Choice>(&value);
  }
  /// Its name in a recipe.
  std::string_view name() const {
    return std::visit([](const auto& chosen) { return chosen.kName; }, value);
  }
};

/// Throws Error(kInvalidArgument) with all values that are out of range and all rules that are
/// broken: for options that were written in C++ and not read.
void check_options(const AnyOptions& options);

namespace detail {

/// A member that is a struct with `visit`, seen as options of its own.
struct NestedOptions {
  std::string_view name;                                   ///< empty outside of a choice
  std::unique_ptr<AnyOptions> (*defaults)();               ///< at their defaults
  std::unique_ptr<AnyOptions> (*get)(const void* member);  ///< a copy; null: another is chosen
  void (*set)(void* member, AnyOptions& options);
};

class StructType final : public OptionType {
 public:
  explicit StructType(NestedOptions nested) : nested_(nested) {}
  void read(const Json&, const std::string&, void*, Problems&) const override;
  Json write(const void* member) const override;
  Json schema() const override;
  std::string name() const override;

 private:
  NestedOptions nested_;
};

class OneOfType final : public OptionType {
 public:
  explicit OneOfType(std::vector<NestedOptions> choices) : choices_(std::move(choices)) {}
  void read(const Json&, const std::string&, void*, Problems&) const override;
  Json write(const void* member) const override;
  Json schema() const override;
  std::string name() const override;

 private:
  std::vector<NestedOptions> choices_;
};

template <class Struct>
std::unique_ptr<AnyOptions> wrap_options(const Struct& value) {
  auto options = std::make_unique<OptionsOf<Struct>>();
  options->value = value;
  return options;
}

template <class Struct>
std::unique_ptr<AnyOptions> default_nested() {
  return std::make_unique<OptionsOf<Struct>>();
}

template <class Variant, class Choice>
NestedOptions nested_choice() {
  return {Choice::kName, default_nested<Choice>,
          [](const void* member) -> std::unique_ptr<AnyOptions> {
            const Choice* chosen = std::get_if<Choice>(static_cast<const Variant*>(member));
            return chosen == nullptr ? nullptr : wrap_options(*chosen);
          },
          [](void* member, AnyOptions& options) {
            *static_cast<Variant*>(member) = dynamic_cast<OptionsOf<Choice>&>(options).value;
          }};
}

}  // namespace detail

/// The same for the chosen struct.
template <class... Choices>
void check_options(const OneOf<Choices...>& options) {
  std::visit([](const auto& chosen) { check_options(*detail::wrap_options(chosen)); },
             options.value);
}

template <class... Choices>
const OptionType& option_type(const OneOf<Choices...>*) {
  // `value` is the only member, so a pointer to the choice points to its variant.
  using Variant = std::variant<Choices...>;
  static_assert(sizeof(OneOf<Choices...>) == sizeof(Variant));
  static const detail::OneOfType type({detail::nested_choice<Variant, Choices>()...});
  return type;
}

/// Any struct with `visit` that says `using IsOptions = void`, in the namespace `compress` itself:
/// it is there that a member's type is looked up (an unnamed namespace would hide this).
template <class Struct, class = typename Struct::IsOptions>
const OptionType& option_type(const Struct*) {
  static const detail::StructType type(
      {{},
       detail::default_nested<Struct>,
       [](const void* member) { return detail::wrap_options(*static_cast<const Struct*>(member)); },
       [](void* member, AnyOptions& options) {
         *static_cast<Struct*>(member) = dynamic_cast<OptionsOf<Struct>&>(options).value;
       }});
  return type;
}

}  // namespace compress
