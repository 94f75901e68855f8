// Text as tokens for language models: windows of characters or bytes.

#pragma once

#include "compress/data/dataset.h"

#include <filesystem>

namespace compress {

/// What one token is.
enum class TokenKind {
  kCharacters,  ///< a Unicode code point; numbered in the order of code points that the file uses
  kBytes,       ///< a byte; 256 tokens whatever the file
};

struct TextOptions {
  TokenKind tokens = TokenKind::kCharacters;
  int64_t length = 128;  ///< tokens of a sample
  int64_t stride = 0;    ///< tokens from one sample to the next; 0: `length`, no overlap
  double begin = 0.0;    ///< the share of the file's tokens where the samples begin ...
  double end = 1.0;      ///< ... and end. The vocabulary is always that of the whole file
};

/// Windows of a UTF-8 file: inputs int64 [n, length], labels int64 [n, length], the next token
/// each.
///
/// `info().classes` is the size of the vocabulary, `class_names` its characters (bytes have no
/// names). Bytes are used where they lie in the file; characters take 4 bytes of memory each.
/// Throws Error(kIo) for a file that cannot be read, Error(kBadFile) with the offset where it is
/// not UTF-8, Error(kInvalidArgument) if there is not one whole window.
DatasetPtr text_dataset(const std::filesystem::path& path, const TextOptions& options);

}  // namespace compress
