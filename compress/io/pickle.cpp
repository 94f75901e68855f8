// The stack machine of the restricted unpickler; Python's Lib/pickletools.py documents the opcodes.

#include "compress/io/pickle.h"

#include "compress/error.h"
#include "compress/io/little_endian.h"
#include "compress/io/pickle_globals.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <utility>

namespace compress {
namespace {

using Kind = PickleValue::Kind;

// Memory that the values of a pickle may take: some for small ones, then in proportion to its
// bytes. The shortest instruction that makes a value is one byte; real files stay below 10 times.
constexpr size_t kFreeBytes = size_t{64} << 20, kBytesPerByte = 16;

class Unpickler {
 public:
  Unpickler(std::string_view bytes, const std::string& where)
      : bytes_(bytes), where_(where), budget_(kFreeBytes + kBytesPerByte * bytes.size()) {}

  Pickle run() {
    while (!step()) {
    }
    pickle_.root = pop();
    pickle_.size_bytes = at_;
    return std::move(pickle_);
  }

 private:
  // --- input ---
  Error bad(const std::string& problem) const {
    return Error(ErrorCode::kBadFile, problem, fmt::format("{}: byte {}", where_, at_opcode_),
                 "the file is damaged or no PyTorch file; fetch it again");
  }
  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) {
      throw bad(
          fmt::format("the pickle is cut off: {} bytes are missing", size - (bytes_.size() - at_)));
    }
    const std::string_view piece = bytes_.substr(at_, size);
    at_ += size;
    return piece;
  }
  template <class Number>
  Number number() {
    return load_le<Number>(take(sizeof(Number)).data());
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == bytes_.npos) throw bad("the pickle is cut off in a line of text");
    const std::string_view text = take(end - at_);
    take(1);
    return text;
  }
  void charge(size_t size) {
    if (size > budget_) {
      throw bad(fmt::format("its values take more memory than 64 MiB and {} times its size",
                            kBytesPerByte));
    }
    budget_ -= size;
  }

  // --- values ---
  static PickleValue make(Kind kind, int64_t integer = 0) {
    PickleValue value;
    value.kind = kind;
    value.integer = integer;
    return value;
  }
  PickleValue make_text(Kind kind, std::string text) {
    charge(sizeof(std::string) + text.size());
    pickle_.strings.push_back(std::move(text));
    return make(kind, static_cast<int64_t>(pickle_.strings.size() - 1));
  }
  PickleValue make_sequence(Kind kind, std::vector<PickleValue> items = {}) {
    charge(sizeof(items) + items.size() * sizeof(PickleValue));
    pickle_.sequences.push_back(std::move(items));
    return make(kind, static_cast<int64_t>(pickle_.sequences.size() - 1));
  }
  PickleValue make_real(double real) {
    PickleValue value = make(Kind::kFloat);
    value.real = real;
    return value;
  }

  // --- the stack ---
  bool push(PickleValue value) {
    charge(sizeof(value));
    stack_.push_back(value);
    return false;
  }
  PickleValue pop() {
    const size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) throw bad("the pickle takes more from its stack than it put there");
    const PickleValue value = stack_.back();
    stack_.pop_back();
    return value;
  }
  PickleValue& top() {
    const size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) throw bad("the pickle looks below its stack");
    return stack_.back();
  }
  std::vector<PickleValue> pop_to_mark() {
    if (marks_.empty()) throw bad("the pickle has no mark");
    const size_t begin = marks_.back();
    marks_.pop_back();
    std::vector<PickleValue> items(stack_.begin() + static_cast<ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    return items;
  }
  bool push_tuple(size_t size) {
    std::vector<PickleValue> items(size);
    for (size_t i = size; i-- > 0;) items[i] = pop();
    return push(make_sequence(Kind::kTuple, std::move(items)));
  }

  // Adds `items` to the container on top: a list, a dict (keys and values in turn), or an object,
  // whose contents nobody asks for.
  bool extend(Kind kind, const std::vector<PickleValue>& items) {
    if (kind == Kind::kDict && items.size() % 2 != 0) throw bad("a key has no value");
    const PickleValue container = top();
    if (container.is(Kind::kObject) || container.is(Kind::kTensor)) return false;
    if (!container.is(kind)) {
      throw bad(fmt::format("cannot add items to {}", pickle_.describe(container)));
    }
    charge(items.size() * sizeof(PickleValue) * 2);  // a growing vector has twice the room
    auto& into = pickle_.sequences[static_cast<size_t>(container.integer)];
    into.insert(into.end(), items.begin(), items.end());
    return false;
  }

  void memoize(uint64_t index) {
    const PickleValue value = top();
    charge(sizeof(value) * 4);
    memo_[index] = value;
  }
  bool push_memo(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) throw bad(fmt::format("memo {} is used before it is set", index));
    return push(found->second);
  }
  uint64_t line_index() {
    const std::string_view text = line();
    uint64_t index = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), index);
    if (problem != std::errc() || end != text.data() + text.size())
      throw bad("a memo is no number");
    return index;
  }

  // --- opcodes by family ---
  bool step();
  bool step_number(char opcode);
  bool step_text(char opcode);
  bool step_container(char opcode);
  bool step_call(char opcode);
  bool push_long(std::string_view digits);
  bool push_line_integer();
  bool call(PickleValue function, PickleValue arguments);
  void build();

  std::string_view bytes_;
  const std::string& where_;
  size_t budget_;
  size_t at_ = 0, at_opcode_ = 0;
  Pickle pickle_;
  std::vector<PickleValue> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, PickleValue> memo_;
};

