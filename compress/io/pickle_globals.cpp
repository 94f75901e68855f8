// The only calls that the unpickler knows: how PyTorch describes tensors, and ordered dictionaries.
//
// The forms are those of torch/_utils.py and torch/serialization.py, from PyTorch 0.3 to 2.13.

#include "compress/io/pickle_globals.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace compress {

std::optional<at::ScalarType> torch_dtype(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, at::ScalarType>, 29> kNames = {{
      {"float64", at::kDouble},
      {"double", at::kDouble},
      {"float32", at::kFloat},
      {"float", at::kFloat},
      {"float16", at::kHalf},
      {"half", at::kHalf},
      {"bfloat16", at::kBFloat16},
      {"int64", at::kLong},
      {"long", at::kLong},
      {"int32", at::kInt},
      {"int", at::kInt},
      {"int16", at::kShort},
      {"short", at::kShort},
      {"int8", at::kChar},
      {"uint8", at::kByte},
      {"uint16", at::kUInt16},
      {"uint32", at::kUInt32},
      {"uint64", at::kUInt64},
      {"bool", at::kBool},
      {"complex32", at::kComplexHalf},
      {"chalf", at::kComplexHalf},
      {"complex64", at::kComplexFloat},
      {"cfloat", at::kComplexFloat},
      {"complex128", at::kComplexDouble},
      {"cdouble", at::kComplexDouble},
      {"float8_e4m3fn", at::kFloat8_e4m3fn},
      {"float8_e5m2", at::kFloat8_e5m2},
      {"float8_e4m3fnuz", at::kFloat8_e4m3fnuz},
      {"float8_e5m2fnuz", at::kFloat8_e5m2fnuz},
  }};
  for (const auto& [known, dtype] : kNames) {
    if (known == name) return dtype;
  }
  return std::nullopt;
}

namespace detail {
namespace {

using Kind = PickleValue::Kind;

// "torch.FloatStorage" -> float; untyped storages count bytes.
std::optional<at::ScalarType> storage_dtype(std::string_view global) {
  static constexpr std::array<std::pair<std::string_view, at::ScalarType>, 13> kStorages = {{
      {"DoubleStorage", at::kDouble},
      {"FloatStorage", at::kFloat},
      {"HalfStorage", at::kHalf},
      {"BFloat16Storage", at::kBFloat16},
      {"LongStorage", at::kLong},
      {"IntStorage", at::kInt},
      {"ShortStorage", at::kShort},
      {"CharStorage", at::kChar},
      {"ByteStorage", at::kByte},
      {"BoolStorage", at::kBool},
      {"ComplexFloatStorage", at::kComplexFloat},
      {"ComplexDoubleStorage", at::kComplexDouble},
      {"UntypedStorage", at::kByte},
  }};
  if (global.substr(0, 6) != "torch.") return std::nullopt;
  // torch.X, torch.cuda.X, torch.storage.X: where a storage lived does not matter.
  const std::string_view name = global.substr(global.rfind('.') + 1);
  for (const auto& [known, dtype] : kStorages) {
    if (known == name) return dtype;
  }
  return std::nullopt;
}

const std::vector<PickleValue> kNoItems;

// What a known function was called with, read with checks.
class Arguments {
 public:
  Arguments(const Pickle& pickle, std::string_view function, PickleValue tuple,
            const std::string& where)
      : pickle_(pickle), function_(function), where_(where) {
    // By reference: a hostile file may call with one long tuple again and again.
    if (tuple.is(Kind::kTuple)) items_ = &pickle.items(tuple);
  }

