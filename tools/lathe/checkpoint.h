// Finished steps of a run on disk, so that a killed run can go on.

#pragma once

#include "compress/model.h"
#include "compress/run_state.h"

#include <filesystem>
#include <optional>

namespace lathe {

/// A folder `<output>.resume` with the model after the last finished step and the state of the run.
/// Model first, state last, each written aside and renamed: whenever the run dies, the state names
/// a model that is whole.
class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& output);

  struct Saved {
    compress::RunState state;
    compress::Model model;
  };
  /// The saved run, if there is one. Throws compress::Error if it is damaged, or, saying which has
  /// changed, if it is not of this recipe and input model.
  std::optional<Saved> load(const compress::Recipe& recipe, const std::string& input_digest) const;
  void save(const compress::Model& model, const compress::RunState& state) const;
  /// Whether there is anything to go on from.
  bool exists() const;
  /// Once the run is done.
  void remove() const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path model_file(size_t steps) const;
  std::filesystem::path state_file() const { return folder_ / "state.json"; }
  std::filesystem::path folder_;
};

}  // namespace lathe