// True at the end of the pickle.
bool Unpickler::step() {
  at_opcode_ = at_;
  const char opcode = take(1)[0];
  switch (opcode) {
    case '.':  // STOP
      return true;
    case '\x80': {  // PROTO
      const auto protocol = number<uint8_t>();
      if (protocol > 5) throw bad(fmt::format("pickle protocol {}, expected 0 to 5", protocol));
      return false;
    }
    case '\x95':  // FRAME, a hint about sizes
      take(8);
      return false;
    case '(':  // MARK
      charge(sizeof(size_t));
      marks_.push_back(stack_.size());
      return false;
    case '0':  // POP; of a mark, if nothing lies above it
      if (!marks_.empty() && marks_.back() == stack_.size()) {
        marks_.pop_back();
      } else {
        pop();
      }
      return false;
    case '1':  // POP_MARK
      pop_to_mark();
      return false;
    case '2':  // DUP
      return push(PickleValue(top()));
    case 'p':  // PUT
      memoize(line_index());
      return false;
    case 'q':  // BINPUT
      memoize(number<uint8_t>());
      return false;
    case 'r':  // LONG_BINPUT
      memoize(number<uint32_t>());
      return false;
    case '\x94':  // MEMOIZE
      memoize(memo_.size());
      return false;
    case 'g':  // GET
      return push_memo(line_index());
    case 'h':  // BINGET
      return push_memo(number<uint8_t>());
    case 'j':  // LONG_BINGET
      return push_memo(number<uint32_t>());
    default:
      return step_number(opcode);
  }
}

bool Unpickler::step_number(char opcode) {
  switch (opcode) {
    case 'N':  // NONE
      return push(make(Kind::kNone));
    case '\x88':  // NEWTRUE
      return push(make(Kind::kBool, 1));
    case '\x89':  // NEWFALSE
      return push(make(Kind::kBool, 0));
    case 'J':  // BININT
      return push(make(Kind::kInt, number<int32_t>()));
    case 'K':  // BININT1
      return push(make(Kind::kInt, number<uint8_t>()));
    case 'M':  // BININT2
      return push(make(Kind::kInt, number<uint16_t>()));
    case '\x8a':  // LONG1
      return push_long(take(number<uint8_t>()));
    case '\x8b': {  // LONG4
      const auto size = number<int32_t>();
      if (size < 0) throw bad("an integer has a negative number of bytes");
      return push_long(take(static_cast<uint64_t>(size)));
    }
    case 'I':  // INT
    case 'L':  // LONG
      return push_line_integer();
    case 'F': {  // FLOAT
      const std::string text(line());
      char* end = nullptr;
      const double real = std::strtod(text.c_str(), &end);
      if (text.empty() || *end != '\0') throw bad("a number cannot be read");
      return push(make_real(real));
    }
    case 'G': {  // BINFLOAT, big-endian
      const uint64_t bits = __builtin_bswap64(number<uint64_t>());
      return push(make_real(load_le<double>(&bits)));
    }
    default:
      return step_text(opcode);
  }
}

