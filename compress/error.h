// The error type for everything that a user can cause, and the check for our own bugs.

#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace compress {

/// What kind of mistake an `Error` reports; decides the exit code of the command line.
enum class ErrorCode {
  kInvalidArgument,  ///< a wrong option, recipe, selector or call (exit code 2)
  kBadFile,          ///< a file that is damaged, hostile or of another format (exit code 1)
  kIo,               ///< the file system said no: missing, unwritable, full (exit code 1)
  kUnsupported,      ///< well-formed, but something Lathe does not do (exit code 1)
  kRunFailed,        ///< the work itself failed: NaN weights, an operator that threw (exit code 1)
};

/// An error that the user can act on.
///
/// `message` says what was found and what it should have been, in lower case without a full stop.
/// `where` is a JSON pointer into a recipe, a file with a byte offset, or a parameter's name; it
/// may be empty. `hint` says what to do; it may be empty. `what()` is "where: message (hint)".
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message, std::string where = {}, std::string hint = {});

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& where() const { return where_; }
  const std::string& hint() const { return hint_; }

  /// The same error seen from further out: `outer` is put in front of `where` ("a.json" +
  /// "/steps").
  Error within(std::string_view outer) const;

 private:
  ErrorCode code_;
  std::string message_, where_, hint_;
};

/// The candidate that begins with `word`, else contains it, else is nearest by edits; or empty.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "did you mean `nearest`?", or empty.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& message);
}  // namespace detail

}  // namespace compress

/// Stops on a bug of ours (std::logic_error; exit code 3). Never for what a user can cause. Without
/// the file's folder, so that a compiler cache serves the same source to any checkout.
#define COMPRESS_CHECK(condition, message)                                              \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      ::compress::detail::check_failed(#condition, __FILE_NAME__, __LINE__, (message)); \
    }                                                                                   \
  } while (false)
