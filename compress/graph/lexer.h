// Words, numbers and quoted names of the text form: what the printer and the parser share.

#pragma once

#include "compress/error.h"
#include "compress/graph/argument.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace compress::text {

/// Adds `name` bare where it is a plain word that no constant is spelled like, else as `%"name"`.
void append_name(std::string& text, std::string_view name);
/// The same for a place where no constant can stand, such as a module path (`@ 0`).
void append_path(std::string& text, std::string_view path);
/// Adds `string` in quotes with JSON's escapes.
void append_quoted(std::string& text, std::string_view string);
/// Adds the shortest form that reads back as the same double; always with a mark of a float.
void append_double(std::string& text, double number);
void append_int(std::string& text, int64_t number);

/// Whether a word is spelled like a number: digits, `-2`, `1e-5`, `inf`, `-inf`, `nan`.
bool is_number(std::string_view word);
/// The integer or float that a number stands for; nothing when it is an integer beyond 64 bits.
std::optional<Argument> read_number(std::string_view word);
/// The constant that a word stands for (`none`, `true`, `f32`, `cpu`), numbers apart.
std::optional<Argument> find_constant(std::string_view word);

struct Token {
  enum class Kind {
    kWord,        ///< name, number, operator, keyword
    kQuotedName,  ///< %"..."; `text` is decoded
    kString,      ///< "..."; `text` is decoded
    kDigest,      ///< #c0ffee; `text` without the mark
    kSymbol,      ///< one of ( ) [ ] , = : @ ?
    kNewline,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  size_t offset = 0;

  bool is_symbol(char symbol) const { return kind == Kind::kSymbol && text[0] == symbol; }
  bool is_word(std::string_view word) const { return kind == Kind::kWord && text == word; }
  bool is_name() const { return kind == Kind::kWord || kind == Kind::kQuotedName; }
};

/// Cuts a text into tokens, one ahead.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { advance(); }

  const Token& token() const { return token_; }
  /// The token after the current one.
  Token following() const;
  void advance();
  /// The current token, going on to the next.
  Token take();
  /// The pieces between commas up to the bracket that closes the current `[`; goes on behind it.
  std::vector<std::string_view> take_dims();
  /// Inside of brackets a line may be broken.
  void enter() { ++depth_; }
  void leave() { --depth_; }

  /// Throws Error(kBadFile): `message` at the line and column of `offset`.
  [[noreturn]] void fail(size_t offset, const std::string& message,
                         const std::string& hint = {}) const;
  /// Throws "found ..., expected ..." at the current token.
  [[noreturn]] void fail_expected(std::string_view expected) const;

 private:
  void skip_space();
  std::string read_quoted();
  void read_escape(std::string& decoded);
  uint32_t read_hex4();

  std::string_view text_;
  size_t position_ = 0;
  int depth_ = 0;
  Token token_;
};

}  // namespace compress::text
