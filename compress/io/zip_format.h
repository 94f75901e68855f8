// Signatures and methods of the zip format (PKWARE's APPNOTE 6.3.10), for its reader and writer.

#pragma once

#include <cstdint>

namespace compress::zip {

inline constexpr uint32_t kLocalHeader = 0x04034b50, kDirectoryEntry = 0x02014b50;
inline constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
inline constexpr uint64_t kLocalHeaderSize = 30, kDirectoryEntrySize = 46, kEndSize = 22;
inline constexpr uint64_t kEnd64Size = 56, kLocatorSize = 20;
inline constexpr uint16_t kStored = 0, kDeflated = 8;

}  // namespace compress::zip
