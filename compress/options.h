// Options: one declaration, from which everything else is derived.
//
// An options struct is plain members with defaults and one `visit` that names them:
//
//   struct PruneMagnitudeOptions {
//     double sparsity = 0.5;
//     Scope scope = Scope::kTensor;
//
//     template <class Visitor>
//     void visit(Visitor& field) {
//       field("sparsity", sparsity, "Share of the selected weights to zero.").range(0.0, 1.0);
//       field("scope", scope, "What shares one threshold.");
//     }
//     void validate(Problems& problems) const;  // optional: rules between options
//   };
//
// Members may be bool, int, int64_t, double, std::string, Scope, Granularity, Selector, any enum
// with `option_names` (see below), and std::vector of these. Derived from `visit`: the strict JSON
// reader, ranges, defaults, the printer, the JSON schema, help and documentation
// (options_text.cpp).

#pragma once

#include "compress/error.h"
#include "compress/json.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace compress {

/// Collects what is wrong with a recipe, so that all of it is reported at once.
class Problems {
 public:
  /// `where` is a JSON pointer, relative to `prefix()`; a bare option name is fine too.
  void add(std::string_view where, std::string message, std::string hint = {});
  void add(const Error& error);
  bool empty() const { return list_.empty(); }
  size_t size() const { return list_.size(); }
  const std::vector<Error>& list() const { return list_; }

  /// Put in front of every `where`: the pointer of the step that is being read.
  const std::string& prefix() const { return prefix_; }
  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  /// Throws Error(kInvalidArgument) with all problems, one a line, each with `file` in front; does
  /// nothing when there are none.
  void throw_if_any(const std::string& file = {}) const;

 private:
  std::vector<Error> list_;
  std::string prefix_;
};

/// What shares one decision (a threshold, a budget): each weight tensor, each layer (its tensors
/// together, as in a recurrent layer), or all selected weights of the model.
enum class Scope { kTensor, kLayer, kModel };
/// An enum becomes an option type by the names of its values, in order, starting at 0.
inline std::vector<std::string_view> option_names(Scope) { return {"tensor", "layer", "model"}; }

/// What shares one scale or one codebook: the tensor, an output channel (dimension 0 of the
/// weight), or each run of `group_size` elements along the inputs of a channel. In a recipe:
/// "tensor", "channel", "group:128" or {"group": 128}.
struct Granularity {
  enum class Kind { kTensor, kChannel, kGroup };
  Kind kind = Kind::kTensor;
  int64_t group_size = 0;  ///< elements; only of kGroup

  static Granularity tensor() { return {}; }
  static Granularity channel() { return {Kind::kChannel, 0}; }
  static Granularity group(int64_t size) { return {Kind::kGroup, size}; }
  /// "tensor", "channel" or "group:128".
  std::string text() const;
  bool operator==(const Granularity&) const = default;
};

class Selector;

/// How a member of some type is read, written and described. Stateless, one object a type.
class OptionType {
 public:
  virtual ~OptionType() = default;
  /// Reads into `member`; what does not fit is added to `problems` at `where`.
  virtual void read(const Json& json, const std::string& where, void* member,
                    Problems& problems) const = 0;
  /// The canonical JSON of a member.
  virtual Json write(const void* member) const = 0;
  /// Its JSON schema (draft 2020-12), without range and description.
  virtual Json schema() const = 0;
  /// For help: `number`, `tensor | layer | model`.
  virtual std::string name() const = 0;
};

namespace detail {

const OptionType& option_type(const bool*);
const OptionType& option_type(const int*);
const OptionType& option_type(const int64_t*);
const OptionType& option_type(const double*);
const OptionType& option_type(const std::string*);
const OptionType& option_type(const Granularity*);
const OptionType& option_type(const Selector*);

class EnumType final : public OptionType {
 public:
  using Get = size_t (*)(const void*);
  using Set = void (*)(void*, size_t);
  EnumType(std::vector<std::string_view> names, Get get, Set set);
  void read(const Json&, const std::string&, void*, Problems&) const override;
  Json write(const void* member) const override;
  Json schema() const override;
  std::string name() const override;

