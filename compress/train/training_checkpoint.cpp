// A training run on disk, whole, so that it can be killed at any moment.

#include "compress/train/training_checkpoint.h"

#include "compress/error.h"
#include "compress/files.h"
#include "compress/io/atomic_file.h"
#include "compress/io/mapped_file.h"
#include "compress/io/safetensors.h"

#include <fmt/format.h>

namespace compress {

namespace fs = std::filesystem;

namespace {

constexpr const char* kStateKey = "lathe.training";

std::string model_name(int64_t step) { return fmt::format("training-{}.model.safetensors", step); }
std::string state_name(int64_t step) { return fmt::format("training-{}.state.safetensors", step); }

[[noreturn]] void damaged(const fs::path& file, const std::string& what) {
  throw Error(ErrorCode::kBadFile, fmt::format("not the checkpoint of a training run: {}", what),
              file.string(), "start anew without --resume");
}

int64_t read_pointer(const fs::path& path) {
  const auto file = MappedFile::open(path);
  const Json json = Json::parse(file->text(0, file->size()), nullptr, false);
  if (json.is_discarded() || !json.is_object() || !json.contains("step") ||
      !json["step"].is_number_unsigned()) {
    damaged(path, "no step");
  }
  return json["step"].get<int64_t>();
}

TrainingSnapshot read_state(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto text = file.metadata().find(kStateKey);
  if (text == file.metadata().end()) damaged(path, fmt::format("no {}", kStateKey));
  TrainingSnapshot snapshot;
  try {
    const Json json = Json::parse(text->second);
    snapshot.key = json.at("key").get<std::string>();
    snapshot.threads = json.at("threads").get<int>();
    snapshot.step = json.at("step").get<int64_t>();
    snapshot.epoch = json.at("epoch").get<int64_t>();
    snapshot.batch = json.at("batch").get<int64_t>();
    snapshot.log_bytes = json.at("log_bytes").get<int64_t>();
    snapshot.figures = json.at("figures");
  } catch (const Json::exception& error) {
    damaged(path, error.what());
  }
  // Copies: the file goes as soon as the next checkpoint is there.
  for (const auto& [name, tensor] : file.tensors()) snapshot.tensors[name] = tensor.clone();
  return snapshot;
}

}  // namespace

std::map<std::string, at::Tensor> TrainingSnapshot::part(const std::string& name) const {
  const std::string prefix = name + "/";
  std::map<std::string, at::Tensor> found;
  for (const auto& [full, tensor] : tensors) {
    if (full.starts_with(prefix)) found.emplace(full.substr(prefix.size()), tensor);
  }
  return found;
}

void TrainingSnapshot::add_part(const std::string& name,
                                const std::map<std::string, at::Tensor>& part) {
  for (const auto& [inner, tensor] : part) tensors[name + "/" + inner] = tensor;
}

std::optional<TrainingCheckpoints::Saved> TrainingCheckpoints::load(const std::string& key,
                                                                    int threads) const {
  if (!fs::exists(pointer())) return std::nullopt;
  const int64_t step = read_pointer(pointer());
  Saved saved{read_state(folder_ / state_name(step)), load_checkpoint(folder_ / model_name(step))};
  const std::string hint = "start without --resume, or undo the change";
  if (saved.snapshot.key != key) {
    throw Error(ErrorCode::kInvalidArgument,
                "the checkpoint is of a training with another recipe, data, seed or model",
                pointer().string(), hint);
  }
  if (saved.snapshot.threads != threads) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("the training began with {} threads and cannot go on with {}: gradients "
                    "would differ in their last bits",
                    saved.snapshot.threads, threads),
        pointer().string(), fmt::format("use --threads {}", saved.snapshot.threads));
  }
  return saved;
}

void TrainingCheckpoints::save(const Model& model, const TrainingSnapshot& snapshot) const {
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (failed) throw Error(ErrorCode::kIo, failed.message(), folder_.string());
  save_checkpoint(model, folder_ / model_name(snapshot.step));
  const Json state = {{"key", snapshot.key},        {"threads", snapshot.threads},
                      {"step", snapshot.step},      {"epoch", snapshot.epoch},
                      {"batch", snapshot.batch},    {"log_bytes", snapshot.log_bytes},
                      {"figures", snapshot.figures}};
  NamedTensors tensors;
  for (const auto& [name, tensor] : snapshot.tensors) {
    tensors.emplace_back(name, tensor.detach().cpu().contiguous());
  }
  save_safetensors(folder_ / state_name(snapshot.step), tensors, {{kStateKey, state.dump()}});
  write_file(pointer(), Json{{"step", snapshot.step}}.dump() + "\n");
  remove_but(snapshot.step);
}

void TrainingCheckpoints::remove_but(int64_t step) const {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("training-") && name != model_name(step) && name != state_name(step)) {
      fs::remove(entry.path(), ignored);
    }
  }
}

void TrainingCheckpoints::remove() const {
  std::error_code ignored;
  fs::remove(pointer(), ignored);  // first: it must not name files that are gone
  remove_but(-1);
}

}  // namespace compress
