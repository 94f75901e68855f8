// What a call says that is refused.

#pragma once

#include <exception>
#include <string>

namespace compress::testing {

/// The text of what `call` throws; "nothing was thrown" if it throws nothing.
template <class Call>
std::string thrown(const Call& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace compress::testing
