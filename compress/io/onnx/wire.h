// Protocol buffers' wire format, as far as ONNX needs it.
//
// A message is a sequence of fields, each a tag (number * 8 + type) and its content: a varint, four
// bytes, or a length and that many bytes. https://protobuf.dev/programming-guides/encoding

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace compress::onnx {

/// A message under construction.
class Message {
 public:
  /// A varint; negative numbers take ten bytes, as in int64.
  void integer(int field, int64_t value);
  /// Four bytes.
  void number(int field, float value);
  void text(int field, std::string_view text);
  void message(int field, const Message& message) { text(field, message.bytes_); }
  /// The tag and length of a field whose `length` bytes the caller writes itself.
  void begin(int field, uint64_t length);

  const std::string& bytes() const { return bytes_; }
  uint64_t size() const { return bytes_.size(); }

 private:
  void varint(uint64_t value);
  void tag(int field, int type) { varint(static_cast<uint64_t>(field) << 3 | type); }

  std::string bytes_;
};

}  // namespace compress::onnx
