// A restricted unpickler: Python pickles become a tree of plain values; nothing is ever executed.
//
// Python's pickle is a program for a stack machine that may call any function. This reader runs the
// stack machine, but its only "functions" are a table of the few that PyTorch needs to describe
// tensors and ordered dictionaries. Every other global, call or object becomes an inert placeholder
// that remembers its name; it is an error only where a tensor needs it.

#pragma once

#include "compress/io/tensor_view.h"

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// One value of a pickle: small, copied freely; its contents live in the `Pickle`.
struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kBytes,  ///< also integers beyond 64 bits: their little-endian two's complement
    kList,   ///< and sets
    kTuple,
    kDict,
    kStorage,
    kTensor,
    kGlobal,  ///< a class or function by name, inert
    kObject,  ///< what an unknown global would have made, inert
  };
  Kind kind = Kind::kNone;
  union {
    int64_t integer = 0;  // also kBool, and the index into the Pickle's arena
    double real;
  };
  bool is(Kind other) const { return kind == other; }
};

/// A storage that the pickle refers to; its bytes lie elsewhere in the file.
struct PickleStorage {
  std::string key;
  at::ScalarType dtype = at::kByte;  ///< kByte for untyped storages
  int64_t numel = 0;                 ///< elements of `dtype` of the root storage
  int64_t offset = 0;                ///< elements by which this one begins inside it (old files)
};

/// A tensor over one of the pickle's storages.
struct PickleTensor {
  size_t storage = 0;  ///< position in `Pickle::storages`
  TensorView view;
};

/// What a class or function by name was to be called with.
struct PickleObject {
  std::string_view global;  ///< "module.name"
  PickleValue arguments, state;
};

/// A pickle as a tree of values (strictly: a graph; lists may contain themselves, so walk with a
/// limit on depth and on visits).
class Pickle {
 public:
  using Kind = PickleValue::Kind;

  Pickle() = default;
  Pickle(Pickle&&) = default;  // texts point into `strings`, so no copies
  Pickle& operator=(Pickle&&) = default;

  PickleValue root;
  size_t size_bytes = 0;  ///< bytes of input that it took, up to and with its end mark

  /// Text of a kString or kBytes; "module.name" of a kGlobal.
  std::string_view text(PickleValue value) const;
  /// Elements of a kList or kTuple; of a kDict, keys and values in turn.
  const std::vector<PickleValue>& items(PickleValue value) const;
  const PickleStorage& storage(PickleValue value) const { return storages[value.integer]; }
  const PickleTensor& tensor(PickleValue value) const { return tensors[value.integer]; }
  const PickleObject& object(PickleValue value) const { return objects[value.integer]; }
  /// The value of a string key in a kDict (the last one wins), if `dict` is one and has the key.
  std::optional<PickleValue> get(PickleValue dict, std::string_view key) const;
  /// What it is in words, for messages: "a list", "an object of class `a.B`".
  std::string describe(PickleValue value) const;

  std::vector<PickleStorage> storages;
  std::vector<PickleTensor> tensors;
  std::vector<PickleObject> objects;
  std::deque<std::string> strings;
  std::deque<std::vector<PickleValue>> sequences;
};

/// Reads one pickle (protocols 0 to 5) from the beginning of `bytes`.
///
/// `where` begins the place in errors; byte offsets follow. Throws `kBadFile` for what is no
/// pickle, is cut off, or grows beyond a small multiple of its own size; `kUnsupported` for tensor
/// kinds that Lathe does not read (quantized, sparse).
Pickle read_pickle(std::string_view bytes, const std::string& where);

/// The dtype that PyTorch calls "float32", "half", ... (without "torch."), if it is one that has
/// plain elements.
std::optional<at::ScalarType> torch_dtype(std::string_view name);

}  // namespace compress
