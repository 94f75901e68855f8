// Files of torch.save: the zip layout (PyTorch 1.6 and later) and the legacy one before it.
//
// Zip: <root>/data.pkl, <root>/data/<key> with the bytes of each storage, <root>/byteorder.
// Legacy: five pickles (magic number, protocol, system, the object, storage keys), then for each
// key its number of elements (8 bytes) and its bytes.

#include "compress/io/torch_file.h"

#include "compress/error.h"
#include "compress/io/little_endian.h"
#include "compress/io/tensor_view.h"
#include "compress/io/zip.h"

#include <fmt/format.h>

#include <unordered_map>
#include <utility>

namespace compress {
namespace {

using Kind = PickleValue::Kind;

// 0x1950a86a20f9469cfc6c, little-endian.
constexpr std::string_view kLegacyMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
constexpr int64_t kLegacyProtocol = 1001;

Error refused(const MappedFile& file, std::string message, std::string hint) {
  return Error(ErrorCode::kUnsupported, std::move(message), file.name(), std::move(hint));
}

// Bytes of `numel` elements; the product is checked against what the file has before it is used.
uint64_t storage_bytes(const MappedFile& file, const PickleStorage& storage) {
  const auto numel = static_cast<uint64_t>(storage.numel);
  if (numel > file.size() * uint64_t{1032}) {
    throw file.damaged(fmt::format("storage `{}` claims {} elements", storage.key, numel));
  }
  return numel * c10::elementSize(storage.dtype);
}

// Finds <root>/data.pkl, and refuses archives of other kinds by name.
std::string find_root(const ZipReader& zip) {
  std::string root;
  bool found = false;
  for (const ZipEntry& entry : zip.entries()) {
    const size_t slash = entry.name.find('/');
    const std::string_view inner =
        slash == entry.name.npos ? entry.name : std::string_view(entry.name).substr(slash + 1);
    if (inner == "constants.pkl" || inner.starts_with("code/")) {
      throw refused(
          *zip.file(), "is a TorchScript archive",
          "load it in Python and save its `state_dict()`, or export it with torch.export");
    }
    if (inner == "models/model.json" || inner == "archive_format" ||
        inner == "serialized_exported_program.json") {
      throw refused(*zip.file(), "is an exported program (.pt2), not a state_dict",
                    "load it as a model");
    }
    if (inner == "data.pkl") {
      root = entry.name.substr(0, entry.name.size() - inner.size());
      found = true;
    }
  }
  if (!found) {
    throw refused(*zip.file(), "is a zip archive, but none of torch.save (it has no `data.pkl`)",
                  "unpack it, if it holds the checkpoint");
  }
  return root;
}

}  // namespace

bool is_legacy_torch_file(const MappedFile& file) {
  const std::string_view start = file.text(0, std::min<uint64_t>(file.size(), 64));
  return start.starts_with('\x80') && start.find(kLegacyMagic) != start.npos;
}

TorchFile::TorchFile(const std::shared_ptr<MappedFile>& file) : name_(file->name()) {
  const std::string_view start = file->text(0, std::min<uint64_t>(file->size(), 2));
  if (start == "PK") {
    read_zip(file);
  } else {
    read_legacy(file);
  }
}

void TorchFile::read_zip(const std::shared_ptr<MappedFile>& file) {
  const ZipReader zip(file);
  const std::string root = find_root(zip);
  if (const ZipEntry* order = zip.find(root + "byteorder");
      order != nullptr && zip.read(*order) != "little") {
    throw refused(*file, fmt::format("has byte order `{}`, expected `little`", zip.read(*order)),
                  "save it again on a little-endian machine");
  }
  const ZipEntry& entry = zip.at(root + "data.pkl");
  pickle_ = read_pickle(zip.read(entry), zip.where(entry));
  std::unordered_map<std::string_view, at::Storage> by_key;
  for (const PickleStorage& storage : pickle_.storages) {
    auto found = by_key.find(storage.key);
    if (found == by_key.end()) {
      const ZipEntry& data = zip.at(root + "data/" + storage.key);
      found = by_key.emplace(storage.key, zip.storage(data)).first;
    }
    const uint64_t needed = storage_bytes(*file, storage);
    if (needed > found->second.nbytes()) {
      throw file->damaged(fmt::format("storage `{}` has {} bytes, expected {}", storage.key,
                                      found->second.nbytes(), needed));
    }
    storages_.push_back(found->second);
  }
}

void TorchFile::read_legacy(const std::shared_ptr<MappedFile>& file) {
  uint64_t at = 0;
  const auto next = [&](const char* what) {
    const std::string where = fmt::format("{}: {} (from byte {})", file->name(), what, at);
    Pickle pickle = read_pickle(file->text(at, file->size() - at), where);
    at += pickle.size_bytes;
    return pickle;
  };
  const Pickle magic = next("magic number");
  if (!magic.root.is(Kind::kBytes) || magic.text(magic.root) != kLegacyMagic) {
    throw refused(*file, "is a Python pickle, but not one of torch.save",
                  "save it again with `torch.save(model.state_dict(), ...)`");
  }
  const Pickle protocol = next("protocol");
  if (!protocol.root.is(Kind::kInt) || protocol.root.integer != kLegacyProtocol) {
    throw refused(*file,
                  fmt::format("has an unknown torch.save protocol, expected {}", kLegacyProtocol),
                  "save it again with a current PyTorch");
  }
  const Pickle system = next("system");
  const auto little = system.get(system.root, "little_endian");
  if (little && little->is(Kind::kBool) && little->integer == 0) {
    throw refused(*file, "was saved on a big-endian machine",
                  "save it again on a little-endian one");
  }
  pickle_ = next("object");
  const Pickle keys = next("storage keys");
  if (!keys.root.is(Kind::kList)) {
    throw file->damaged("the list of its storages is " + keys.describe(keys.root));
  }

  // The first mention of a key gives its type; all mentions must agree.
  std::unordered_map<std::string_view, const PickleStorage*> by_key;
  for (const PickleStorage& storage : pickle_.storages) {
    const PickleStorage* first = by_key.emplace(storage.key, &storage).first->second;
    if (first->dtype != storage.dtype || first->numel != storage.numel) {
      throw file->damaged(fmt::format("storage `{}` is described in two ways", storage.key));
    }
  }
  std::unordered_map<std::string_view, at::Storage> loaded;
  for (const PickleValue key : keys.items(keys.root)) {
    const auto found = key.is(Kind::kString) ? by_key.find(keys.text(key)) : by_key.end();
    if (found == by_key.end()) {
      throw file->damaged("lists a storage that no tensor refers to");
    }
    const PickleStorage& storage = *found->second;
    const auto numel = load_le<int64_t>(file->bytes(at, 8).data());
    at += 8;
    if (numel != storage.numel) {
      throw file->damaged(fmt::format("storage `{}` has {} elements, expected {}", storage.key,
                                      numel, storage.numel));
    }
    // Untyped storages may be viewed as anything.
    const size_t alignment = storage.dtype == at::kByte ? 16 : c10::elementSize(storage.dtype);
    const uint64_t size = storage_bytes(*file, storage);
    if (!loaded.emplace(storage.key, file->storage(at, size, alignment)).second) {
      throw file->damaged(fmt::format("lists storage `{}` twice", storage.key));
    }
    at += size;
  }
  for (const PickleStorage& storage : pickle_.storages) {
    const auto found = loaded.find(storage.key);
    if (found == loaded.end()) {
      throw file->damaged(fmt::format("lacks the bytes of storage `{}`", storage.key));
    }
    storages_.push_back(found->second);
  }
}

at::Tensor TorchFile::tensor(PickleValue value) const {
  COMPRESS_CHECK(value.is(Kind::kTensor), "a pickle value is taken for a tensor");
  const PickleTensor& tensor = pickle_.tensor(value);
  TensorView view = tensor.view;
  const PickleStorage& storage = pickle_.storages[tensor.storage];
  if (__builtin_add_overflow(view.storage_offset, storage.offset, &view.storage_offset)) {
    throw Error(ErrorCode::kBadFile, "a storage offset is beyond any storage", name_);
  }
  return view_storage(storages_[tensor.storage], view,
                      fmt::format("{}: storage `{}`", name_, storage.key));
}

}  // namespace compress
