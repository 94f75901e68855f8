// What a call complains about, for tests of messages.

#pragma once

#include <exception>
#include <string>
#include <utility>

namespace compress::testing {

/// The text of what `call` throws; "nothing was thrown" if it throws nothing.
template <class Call>
std::string message_of(Call&& call) {
  try {
    std::forward<Call>(call)();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace compress::testing