bool Unpickler::push_long(std::string_view digits) {
  if (digits.size() > 8) return push(make_text(Kind::kBytes, std::string(digits)));
  int64_t value = !digits.empty() && (digits.back() & 0x80) ? -1 : 0;
  std::memcpy(&value, digits.data(), digits.size());
  return push(make(Kind::kInt, value));
}

bool Unpickler::push_line_integer() {
  std::string_view text = line();
  if (text == "00" || text == "01") return push(make(Kind::kBool, text == "01"));
  if (!text.empty() && text.back() == 'L') text.remove_suffix(1);
  int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem == std::errc::result_out_of_range) {
    return push(make_text(Kind::kBytes, std::string(text)));
  }
  if (problem != std::errc() || end != text.data() + text.size()) throw bad("no integer");
  return push(make(Kind::kInt, value));
}

bool Unpickler::step_text(char opcode) {
  switch (opcode) {
    case 'X':  // BINUNICODE
      return push(make_text(Kind::kString, std::string(take(number<uint32_t>()))));
    case '\x8c':  // SHORT_BINUNICODE
      return push(make_text(Kind::kString, std::string(take(number<uint8_t>()))));
    case '\x8d':  // BINUNICODE8
      return push(make_text(Kind::kString, std::string(take(number<uint64_t>()))));
    case 'T':  // BINSTRING, Python 2's str: names of tensors, in files of that time
      return push(make_text(Kind::kString, std::string(take(number<uint32_t>()))));
    case 'U':  // SHORT_BINSTRING
      return push(make_text(Kind::kString, std::string(take(number<uint8_t>()))));
    case 'V':  // UNICODE
      return push(make_text(Kind::kString, std::string(line())));
    case 'S': {  // STRING: a quoted literal; escapes stay as they are
      const std::string_view quoted = line();
      if (quoted.size() < 2 || quoted.front() != quoted.back()) throw bad("a string has no quotes");
      return push(make_text(Kind::kString, std::string(quoted.substr(1, quoted.size() - 2))));
    }
    case 'B':  // BINBYTES
      return push(make_text(Kind::kBytes, std::string(take(number<uint32_t>()))));
    case 'C':  // SHORT_BINBYTES
      return push(make_text(Kind::kBytes, std::string(take(number<uint8_t>()))));
    case '\x8e':  // BINBYTES8
    case '\x96':  // BYTEARRAY8
      return push(make_text(Kind::kBytes, std::string(take(number<uint64_t>()))));
    default:
      return step_container(opcode);
  }
}

bool Unpickler::step_container(char opcode) {
  switch (opcode) {
    case ']':     // EMPTY_LIST
    case '\x8f':  // EMPTY_SET
      return push(make_sequence(Kind::kList));
    case '}':  // EMPTY_DICT
      return push(make_sequence(Kind::kDict));
    case ')':  // EMPTY_TUPLE
      return push_tuple(0);
    case '\x85':  // TUPLE1
    case '\x86':  // TUPLE2
    case '\x87':  // TUPLE3
      return push_tuple(static_cast<size_t>(opcode - '\x85') + 1);
    case 't':  // TUPLE
      return push(make_sequence(Kind::kTuple, pop_to_mark()));
    case 'l':     // LIST
    case '\x91':  // FROZENSET
      return push(make_sequence(Kind::kList, pop_to_mark()));
    case 'd': {  // DICT
      std::vector<PickleValue> items = pop_to_mark();
      if (items.size() % 2 != 0) throw bad("a key has no value");
      return push(make_sequence(Kind::kDict, std::move(items)));
    }
    case 'a': {  // APPEND
      const PickleValue item = pop();
      return extend(Kind::kList, {item});
    }
    case 'e':     // APPENDS
    case '\x90':  // ADDITEMS
      return extend(Kind::kList, pop_to_mark());
    case 's': {  // SETITEM
      const PickleValue value = pop(), key = pop();
      return extend(Kind::kDict, {key, value});
    }
    case 'u':  // SETITEMS
      return extend(Kind::kDict, pop_to_mark());
    default:
      return step_call(opcode);
  }
}

