// The tensors of a .pt2 archive: payloads mapped from the file, or the nested checkpoints of old
// files.

#include "compress/io/pt2_weights.h"

#include "compress/error.h"
#include "compress/io/pickle.h"
#include "compress/io/pt2_types.h"

#include <c10/core/Storage.h>

#include <fmt/format.h>

#include <algorithm>

namespace compress::pt2 {
namespace {

bool can_require_grad(c10::ScalarType dtype) {
  return c10::isFloatingType(dtype) || c10::isComplexType(dtype);
}

// The part in front of `/data.pkl` of a checkpoint's entries.
std::string checkpoint_root(const ZipReader& zip) {
  constexpr std::string_view kPickle = "data.pkl";
  for (const ZipEntry& entry : zip.entries()) {
    if (!std::string_view(entry.name).ends_with(kPickle)) continue;
    return entry.name.substr(0, entry.name.size() - kPickle.size());
  }
  throw Error(ErrorCode::kBadFile, "no data.pkl inside, expected a file of torch.save",
              zip.file()->name());
}

}  // namespace

void Payloads::add_config(const ZipReader& zip, const std::string& folder,
                          const JsonDocument& config) {
  std::map<std::string, at::Storage> storages;
  for (const auto& [name, payload] : JsonCursor(config)["config"].members()) {
    if (payload.has("use_pickle") && payload["use_pickle"].boolean()) {
      tensors_[name] = {{}, "is a pickled Python object, which Lathe does not read"};
      continue;
    }
    const JsonCursor meta = payload["tensor_meta"];
    const TensorView view = read_tensor_view(meta);
    const std::string& path = payload["path_name"].string();
    auto storage = storages.find(path);
    if (storage == storages.end()) {
      const ZipEntry* entry = zip.find(folder + path);
      if (entry == nullptr) payload.fail(fmt::format("the archive has no {}{}", folder, path));
      storage = storages.emplace(path, zip.storage(*entry, c10::elementSize(view.dtype))).first;
    }
    at::Tensor tensor = view_storage(storage->second, view, meta.where());
    const bool trained = payload.has("is_param") && payload["is_param"].boolean() &&
                         meta.has("requires_grad") && meta["requires_grad"].boolean();
    tensor.set_requires_grad(trained && can_require_grad(view.dtype));
    tensors_[name] = {std::move(tensor), {}};
  }
}

void Payloads::add_checkpoint(const ZipReader& zip, const ZipEntry& outer) {
  if (outer.size == 0) return;
  const ZipReader inner(MappedFile::from_bytes(zip.read(outer), zip.where(outer)));
  const std::string root = checkpoint_root(inner);
  const ZipEntry& entry = inner.at(root + "data.pkl");
  const Pickle pickle = read_pickle(inner.read(entry), inner.where(entry));
  if (!pickle.root.is(Pickle::Kind::kDict)) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("found {}, expected a dict of tensors", pickle.describe(pickle.root)),
                inner.where(entry));
  }
  std::map<std::string, at::Storage> storages;
  const std::vector<PickleValue>& items = pickle.items(pickle.root);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (!items[i].is(Pickle::Kind::kString)) continue;
    const std::string name(pickle.text(items[i]));
    if (!items[i + 1].is(Pickle::Kind::kTensor)) {
      tensors_[name] = {{}, fmt::format("is {}, not a tensor", pickle.describe(items[i + 1]))};
      continue;
    }
    const PickleTensor& stored = pickle.tensor(items[i + 1]);
    const PickleStorage& place = pickle.storages[stored.storage];
    auto storage = storages.find(place.key);
    if (storage == storages.end()) {
      const ZipEntry& data = inner.at(root + "data/" + place.key);
      storage = storages.emplace(place.key, inner.storage(data)).first;
    }
    tensors_[name] = {view_storage(storage->second, stored.view, inner.where(entry)), {}};
  }
}

at::Tensor Payloads::at(const std::string& name, const JsonCursor& asker) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    asker.fail(fmt::format("the archive has no tensor `{}`", name));
  }
  if (!found->second.tensor.defined()) {
    throw Error(ErrorCode::kUnsupported, fmt::format("`{}` {}", name, found->second.problem),
                asker.where());
  }
  return found->second.tensor;
}

}  // namespace compress::pt2
