// The tensors of a .pt2 archive: payloads mapped from the file, or the nested checkpoints of old
// files.

#include "compress/io/pt2_weights.h"

#include "compress/error.h"
#include "compress/io/pt2_types.h"
#include "compress/io/torch_file.h"

#include <c10/core/Storage.h>

#include <fmt/format.h>

namespace compress::pt2 {
namespace {

bool can_require_grad(c10::ScalarType dtype) {
  return c10::isFloatingType(dtype) || c10::isComplexType(dtype);
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
    at::Tensor tensor;
    try {
      tensor = view_storage(storage->second, view, {});
    } catch (const Error& error) {  // to find the place of each takes far longer than to read it
      throw Error(error.code(), error.message(), meta.where(), error.hint());
    }
    const bool trained = payload.has("is_param") && payload["is_param"].boolean() &&
                         meta.has("requires_grad") && meta["requires_grad"].boolean();
    tensor.set_requires_grad(trained && can_require_grad(view.dtype));
    tensors_[name] = {std::move(tensor), {}};
  }
}

void Payloads::add_checkpoint(const ZipReader& zip, const ZipEntry& entry) {
  if (entry.size == 0) return;
  const std::string place = zip.where(entry);
  const TorchFile file(MappedFile::from_bytes(zip.read(entry), place));
  const Pickle& pickle = file.pickle();
  if (!file.root().is(Pickle::Kind::kDict)) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("found {}, expected a dict of tensors", pickle.describe(file.root())),
                place);
  }
  const std::vector<PickleValue>& items = pickle.items(file.root());
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (!items[i].is(Pickle::Kind::kString)) continue;
    Payload& payload = tensors_[std::string(pickle.text(items[i]))];
    if (items[i + 1].is(Pickle::Kind::kTensor)) {
      payload = {file.tensor(items[i + 1]), {}};
    } else {
      payload = {{}, fmt::format("is {}, not a tensor", pickle.describe(items[i + 1]))};
    }
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
