// Writes zip archives in the form that PyTorch's own writer gives them.

#include "compress/error.h"
#include "compress/io/little_endian.h"
#include "compress/io/zip.h"
#include "compress/io/zip_format.h"
#include "compress/io/zlib.h"

#include <ATen/Parallel.h>

#include <fmt/format.h>

#include <algorithm>

namespace compress {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint32_t kMax32 = 0xffffffffu;
// 1 January 1980, the beginning of time in zip files: same input, same bytes.
constexpr uint16_t kDate = 0x0021, kTime = 0;
constexpr uint16_t kVersion = 45;  // 4.5: zip64
constexpr uint16_t kUtf8Names = 1u << 11;
constexpr size_t kCrcPiece = size_t{4} << 20;

// The fields that a local header and a directory entry share, from "version needed" to the sizes.
void append_common(std::string& to, uint16_t method, uint32_t crc32, uint64_t stored_size,
                   uint64_t size) {
  append_le<uint16_t>(to, kVersion);
  append_le<uint16_t>(to, kUtf8Names);
  append_le<uint16_t>(to, method);
  append_le<uint16_t>(to, kTime);
  append_le<uint16_t>(to, kDate);
  append_le<uint32_t>(to, crc32);
  append_le<uint32_t>(to, static_cast<uint32_t>(std::min<uint64_t>(stored_size, kMax32)));
  append_le<uint32_t>(to, static_cast<uint32_t>(std::min<uint64_t>(size, kMax32)));
}

// `text` as a raw deflate stream, or nothing if that is not smaller.
std::string deflate_text(std::string_view text) {
  z_stream stream{};
  if (text.empty() || text.size() >= kMax32) return {};
  if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) !=
      Z_OK) {
    return {};
  }
  std::string out(text.size(), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const bool smaller = ::deflate(&stream, Z_FINISH) == Z_STREAM_END;
  out.resize(smaller ? stream.total_out : 0);
  deflateEnd(&stream);
  return out;
}

}  // namespace

uint32_t zip_crc32(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const Bytef*>(bytes.data());
  const auto pieces = static_cast<int64_t>((bytes.size() + kCrcPiece - 1) / kCrcPiece);
  if (pieces <= 1) return static_cast<uint32_t>(crc32_z(0, data, bytes.size()));
  std::vector<uLong> sums(pieces);
  const auto length = [&](int64_t i) {
    return std::min(kCrcPiece, bytes.size() - static_cast<size_t>(i) * kCrcPiece);
  };
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      sums[i] = crc32_z(0, data + static_cast<size_t>(i) * kCrcPiece, length(i));
    }
  });
  uLong sum = sums[0];
  for (int64_t i = 1; i < pieces; ++i) {
    sum = crc32_combine(sum, sums[i], static_cast<z_off_t>(length(i)));
  }
  return static_cast<uint32_t>(sum);
}

ZipWriter::ZipWriter(const std::filesystem::path& path) : file_(path) {}

void ZipWriter::add(const std::string& name, std::span<const std::byte> contents) {
  add_entry(name, contents, zip::kStored, contents.size(), zip_crc32(contents));
}

void ZipWriter::add_deflated(const std::string& name, std::string_view text) {
  const std::string deflated = deflate_text(text);
  if (deflated.empty()) return add(name, text);
  add_entry(name, std::as_bytes(std::span(deflated)), zip::kDeflated, text.size(),
            zip_crc32(std::as_bytes(std::span(text))));
}

