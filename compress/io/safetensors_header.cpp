// The JSON header of a safetensors file.

#include "compress/io/safetensors_header.h"

#include "compress/error.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <unordered_set>

namespace compress::detail {
namespace {

constexpr size_t kMaxDimensions = 64;

// Receives the events of nlohmann's parser, which keeps one bit a level and no values.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderHandler(SafetensorsHeader& header, const std::string& where)
      : header_(header), where_(where) {}

  bool key(string_t& name) override {
    switch (state_) {
      case State::kTop:
        if (!names_.insert(name).second) fail(fmt::format("`{}` appears twice", name));
        if (name == "__metadata__") {
          state_ = State::kMetadataNext;
        } else {
          header_.entries.push_back({name, {}, {}, 0, 0});
          seen_ = 0;
          state_ = State::kEntryNext;
        }
        return true;
      case State::kMetadata:
        if (header_.metadata.count(name) != 0) {
          fail(fmt::format("metadata `{}` appears twice", name));
        }
        metadata_key_ = name;
        return true;
      case State::kEntry:
        field_ = name == "dtype"          ? Field::kDtype
                 : name == "shape"        ? Field::kShape
                 : name == "data_offsets" ? Field::kOffsets
                                          : Field::kNone;
        if (field_ == Field::kNone) {
          fail(fmt::format("unknown key `{}`, expected dtype, shape and data_offsets", name));
        }
        if (seen_ & static_cast<int>(field_)) fail(fmt::format("key `{}` appears twice", name));
        seen_ |= static_cast<int>(field_);
        return true;
      default:
        fail("unexpected key");
    }
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::kBegin:
        state_ = State::kTop;
        return true;
      case State::kMetadataNext:
        state_ = State::kMetadata;
        return true;
      case State::kEntryNext:
        state_ = State::kEntry;
        return true;
      default:
        fail("unexpected object");
    }
  }

  bool end_object() override {
    switch (state_) {
      case State::kTop:
        state_ = State::kDone;
        return true;
      case State::kEntry:
        if (seen_ != 7) fail("dtype, shape or data_offsets is missing");
        [[fallthrough]];
      default:
        state_ = State::kTop;
        return true;
    }
  }

  bool start_array(std::size_t) override {
    if (state_ != State::kEntry || (field_ != Field::kShape && field_ != Field::kOffsets)) {
      fail("unexpected list");
    }
    state_ = field_ == Field::kShape ? State::kShape : State::kOffsets;
    offsets_ = 0;
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2) fail("data_offsets must be two numbers");
    state_ = State::kEntry;
    field_ = Field::kNone;
    return true;
  }

  bool number_unsigned(number_unsigned_t number) override {
    if (state_ == State::kShape) {
      auto& sizes = header_.entries.back().sizes;
      if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        fail(fmt::format("size {} is beyond 64 bits", number));
      }
      if (sizes.size() == kMaxDimensions) fail("more than 64 dimensions");
      sizes.push_back(static_cast<int64_t>(number));
      return true;
    }
    if (state_ == State::kOffsets && offsets_ < 2) {
      (offsets_ == 0 ? header_.entries.back().begin : header_.entries.back().end) = number;
      ++offsets_;
      return true;
    }
    fail("unexpected number");
  }

  bool string(string_t& text) override {
    if (state_ == State::kMetadata) {
      header_.metadata[metadata_key_] = text;
      return true;
    }
    if (state_ == State::kEntry && field_ == Field::kDtype) {
      header_.entries.back().dtype = text;
      field_ = Field::kNone;
      return true;
    }
    fail("unexpected string");
  }

  bool number_integer(number_integer_t number) override {
    fail(fmt::format("unexpected negative number {}", number));
  }
  bool number_float(number_float_t, const string_t& text) override {
    fail(fmt::format("unexpected number {}", text));
  }
  bool null() override { fail("unexpected null"); }
  bool boolean(bool) override { fail("unexpected truth value"); }
  bool binary(binary_t&) override { fail("unexpected binary"); }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    throw Error(ErrorCode::kBadFile, "the header is no valid JSON",
                fmt::format("{}: byte {}", where_, position + 7),
                "the file is damaged or no safetensors file");
  }

  bool done() const { return state_ == State::kDone; }

 private:
  enum class State {
    kBegin,
    kTop,
    kMetadataNext,
    kMetadata,
    kEntryNext,
    kEntry,
    kShape,
    kOffsets,
    kDone
  };
  enum class Field { kNone = 0, kDtype = 1, kShape = 2, kOffsets = 4 };

  [[noreturn]] void fail(const std::string& problem) const {
    const bool in_entry = state_ == State::kEntry || state_ == State::kEntryNext ||
                          state_ == State::kShape || state_ == State::kOffsets;
    throw Error(ErrorCode::kBadFile, problem,
                in_entry && !header_.entries.empty()
                    ? fmt::format("{}: header, tensor `{}`", where_, header_.entries.back().name)
                    : fmt::format("{}: header", where_),
                "the file is damaged or no safetensors file");
  }

  SafetensorsHeader& header_;
  const std::string& where_;
  State state_ = State::kBegin;
  Field field_ = Field::kNone;
  int seen_ = 0;
  int offsets_ = 0;
  std::string metadata_key_;
  std::unordered_set<std::string> names_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& where) {
  SafetensorsHeader header;
  HeaderHandler handler(header, where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  // The parser takes a zero byte for the end.
  if (const size_t zero = text.find('\0'); zero != text.npos) {
    throw Error(ErrorCode::kBadFile, "the header holds a zero byte",
                fmt::format("{}: byte {}", where, zero + 8), "the file is damaged");
  }
  return header;
}

std::string print_safetensors_header(const std::vector<SafetensorsEntry>& entries,
                                     const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string text = header.dump();
  text.pop_back();
  for (const SafetensorsEntry& entry : entries) {
    // By hand: a map with a thousand keys in order of insertion would be searched for each of them.
    nlohmann::ordered_json description;
    description["dtype"] = entry.dtype;
    description["shape"] = entry.sizes;
    description["data_offsets"] = {entry.begin, entry.end};
    if (text.size() > 1) text += ',';
    text += nlohmann::json(entry.name).dump() + ':' + description.dump();
  }
  return text + '}';
}

}  // namespace compress::detail