bool Unpickler::step_call(char opcode) {
  switch (opcode) {
    case 'c': {  // GLOBAL
      const std::string_view module = line();
      return push(make_text(Kind::kGlobal, fmt::format("{}.{}", module, line())));
    }
    case '\x93': {  // STACK_GLOBAL
      const PickleValue name = pop(), module = pop();
      if (!name.is(Kind::kString) || !module.is(Kind::kString)) throw bad("a global has no name");
      return push(
          make_text(Kind::kGlobal, fmt::format("{}.{}", pickle_.text(module), pickle_.text(name))));
    }
    case 'Q':  // BINPERSID
      charge(sizeof(PickleStorage) * 2);
      return push(detail::persistent_storage(pickle_, pop(), where_));
    case 'R':     // REDUCE
    case '\x81':  // NEWOBJ
    {
      const PickleValue arguments = pop();
      return call(pop(), arguments);
    }
    case '\x92': {  // NEWOBJ_EX
      pop();        // keyword arguments
      const PickleValue arguments = pop();
      return call(pop(), arguments);
    }
    case 'o': {  // OBJ
      std::vector<PickleValue> items = pop_to_mark();
      if (items.empty()) throw bad("an object has no class");
      const PickleValue function = items.front();
      items.erase(items.begin());
      return call(function, make_sequence(Kind::kTuple, std::move(items)));
    }
    case 'i': {  // INST
      const std::string_view module = line();
      const PickleValue function = make_text(Kind::kGlobal, fmt::format("{}.{}", module, line()));
      return call(function, make_sequence(Kind::kTuple, pop_to_mark()));
    }
    case 'b':  // BUILD
      build();
      return false;
    default:
      throw bad(fmt::format("0x{:02x} is no pickle instruction that Lathe reads",
                            static_cast<unsigned char>(opcode)));
  }
}

bool Unpickler::call(PickleValue function, PickleValue arguments) {
  charge(sizeof(PickleObject) + sizeof(PickleTensor));
  if (function.is(Kind::kGlobal)) {
    // New dictionaries copy what they are made of.
    if (arguments.is(Kind::kTuple) && !pickle_.items(arguments).empty()) {
      const PickleValue first = pickle_.items(arguments)[0];
      if (first.is(Kind::kList) || first.is(Kind::kDict)) {
        charge(2 * sizeof(PickleValue) * pickle_.items(first).size());
      }
    }
    return push(detail::call_global(pickle_, pickle_.text(function), arguments, where_));
  }
  // The result of calling what is itself a placeholder: one more placeholder.
  pickle_.objects.push_back({"a computed function", arguments, {}});
  return push(make(Kind::kObject, static_cast<int64_t>(pickle_.objects.size() - 1)));
}

// Sets the state of an object; tensors and dictionaries may have one too, which nobody asks for.
void Unpickler::build() {
  const PickleValue state = pop();
  const PickleValue object = top();
  if (object.is(Kind::kObject)) pickle_.objects[static_cast<size_t>(object.integer)].state = state;
}

}  // namespace

std::string_view Pickle::text(PickleValue value) const {
  COMPRESS_CHECK(value.is(Kind::kString) || value.is(Kind::kBytes) || value.is(Kind::kGlobal),
                 "a pickle value without text");
  return strings[static_cast<size_t>(value.integer)];
}

const std::vector<PickleValue>& Pickle::items(PickleValue value) const {
  COMPRESS_CHECK(value.is(Kind::kList) || value.is(Kind::kTuple) || value.is(Kind::kDict),
                 "a pickle value without items");
  return sequences[static_cast<size_t>(value.integer)];
}

std::optional<PickleValue> Pickle::get(PickleValue dict, std::string_view key) const {
  if (!dict.is(Kind::kDict)) return std::nullopt;
  const auto& entries = items(dict);
  for (size_t i = entries.size(); i >= 2; i -= 2) {
    if (entries[i - 2].is(Kind::kString) && text(entries[i - 2]) == key) return entries[i - 1];
  }
  return std::nullopt;
}

std::string Pickle::describe(PickleValue value) const {
  switch (value.kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInt:
      return "an integer";
    case Kind::kFloat:
      return "a float";
    case Kind::kString:
      return "a string";
    case Kind::kBytes:
      return "bytes";
    case Kind::kList:
      return "a list";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kDict:
      return "a dictionary";
    case Kind::kStorage:
      return "a storage";
    case Kind::kTensor:
      return "a tensor";
    case Kind::kGlobal:
      return fmt::format("the Python name `{}`", text(value));
    case Kind::kObject:
      return fmt::format("an object of `{}`", object(value).global);
  }
  return "unknown";
}

Pickle read_pickle(std::string_view bytes, const std::string& where) {
  return Unpickler(bytes, where).run();
}

}  // namespace compress
