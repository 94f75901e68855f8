// From labels to units and groups. Private to analyse.

#pragma once

#include "compress/graph/channels.h"
#include "compress/graph/channels_propagate.h"

#include <optional>

namespace compress {

class ChannelGrouping {
 public:
  ChannelGrouping(const Model& model, PropagatedChannels channels);

  ChannelGroups run();

 private:
  struct Occurrence {
    int32_t product, factor, index;
  };
  using Counts = std::vector<std::pair<int32_t, int64_t>>;  // array, indices that go

  ChannelClass class_of(Label label);
  int32_t add_array(const Labels& labels);
  void number_classes();
  void list_places();
  void list_products();
  void list_frozen();
  void find_units();
  bool take(ChannelClass channel, std::vector<ChannelClass>& taken);
  std::optional<std::vector<ChannelClass>> closure(ChannelClass seed);
  bool force_a_factor(ChannelClass channel, std::vector<ChannelClass>& taken);
  template <class Visit>
  void each_flat(const Occurrence& at, Visit&& visit) const;
  Counts count(const std::vector<ChannelClass>& classes);
  bool lie_alike(ChannelClass a, ChannelClass b) const;
  ChannelGroup describe(const Counts& counts) const;
  std::string text(const ChannelReason& reason) const;

  const Model& model_;
  PropagatedChannels channels_;
  ChannelGroups result_;
  std::unordered_map<const std::vector<Label>*, int32_t> array_of_;
  std::vector<ChannelClass> class_of_root_;
  std::vector<Label> root_of_class_;
  std::vector<std::vector<Occurrence>> as_factor_;  // by class
  std::vector<std::vector<Occurrence>> as_flat_;    // by class; `index` is that of the product
  std::vector<ChannelClass> taken_for_;             // by class: the seed that took it last
  std::vector<int64_t> gone_of_array_;              // of one unit, zero between two
};

}  // namespace compress