void ZipWriter::add_entry(const std::string& name, std::span<const std::byte> stored,
                          uint16_t method, uint64_t size, uint32_t checksum) {
  const std::string problem = zip_name_problem(name);
  if (!problem.empty() || name.back() == '/') {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the name of archive entry `{}` {}", name,
                            problem.empty() ? "ends in a slash" : problem));
  }
  if (!names_.insert(name).second) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("two archive entries are named `{}`", name));
  }
  const uint64_t header_offset = file_.size();

  std::string extra;
  if (size >= kMax32) {
    append_le<uint16_t>(extra, 1);
    append_le<uint16_t>(extra, 16);
    append_le<uint64_t>(extra, size);
    append_le<uint64_t>(extra, size);
  }
  // The data are aligned by an extra field "FB" full of Z, which is how PyTorch does it.
  const uint64_t unpadded = header_offset + zip::kLocalHeaderSize + name.size() + extra.size() + 4;
  const uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  extra += "FB";
  append_le<uint16_t>(extra, static_cast<uint16_t>(padding));
  extra.append(padding, 'Z');

  std::string header;
  append_le<uint32_t>(header, zip::kLocalHeader);
  append_common(header, method, checksum, stored.size(), size);
  append_le<uint16_t>(header, static_cast<uint16_t>(name.size()));
  append_le<uint16_t>(header, static_cast<uint16_t>(extra.size()));
  file_.append(header + name + extra);
  file_.append(stored);
  records_.push_back({name, method, stored.size(), size, header_offset, checksum});
}

void ZipWriter::finish() {
  const uint64_t directory_offset = file_.size();
  for (const Record& record : records_) {
    std::string extra;
    if (record.size >= kMax32) {
      append_le<uint64_t>(extra, record.size);
      append_le<uint64_t>(extra, record.size);
    }
    if (record.header_offset >= kMax32) append_le<uint64_t>(extra, record.header_offset);
    if (!extra.empty()) {
      std::string field;
      append_le<uint16_t>(field, 1);
      append_le<uint16_t>(field, static_cast<uint16_t>(extra.size()));
      extra = field + extra;
    }
    std::string entry;
    append_le<uint32_t>(entry, zip::kDirectoryEntry);
    append_le<uint16_t>(entry, kVersion);
    append_common(entry, record.method, record.crc32, record.stored_size, record.size);
    append_le<uint16_t>(entry, static_cast<uint16_t>(record.name.size()));
    append_le<uint16_t>(entry, static_cast<uint16_t>(extra.size()));
    entry.append(10, '\0');  // comment size, disk, attributes
    append_le<uint32_t>(entry,
                        static_cast<uint32_t>(std::min<uint64_t>(record.header_offset, kMax32)));
    file_.append(entry + record.name + extra);
  }
  const uint64_t directory_size = file_.size() - directory_offset;
  const bool zip64 = records_.size() >= 0xffff || directory_offset >= kMax32;
  std::string end;
  if (zip64) {
    const uint64_t end64_offset = file_.size();
    append_le<uint32_t>(end, zip::kEnd64);
    append_le<uint64_t>(end, 44);  // bytes of this record after this field
    append_le<uint16_t>(end, kVersion);
    append_le<uint16_t>(end, kVersion);
    append_le<uint64_t>(end, 0);  // disks
    append_le<uint64_t>(end, records_.size());
    append_le<uint64_t>(end, records_.size());
    append_le<uint64_t>(end, directory_size);
    append_le<uint64_t>(end, directory_offset);
    append_le<uint32_t>(end, zip::kEnd64Locator);
    append_le<uint32_t>(end, 0);
    append_le<uint64_t>(end, end64_offset);
    append_le<uint32_t>(end, 1);
  }
  const auto count = static_cast<uint16_t>(std::min<size_t>(records_.size(), 0xffff));
  append_le<uint32_t>(end, zip::kEnd);
  append_le<uint32_t>(end, 0);  // disks
  append_le<uint16_t>(end, count);
  append_le<uint16_t>(end, count);
  append_le<uint32_t>(end, static_cast<uint32_t>(std::min<uint64_t>(directory_size, kMax32)));
  append_le<uint32_t>(end, static_cast<uint32_t>(std::min<uint64_t>(directory_offset, kMax32)));
  append_le<uint16_t>(end, 0);
  file_.append(end);
  file_.commit();
}

}  // namespace compress
