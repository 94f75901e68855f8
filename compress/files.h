// Models from files and into files, whatever the format.

#pragma once

#include "compress/model.h"

#include <filesystem>
#include <string>
#include <vector>

namespace compress {

struct LoadOptions {
  /// An architecture of the zoo (`resnet20`, `nanogpt{layers=4}`) for files that hold weights only.
  /// Empty: such a file becomes a bare set of tensors.
  std::string architecture;
};

/// Reads a model. `source` is the path of a .pt2, .pth, .pt, .th, .tar, .safetensors, .safetensors
/// index or text-form (.lathe.txt) file, `-` for standard input, or `zoo:NAME` for a fresh network.
///
/// The content decides the format, not the name. A .safetensors file that Lathe wrote holds its
/// graph; a bare state_dict has none, and `Model::notes` says which architectures of the zoo would
/// fit. An .onnx file is refused. Throws Error(kIo), Error(kBadFile), Error(kUnsupported), and
/// Error(kInvalidArgument) for weights that do not fit the architecture.
Model load_model(const std::string& source, const LoadOptions& options = {});

/// Writes a model; the extension decides the format: .pt2, .safetensors, .onnx, or .lathe.txt (the
/// text form, large tensors as digests). The file appears whole or not at all. Returns what the
/// reader of the file should know, a sentence each. Throws Error(kInvalidArgument) for another
/// extension.
///
/// .safetensors is written for other programs: masks become zeros, quantized weights take the
/// layout of compressed-tensors. The file holds all that is needed to read it; beside one named
/// `model.safetensors` goes the config.json that transformers and vLLM look for, unless there is
/// one that is not Lathe's.
std::vector<std::string> save_model(const Model& model, const std::filesystem::path& path);

/// Writes and reads a model exactly as it is in memory, every tensor under its own name with the
/// graph beside it (.safetensors): `model_digest` is the same before and after.
void save_checkpoint(const Model& model, const std::filesystem::path& path);
Model load_checkpoint(const std::filesystem::path& path);

/// Bytes on disk of a model: the file, its shards if it is an index of them, and the config.json
/// beside it if it cannot be read without.
int64_t model_file_bytes(const std::filesystem::path& path);

/// Throws what `save_model` would throw for the path, before any work is done: an extension that is
/// not known, a folder that is missing or cannot be written, a folder in the place of the file.
void check_save_path(const std::filesystem::path& path);

/// The same, and what it would throw for the model: operators that ONNX has no word for.
void check_save(const Model& model, const std::filesystem::path& path);

}  // namespace compress
