// Little-endian numbers in bytes, whatever their alignment.

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace compress {

static_assert(std::endian::native == std::endian::little,
              "weight files are little-endian and are used in place");

template <class Number>
Number load_le(const void* from) {
  Number number;
  std::memcpy(&number, from, sizeof(Number));
  return number;
}

template <class Number>
void append_le(std::string& to, Number number) {
  to.append(reinterpret_cast<const char*>(&number), sizeof(Number));
}

}  // namespace compress