  size_t size() const { return items_->size(); }
  const std::vector<PickleValue>& all() const { return *items_; }
  PickleValue at(size_t i, Kind kind, const char* what) const {
    if (i >= items_->size() || !(*items_)[i].is(kind)) {
      throw bad(fmt::format("its {} is {}", what,
                            i < items_->size() ? pickle_.describe((*items_)[i]) : "missing"));
    }
    return (*items_)[i];
  }
  int64_t integer(size_t i, const char* what) const { return at(i, Kind::kInt, what).integer; }
  std::vector<int64_t> integers(size_t i, const char* what) const {
    const auto kind =
        i < items_->size() && (*items_)[i].is(Kind::kList) ? Kind::kList : Kind::kTuple;
    std::vector<int64_t> numbers;
    for (const PickleValue item : pickle_.items(at(i, kind, what))) {
      if (!item.is(Kind::kInt)) throw bad(fmt::format("{} holds {}", what, pickle_.describe(item)));
      numbers.push_back(item.integer);
    }
    return numbers;
  }
  Error bad(const std::string& problem) const {
    return Error(ErrorCode::kBadFile, fmt::format("`{}` cannot be read: {}", function_, problem),
                 where_, "save the file again with `torch.save(model.state_dict(), ...)`");
  }

 private:
  const Pickle& pickle_;
  std::string_view function_;
  const std::string& where_;
  const std::vector<PickleValue>* items_ = &kNoItems;
};

// A storage of a thousand dimensions is refused later; here the copies must stay bounded.
constexpr size_t kMaxDimensions = 64;

// (storage, offset, sizes, strides, ...); `dtype_at` is where the third version names the dtype.
PickleValue rebuild_tensor(Pickle& pickle, const Arguments& arguments, size_t dtype_at) {
  const PickleValue storage = arguments.at(0, Kind::kStorage, "storage");
  PickleTensor tensor;
  tensor.storage = static_cast<size_t>(storage.integer);
  tensor.view.dtype = pickle.storage(storage).dtype;
  tensor.view.storage_offset = arguments.integer(1, "storage offset");
  for (size_t i : {size_t{2}, size_t{3}}) {
    const bool sequence = i < arguments.size() && (arguments.all()[i].is(Kind::kTuple) ||
                                                   arguments.all()[i].is(Kind::kList));
    if (sequence && pickle.items(arguments.all()[i]).size() > kMaxDimensions) {
      throw arguments.bad(fmt::format("it has more than {} dimensions", kMaxDimensions));
    }
  }
  tensor.view.sizes = arguments.integers(2, "sizes");
  tensor.view.strides = arguments.integers(3, "strides");
  if (dtype_at > 0) {
    const std::string_view name = pickle.text(arguments.at(dtype_at, Kind::kGlobal, "dtype"));
    const auto dtype = name.substr(0, 6) == "torch." ? torch_dtype(name.substr(6)) : std::nullopt;
    if (!dtype) throw arguments.bad(fmt::format("unknown dtype `{}`", name));
    tensor.view.dtype = *dtype;
  }
  pickle.tensors.push_back(std::move(tensor));
  PickleValue value;
  value.kind = Kind::kTensor;
  value.integer = static_cast<int64_t>(pickle.tensors.size() - 1);
  return value;
}

PickleValue new_sequence(Pickle& pickle, Kind kind, std::vector<PickleValue> items) {
  pickle.sequences.push_back(std::move(items));
  PickleValue value;
  value.kind = kind;
  value.integer = static_cast<int64_t>(pickle.sequences.size() - 1);
  return value;
}

// OrderedDict(), OrderedDict([(key, value), ...]) or dict-like with another dict.
PickleValue new_dict(Pickle& pickle, const Arguments& arguments) {
  std::vector<PickleValue> entries;
  if (arguments.size() > 0 && arguments.all()[0].is(Kind::kDict)) {
    entries = pickle.items(arguments.all()[0]);
  } else if (arguments.size() > 0 && arguments.all()[0].is(Kind::kList)) {
    for (const PickleValue pair : pickle.items(arguments.all()[0])) {
      const bool sequence = pair.is(Kind::kTuple) || pair.is(Kind::kList);
      if (!sequence || pickle.items(pair).size() != 2) {
        throw arguments.bad("its entries are no pairs");
      }
      entries.insert(entries.end(), pickle.items(pair).begin(), pickle.items(pair).end());
    }
  }
  return new_sequence(pickle, Kind::kDict, std::move(entries));
}

}  // namespace

PickleValue call_global(Pickle& pickle, std::string_view global, PickleValue tuple,
                        const std::string& where) {
  const Arguments arguments(pickle, global, tuple, where);
  if (global == "collections.OrderedDict") return new_dict(pickle, arguments);
  if (global == "collections.defaultdict") return new_sequence(pickle, Kind::kDict, {});
  if (global == "torch._utils._rebuild_tensor" || global == "torch._utils._rebuild_tensor_v2") {
    return rebuild_tensor(pickle, arguments, 0);
  }
  if (global == "torch._utils._rebuild_tensor_v3") return rebuild_tensor(pickle, arguments, 6);
  if (global == "torch._utils._rebuild_parameter" ||
      global == "torch._utils._rebuild_parameter_with_state") {
    // Whatever the parameter wraps: a tensor, or the placeholder of a kind that is refused on use.
    if (arguments.size() == 0) throw arguments.bad("its data are missing");
    return arguments.all()[0];
  }
  if (global == "torch._tensor._rebuild_from_type_v2") {
    // (function, class, arguments, state): one more call; its own nesting is not possible.
    const std::string_view inner = pickle.text(arguments.at(0, Kind::kGlobal, "function"));
    if (inner == global) throw arguments.bad("it calls itself");
    return call_global(pickle, inner, arguments.at(2, Kind::kTuple, "arguments"), where);
  }
  const bool is_sequence = global == "torch.Size" || global == "builtins.set" ||
                           global == "__builtin__.set" || global == "builtins.frozenset" ||
                           global == "__builtin__.frozenset";
  if (is_sequence && arguments.size() == 1 &&
      (arguments.all()[0].is(Kind::kList) || arguments.all()[0].is(Kind::kTuple))) {
    return arguments.all()[0];
  }
  pickle.objects.push_back({global, tuple, {}});
  PickleValue value;
  value.kind = Kind::kObject;
  value.integer = static_cast<int64_t>(pickle.objects.size() - 1);
  return value;
}

PickleValue persistent_storage(Pickle& pickle, PickleValue id, const std::string& where) {
  // ("storage", class, key, location, number of elements[, view of an older storage])
  const Arguments arguments(pickle, "persistent id", id, where);
  const std::string_view kind = pickle.text(arguments.at(0, Kind::kString, "kind"));
  // ("module", class, file, source), in legacy files of whole modules: the class, and no source.
  if (kind == "module" && arguments.size() > 1) return arguments.all()[1];
  if (kind != "storage") throw arguments.bad("it is no storage");
  const std::string_view global = pickle.text(arguments.at(1, Kind::kGlobal, "class"));
  const auto dtype = storage_dtype(global);
  if (!dtype) {
    throw Error(ErrorCode::kUnsupported, fmt::format("storages of class `{}` are not read", global),
                where, "save plain (not quantized) tensors");
  }
  PickleStorage storage;
  storage.key = pickle.text(arguments.at(2, Kind::kString, "key"));
  storage.dtype = *dtype;
  storage.numel = arguments.integer(4, "number of elements");
  if (arguments.size() > 5 && arguments.all()[5].is(Kind::kTuple)) {
    const auto& view = pickle.items(arguments.all()[5]);
    if (view.size() != 3 || !view[1].is(Kind::kInt)) throw arguments.bad("its view is no triple");
    storage.offset = view[1].integer;
  }
  if (storage.numel < 0 || storage.offset < 0) {
    throw arguments.bad(fmt::format("{} elements from {} on", storage.numel, storage.offset));
  }
  pickle.storages.push_back(std::move(storage));
  PickleValue value;
  value.kind = Kind::kStorage;
  value.integer = static_cast<int64_t>(pickle.storages.size() - 1);
  return value;
}

}  // namespace detail
}  // namespace compress
