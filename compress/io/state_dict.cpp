// Named tensors out of whatever file people keep them in.

#include "compress/io/state_dict.h"

#include "compress/error.h"
#include "compress/io/checkpoint_search.h"
#include "compress/io/safetensors.h"
#include "compress/io/tensor_view.h"
#include "compress/io/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_set>

namespace compress {
namespace {

// What people hand over by mistake, by how it begins.
struct Impostor {
  std::string_view start, what, hint;
};
constexpr std::array<Impostor, 13> kImpostors = {{
    {"version https://git-lfs", "is a Git LFS pointer, not the file itself", "run `git lfs pull`"},
    {"<", "is a web page or XML, not weights",
     "the download needed a login or another address; fetch it again"},
    {"\x1f\x8b", "is compressed with gzip", "unpack it first (`gunzip`)"},
    {"\xfd"
     "7zXZ",
     "is compressed with xz", "unpack it first (`unxz`)"},
    {"BZh", "is compressed with bzip2", "unpack it first (`bunzip2`)"},
    {"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it first (`unzstd`)"},
    {"7z\xbc\xaf", "is a 7z archive", "unpack it first"},
    {"GGUF", "is a GGUF file", "use the model's safetensors files"},
    {"\x89HDF", "is an HDF5 file (Keras)", "save the weights from PyTorch or as safetensors"},
    {"\x93NUMPY", "is a NumPy array", "save the weights as safetensors"},
    {"\x89PNG", "is an image", "name a file of weights"},
    {"\xff\xd8\xff", "is an image", "name a file of weights"},
    {"\x7f"
     "ELF",
     "is a program or library", "name a file of weights"},
}};

Error refusal(const MappedFile& file) {
  const std::string_view start = file.text(0, std::min<uint64_t>(file.size(), 512));
  const auto error = [&](std::string_view what, std::string_view hint) {
    return Error(ErrorCode::kUnsupported, std::string(what), file.name(), std::string(hint));
  };
  for (const Impostor& impostor : kImpostors) {
    if (start.starts_with(impostor.start)) return error(impostor.what, impostor.hint);
  }
  if (start.size() >= 262 && start.substr(257, 5) == "ustar") {
    return error(
        "is a tar archive: a torch.save file from before PyTorch 0.2, or a packed checkpoint",
        "unpack it, or save it again with a current PyTorch");
  }
  if (std::all_of(start.begin(), start.end(), [](char c) { return c == '\0'; })) {
    return error("begins with zeros only", "an unfinished download or copy; fetch it again");
  }
  return error("is no file of weights that Lathe knows",
               "expected .pt2, torch.save (.pth, .pt), .safetensors or a .safetensors.index.json");
}

// Wrappers of torch.nn.DataParallel and torch.compile, which are no part of the model.
void strip_prefixes(StateDict& state) {
  constexpr std::array<std::string_view, 2> kPrefixes = {"module.", "_orig_mod."};
  if (state.tensors.empty()) return;  // all names of none have every prefix, for ever
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view prefix : kPrefixes) {
      const bool everywhere =
          std::all_of(state.tensors.begin(), state.tensors.end(), [&](const auto& entry) {
            return entry.first.size() > prefix.size() && entry.first.starts_with(prefix);
          });
      if (!everywhere) continue;
      for (auto& entry : state.tensors) entry.first.erase(0, prefix.size());
      state.notes.push_back(
          fmt::format("removed the prefix `{}` from {} names", prefix, state.tensors.size()));
      again = true;
    }
  }
}

// torch.compile of a part of a model leaves its mark in the middle of names.
void strip_compiled_parts(StateDict& state) {
  constexpr std::string_view kMark = "_orig_mod.";
  std::vector<std::string> names;
  std::unordered_set<std::string> unique;
  size_t changed = 0;
  for (const auto& entry : state.tensors) {
    std::string name = entry.first;
    for (size_t at = name.find(kMark); at != name.npos; at = name.find(kMark, at)) {
      if (at == 0 || name[at - 1] == '.') {
        name.erase(at, kMark.size());
      } else {
        at += kMark.size();
      }
    }
    changed += name != entry.first;
    unique.insert(name);
    names.push_back(std::move(name));
  }
  if (changed == 0 || unique.size() != names.size()) return;
  for (size_t i = 0; i < names.size(); ++i) state.tensors[i].first = std::move(names[i]);
  state.notes.push_back(fmt::format("removed `{}` from inside {} names", kMark, changed));
}

void finish(StateDict& state) {
  strip_prefixes(state);
  strip_compiled_parts(state);
  std::vector<at::Tensor> values;
  for (const auto& entry : state.tensors) values.push_back(entry.second);
  const std::vector<size_t> first = first_of_ties(values);
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i] == i) continue;
    state.ties.emplace_back(state.tensors[i].first, state.tensors[first[i]].first);
  }
  if (!state.ties.empty()) {
    state.notes.push_back(fmt::format("{} names are tied to others, such as `{}` to `{}`",
                                      state.ties.size(), state.ties[0].first,
                                      state.ties[0].second));
  }
}

bool is_json_object(const MappedFile& file) {
  const std::string_view start = file.text(0, std::min<uint64_t>(file.size(), 512));
  const size_t first = start.find_first_not_of(" \t\r\n");
  return first != start.npos && start[first] == '{';
}

StateDict load_shards(const std::filesystem::path& index) {
  StateDict state;
  state.format = "sharded safetensors";
  state.tensors = load_sharded_safetensors(index, &state.metadata);
  finish(state);
  return state;
}

}  // namespace

const at::Tensor* StateDict::find(std::string_view name) const {
  for (const auto& entry : tensors) {
    if (entry.first == name) return &entry.second;
  }
  return nullptr;
}

StateDict load_state_dict(const std::shared_ptr<MappedFile>& file) {
  StateDict state;
  const std::string_view start = file->text(0, std::min<uint64_t>(file->size(), 4));
  // Safetensors first: its header size may begin with any bytes.
  if (is_safetensors(*file)) {
    const SafetensorsFile safetensors(file);
    state.tensors = safetensors.tensors();
    state.metadata = safetensors.metadata();
    state.format = "safetensors";
  } else if (start.starts_with("PK")) {
    state = detail::find_state_dict(TorchFile(file), file->name());
    state.format = "torch.save (zip)";
  } else if (start.starts_with('\x80')) {
    state = detail::find_state_dict(TorchFile(file), file->name());
    state.format = "torch.save (legacy)";
  } else {
    throw refusal(*file);
  }
  finish(state);
  return state;
}

StateDict load_state_dict(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    for (const char* name : {"model.safetensors.index.json", "model.safetensors",
                             "diffusion_pytorch_model.safetensors", "pytorch_model.bin"}) {
      if (!std::filesystem::exists(path / name, ignored)) continue;
      throw Error(ErrorCode::kIo, "is a folder, not a file", path.string(),
                  fmt::format("did you mean `{}`?", (path / name).string()));
    }
  }
  const auto file = MappedFile::open(path);
  if (!is_safetensors(*file) && is_json_object(*file)) return load_shards(path);
  return load_state_dict(file);
}

}  // namespace compress
