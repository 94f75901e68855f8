// Finished steps of a run on disk, so that a killed run can go on.

#include "tools/lathe/checkpoint.h"

#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/digest.h"
#include "compress/io/atomic_file.h"
#include "compress/io/mapped_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lathe {

namespace fs = std::filesystem;

namespace {

// A state that is no JSON is a damaged file, not a wrong command.
compress::Json parse(const compress::MappedFile& file) {
  try {
    return compress::parse_json(file.text(0, file.size()), file.name());
  } catch (const compress::Error& error) {
    throw compress::Error(compress::ErrorCode::kBadFile, error.message(), error.where(),
                          "the checkpoint is damaged; start anew without --resume");
  }
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& output) : folder_(output.string() + ".resume") {}

fs::path Checkpoint::model_file(size_t steps) const {
  return folder_ / fmt::format("after-{}-steps.safetensors", steps);
}

bool Checkpoint::exists() const { return fs::exists(state_file()); }

std::optional<Checkpoint::Saved> Checkpoint::load(const compress::Recipe& recipe,
                                                  const std::string& input_digest) const {
  if (!exists()) return std::nullopt;
  const auto file = compress::MappedFile::open(state_file());
  compress::RunState state = compress::read_run_state(parse(*file), state_file().string());
  compress::Model model = compress::load_checkpoint(model_file(state.finished()));
  compress::require_resumable(state, recipe, input_digest, compress::model_digest(model));
  return Saved{std::move(state), std::move(model)};
}

void Checkpoint::save(const compress::Model& model, const compress::RunState& state) const {
  std::error_code failed;
  fs::create_directory(folder_, failed);
  if (failed) throw compress::Error(compress::ErrorCode::kIo, failed.message(), folder_.string());
  compress::save_checkpoint(model, model_file(state.finished()));
  compress::write_file(state_file(), compress::run_state_json(state).dump(2) + "\n");
  for (size_t older = 0; older < state.finished(); ++older) fs::remove(model_file(older), failed);
}

void Checkpoint::remove() const {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace lathe
