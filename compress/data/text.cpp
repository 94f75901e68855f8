// Text as tokens for language models: windows of characters or bytes.

#include "compress/data/text.h"

#include "compress/error.h"
#include "compress/io/mapped_file.h"

#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>

namespace compress {
namespace {

constexpr uint32_t kCodePoints = 0x110000;

// Decodes one code point of UTF-8 at `position` and moves on; refuses overlong forms, surrogates.
uint32_t decode(std::string_view text, size_t& position, const std::string& name) {
  const auto byte = [&](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<uint8_t>(text[i]) : 0;
  };
  const uint32_t first = byte(position);
  const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : 4;
  uint32_t value = length == 1 ? first : first & (0x7fu >> length);
  bool sound = length < 4 || first >> 3 == 30;
  for (size_t i = 1; i < length; ++i) {
    sound = sound && byte(position + i) >> 6 == 2;
    value = value << 6 | (byte(position + i) & 0x3f);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (!sound || value < kSmallest[length] || value >= kCodePoints || value >> 11 == 0x1b) {
    throw Error(ErrorCode::kBadFile, "not UTF-8", fmt::format("{}: byte {}", name, position),
                "use tokens `bytes` for it");
  }
  position += length;
  return value;
}

struct Characters {
  std::vector<uint32_t> tokens;
  std::vector<std::string> vocabulary;
};

Characters tokenize(std::string_view text, const std::string& name) {
  constexpr uint32_t kUnseen = ~0u;
  std::vector<uint32_t> number(kCodePoints, kUnseen);
  std::map<uint32_t, std::string_view> seen;  // in the order of code points
  Characters result;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const uint32_t code = decode(text, position, name);
    if (number[code] == kUnseen) {
      number[code] = 0;
      seen.emplace(code, text.substr(begin, position - begin));
    }
    result.tokens.push_back(code);
  }
  for (const auto& [code, spelling] : seen) {
    number[code] = static_cast<uint32_t>(result.vocabulary.size());
    result.vocabulary.emplace_back(spelling);
  }
  for (uint32_t& token : result.tokens) token = number[token];
  return result;
}

// Windows over tokens that lie in memory; `Owner` keeps them there.
template <class Token, class Owner>
class Windows final : public Dataset {
 public:
  Windows(DatasetInfo info, Owner owner, const Token* tokens, int64_t count, int64_t length,
          int64_t stride)
      : Dataset(std::move(info)),
        owner_(std::move(owner)),
        tokens_(tokens),
        length_(length),
        stride_(stride),
        size_((count - 1 - length) / stride + 1) {}

  int64_t size() const override { return size_; }

  Batch get(const std::vector<int64_t>& indices, const Draw&) const override {
    const auto count = static_cast<int64_t>(indices.size());
    Batch batch;
    batch.indices = indices;
    batch.inputs.push_back(at::empty({count, length_}, at::kLong));
    batch.labels = at::empty({count, length_}, at::kLong);
    auto* inputs = batch.inputs[0].mutable_data_ptr<int64_t>();
    auto* labels = batch.labels.mutable_data_ptr<int64_t>();
    for (const int64_t index : indices) {
      COMPRESS_CHECK(index >= 0 && index < size_, "sample index out of range");
      const Token* window = tokens_ + index * stride_;
      inputs = std::copy(window, window + length_, inputs);
      labels = std::copy(window + 1, window + 1 + length_, labels);
    }
    return batch;
  }

 private:
  Owner owner_;
  const Token* tokens_;
  int64_t length_, stride_, size_;
};

template <class Token, class Owner>
DatasetPtr windows(DatasetInfo info, Owner owner, const Token* tokens, int64_t total,
                   const TextOptions& options) {
  const auto first = static_cast<int64_t>(options.begin * static_cast<double>(total));
  const auto last = static_cast<int64_t>(options.end * static_cast<double>(total));
  if (last - first < options.length + 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} tokens of {} give no window of {} and the token after it",
                            last - first, info.name, options.length),
                "length");
  }
  return std::make_shared<Windows<Token, Owner>>(
      std::move(info), std::move(owner), tokens + first, last - first, options.length,
      options.stride == 0 ? options.length : options.stride);
}

}  // namespace

DatasetPtr text_dataset(const std::filesystem::path& path, const TextOptions& options) {
  COMPRESS_CHECK(options.length > 0 && options.stride >= 0, "a window has tokens and goes forward");
  COMPRESS_CHECK(options.begin >= 0 && options.begin <= options.end && options.end <= 1,
                 "begin and end are shares of the file, in this order");
  const auto file = MappedFile::open(path);
  DatasetInfo info;
  info.name = path.string();
  info.input_sizes = {{options.length}};
  info.labeled = true;
  if (options.tokens == TokenKind::kBytes) {
    info.classes = 256;
    const auto* bytes = reinterpret_cast<const uint8_t*>(file->bytes().data());
    return windows(std::move(info), file, bytes, static_cast<int64_t>(file->size()), options);
  }
  Characters characters = tokenize(file->text(0, file->size()), file->name());
  info.classes = static_cast<int64_t>(characters.vocabulary.size());
  info.class_names = std::move(characters.vocabulary);
  auto tokens = std::make_shared<std::vector<uint32_t>>(std::move(characters.tokens));
  const uint32_t* first = tokens->data();
  const auto count = static_cast<int64_t>(tokens->size());
  return windows(std::move(info), std::move(tokens), first, count, options);
}

}  // namespace compress
