// How the zoo describes an architecture to itself.

#pragma once

#include "compress/graph/builder.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace compress::zoo {

/// The numbers that an architecture can be built with (`classes`, `layers`), in a fixed order.
class Parameters {
 public:
  using List = std::vector<std::pair<std::string, int64_t>>;

  Parameters(List list) : list_(std::move(list)) {}

  /// The number called `name`, which the family must have declared.
  int64_t operator[](std::string_view name) const;
  void set(std::string_view name, int64_t number);
  /// Sets `name` if there is a number to set it to.
  void set(std::string_view name, std::optional<int64_t> number) {
    if (number) set(name, *number);
  }
  bool contains(std::string_view name) const;
  std::vector<std::string> names() const;
  const List& list() const { return list_; }

 private:
  List list_;
};

/// The sizes of a file's tensors, asked for by the architecture's own names.
class Shapes {
 public:
  using Map = std::map<std::string, std::vector<int64_t>>;

  Shapes(const Map& sizes, const GraphBuilder::Renames& renames)
      : sizes_(sizes), renames_(renames) {}

  bool contains(const std::string& name) const { return find(name) != nullptr; }
  /// Size of dimension `dim` of the tensor, if it is there.
  std::optional<int64_t> dim(const std::string& name, size_t dim) const;
  /// How many of `front + "0" + back`, `front + "1" + back`, ... there are in a row.
  std::optional<int64_t> count(const std::string& front, const std::string& back) const;

 private:
  const std::vector<int64_t>* find(const std::string& name) const;

  const Map& sizes_;
  const GraphBuilder::Renames& renames_;
};

/// The key names of one repository, as replacements in the architecture's own names.
struct Dialect {
  std::string name;
  GraphBuilder::Renames renames;
};

/// Architectures that differ in numbers only.
struct Family {
  /// Writes the graph and returns its outputs.
  std::vector<Output> (*build)(GraphBuilder& net, const Parameters& parameters);
  /// Reads the numbers that show in the sizes of a file's tensors.
  void (*infer)(const Shapes& shapes, Parameters& parameters);
  /// At least one; the first has no replacements.
  std::vector<Dialect> dialects;
};

struct Architecture {
  std::string name;
  std::string summary;
  Family family;
  Parameters::List parameters;  ///< with their defaults; a user may set them
  Parameters::List fixed = {};  ///< what tells the architecture from others of the family
};

/// Every architecture, in the order in which they are listed.
std::vector<Architecture> architectures();
/// The architecture called `name`; throws Error(kInvalidArgument) with the nearest name.
Architecture find_architecture(std::string_view name);

/// What `name{classes=100,keys=timm}` means.
struct Spec {
  Architecture architecture;
  Parameters::List given;
  std::optional<std::string> keys;  ///< a dialect's name
  uint64_t seed = 0;                ///< of the fresh weights
};
/// Throws Error(kInvalidArgument) for an unknown name, parameter or dialect.
Spec parse_spec(std::string_view text);

/// The numbers of the architecture before anybody has changed one.
Parameters default_parameters(const Architecture& architecture);

/// Writes the graph. Throws Error(kInvalidArgument) for numbers that make no network.
Blueprint blueprint(const Architecture& architecture, const Parameters& parameters,
                    const Dialect& dialect);

Family cifar_resnet_a();  // cifar_resnet.cpp
Family cifar_resnet_b();
Family vgg();  // vgg.cpp
Family vgg_three_linear();
Family resnet();        // resnet.cpp
Family mobilenet_v2();  // mobilenet_v2.cpp
Family densenet();      // densenet.cpp
Family wide_resnet();   // wide_resnet.cpp
Family lenet5();        // lenet.cpp
Family lenet5_caffe();
Family lenet_300_100();
Family gpt2();  // gpt.cpp
Family nanogpt();
Family bert();  // bert.cpp
Family bert_classifier();
Family vit();  // vit.cpp

}  // namespace compress::zoo
