// Protocol buffers' wire format, as far as ONNX needs it.

#include "compress/io/onnx/wire.h"

#include "compress/io/little_endian.h"

namespace compress::onnx {
namespace {

constexpr int kVarint = 0, kLength = 2, kFourBytes = 5;

}  // namespace

void Message::varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
  bytes_.push_back(static_cast<char>(value));
}

void Message::integer(int field, int64_t value) {
  tag(field, kVarint);
  varint(static_cast<uint64_t>(value));
}

void Message::number(int field, float value) {
  tag(field, kFourBytes);
  append_le(bytes_, value);
}

void Message::text(int field, std::string_view text) {
  begin(field, text.size());
  bytes_.append(text);
}

void Message::begin(int field, uint64_t length) {
  tag(field, kLength);
  varint(length);
}

}  // namespace compress::onnx