 private:
  std::vector<std::string_view> names_;
  Get get_;
  Set set_;
};

template <class E, class = std::enable_if_t<std::is_enum_v<E>>>
const OptionType& option_type(const E*) {
  static const EnumType type(
      option_names(E{}), [](const void* member) { return size_t(*static_cast<const E*>(member)); },
      [](void* member, size_t value) { *static_cast<E*>(member) = static_cast<E>(value); });
  return type;
}

class ListType final : public OptionType {
 public:
  using Size = size_t (*)(const void*);
  using At = const void* (*)(const void*, size_t);
  using Resize = void* (*)(void*, size_t);  // resizes and returns the address of the last element
  ListType(const OptionType& element, Size size, At at, Resize resize);
  void read(const Json&, const std::string&, void*, Problems&) const override;
  Json write(const void* member) const override;
  Json schema() const override;
  std::string name() const override;

 private:
  const OptionType& element_;
  Size size_;
  At at_;
  Resize resize_;
};

template <class T>
const OptionType& option_type(const std::vector<T>*) {
  using List = std::vector<T>;
  static const ListType type(
      option_type(static_cast<const T*>(nullptr)),
      [](const void* list) { return static_cast<const List*>(list)->size(); },
      [](const void* list, size_t i) -> const void* {
        return &(*static_cast<const List*>(list))[i];
      },
      [](void* list, size_t size) -> void* {
        static_cast<List*>(list)->resize(size);
        return size == 0 ? nullptr : &static_cast<List*>(list)->back();
      });
  return type;
}

}  // namespace detail

/// One option of an options struct.
struct Field {
  std::string name;  ///< equals the member's name
  std::string help;  ///< a sentence
  void* member = nullptr;
  const OptionType* type = nullptr;
  std::optional<double> minimum, maximum;  ///< of a number, or of every number of a list

  Field& range(double low, double high) {
    minimum = low;
    maximum = high;
    return *this;
  }
  Field& at_least(double low) {
    minimum = low;
    return *this;
  }
  /// The member when it is a selector, else null.
  const Selector* selector() const;
};

/// The visitor that the `visit` of an options struct gets.
class FieldList {
 public:
  template <class T>
  Field& operator()(std::string name, T& member, std::string help) {
    using detail::option_type;  // a type of another room brings its own beside it
    const OptionType& type = option_type(static_cast<const T*>(&member));
    fields_.push_back(Field{std::move(name), std::move(help), &member, &type, {}, {}});
    return fields_.back();
  }
  std::vector<Field> take() { return std::move(fields_); }

 private:
  std::vector<Field> fields_;
};

/// The options of one step, whatever their struct.
class AnyOptions {
 public:
  virtual ~AnyOptions() = default;
  /// The options in declared order; pointers into this object.
  virtual std::vector<Field> fields() = 0;
  /// Rules between options.
  virtual void validate(Problems& problems) const = 0;
  virtual std::unique_ptr<AnyOptions> clone() const = 0;
};

template <class Options>
class OptionsOf final : public AnyOptions {
 public:
  Options value;

  std::vector<Field> fields() override {
    FieldList list;
    value.visit(list);
    return list.take();
  }
  void validate(Problems& problems) const override {
    if constexpr (requires { value.validate(problems); }) value.validate(problems);
  }
  std::unique_ptr<AnyOptions> clone() const override { return std::make_unique<OptionsOf>(*this); }
};

/// Reads `object` into `options`: unknown keys, wrong types, values out of range and the struct's
/// own rules become problems under the JSON pointer `where`. Keys in `skip` are someone else's.
void read_options(const Json& object, const std::string& where, AnyOptions& options,
                  Problems& problems, const std::vector<std::string>& skip = {});

enum class WriteOptions { kAll, kChanged };
/// The options as a JSON object in declared order; kChanged leaves out what equals `defaults`.
Json write_options(const AnyOptions& options, const AnyOptions& defaults,
                   WriteOptions which = WriteOptions::kAll);

/// JSON schema of the options object; `properties` that come first can be added by the caller.
Json options_schema(const AnyOptions& defaults);
/// Plain text for the terminal: one option a paragraph, with type, range and default.
std::string options_help(const AnyOptions& defaults);
/// The same as a Markdown table.
std::string options_table(const AnyOptions& defaults);

/// JSON as one line of the shell: `{sparsity=0.5,where={kind=conv}}`; strings are bare words where
/// they can be.
std::string line_value(const Json& value);

}  // namespace compress
