// What a call complains about, for tests of messages.

#pragma once

#include "compress/error.h"

#include <string>
#include <utility>

namespace compress::testing {

/// The text of the Error that `call` throws; "no error" if it throws none.
template <class Call>
std::string message_of(Call&& call) {
  try {
    std::forward<Call>(call)();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace compress::testing
