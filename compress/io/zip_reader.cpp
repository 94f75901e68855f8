// Reads zip archives; PKWARE's APPNOTE 6.3 gives the layout. Nothing in the file is believed before
// it is checked against the file's size and against the rest of the directory.

#include "compress/error.h"
#include "compress/io/little_endian.h"
#include "compress/io/tensor_view.h"
#include "compress/io/zip.h"
#include "compress/io/zip_format.h"
#include "compress/io/zlib.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace compress {
namespace {

using namespace zip;

constexpr uint64_t kMaxComment = 65535;
constexpr uint16_t kZip64Extra = 1;
// Deflate reaches 1032 : 1 at most; JSON and pickles stay far below 200 : 1. The allowance lets
// small, very regular entries through.
constexpr uint64_t kMaxRatio = 200, kRatioAllowance = uint64_t{1} << 20;
// Local headers are looked at once; their pages are given back in groups (a 1 GB archive must open
// in a few MB of memory).
constexpr size_t kReleaseEvery = 64;

struct Directory {
  uint64_t offset = 0, size = 0, entries = 0;
};

// The 64-bit end record that a locator right before the 32-bit one points to.
Directory read_end64(const MappedFile& file, uint64_t locator) {
  const auto* at_locator = file.bytes(locator, kLocatorSize).data();
  const auto end = load_le<uint64_t>(at_locator + 8);
  if (end > locator || locator - end < kEnd64Size) {
    throw file.damaged(fmt::format("zip64 end record at byte {} is outside of the archive", end));
  }
  const auto* record = file.bytes(end, kEnd64Size).data();
  if (load_le<uint32_t>(record) != kEnd64) {
    throw file.damaged(fmt::format("no zip64 end record at byte {}", end));
  }
  Directory directory{load_le<uint64_t>(record + 48), load_le<uint64_t>(record + 40),
                      load_le<uint64_t>(record + 32)};
  if (directory.size > end || directory.offset != end - directory.size) {
    throw file.damaged("the directory does not end where the zip64 end record begins");
  }
  return directory;
}

Directory find_directory(const MappedFile& file) {
  if (file.size() < kEndSize) throw file.damaged("too short for a zip archive");
  const uint64_t last = file.size() - kEndSize;
  const uint64_t first = last - std::min(last, kMaxComment);
  for (uint64_t at = last + 1; at-- > first;) {
    const auto* record = file.bytes(at, kEndSize).data();
    if (load_le<uint32_t>(record) != kEnd) continue;
    if (at + kEndSize + load_le<uint16_t>(record + 20) != file.size()) continue;
    if (at >= kLocatorSize &&
        load_le<uint32_t>(file.bytes(at - kLocatorSize, 4).data()) == kEnd64Locator) {
      return read_end64(file, at - kLocatorSize);
    }
    Directory directory{load_le<uint32_t>(record + 16), load_le<uint32_t>(record + 12),
                        load_le<uint16_t>(record + 10)};
    if (load_le<uint16_t>(record + 4) != 0 || load_le<uint16_t>(record + 6) != 0) {
      throw Error(ErrorCode::kUnsupported, "is one part of an archive in several files",
                  file.name());
    }
    if (directory.size > at || directory.offset != at - directory.size) {
      throw file.damaged("the directory does not end where the end record begins");
    }
    return directory;
  }
  throw file.damaged("no zip directory at the end of the file");
}

// Replaces the 32-bit fields that say "see the zip64 extra field".
void apply_zip64(const MappedFile& file, std::span<const std::byte> extra, ZipEntry& entry,
                 uint64_t& local_header) {
  const std::array<uint64_t*, 3> fields = {&entry.size, &entry.stored_size, &local_header};
  while (extra.size() >= 4) {
    const auto id = load_le<uint16_t>(extra.data());
    const size_t size = load_le<uint16_t>(extra.data() + 2);
    if (size > extra.size() - 4) {
      throw file.damaged(fmt::format("an extra field of `{}` is too long", entry.name));
    }
    if (id == kZip64Extra) {
      size_t used = 0;
      for (uint64_t* field : fields) {
        if (*field != 0xffffffffu) continue;
        if (used + 8 > size) {
          throw file.damaged(fmt::format("zip64 sizes of `{}` are missing", entry.name));
        }
        *field = load_le<uint64_t>(extra.data() + 4 + used);
        used += 8;
      }
    }
    extra = extra.subspan(4 + size);
  }
}

void check_no_overlaps(const MappedFile& file, const std::vector<ZipEntry>& entries) {
  std::vector<const ZipEntry*> order;
  for (const ZipEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const ZipEntry* a, const ZipEntry* b) {
    return std::pair(a->data_offset, a->stored_size) < std::pair(b->data_offset, b->stored_size);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    // Between two entries' data there is at least the header of the second.
    const uint64_t end = order[i - 1]->data_offset + order[i - 1]->stored_size;
    if (end + kLocalHeaderSize + order[i]->name.size() > order[i]->data_offset) {
      throw file.damaged(
          fmt::format("entries `{}` and `{}` overlap", order[i - 1]->name, order[i]->name));
    }
  }
}

}  // namespace

std::string zip_name_problem(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > 65535) return "is longer than 65535 bytes";
  if (name.front() == '/') return "is absolute";
  if (name.find('\0') != name.npos) return "has a zero byte";
  if (name.find('\\') != name.npos) return "has a backslash";
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (name.substr(begin, end - begin) == "..") return "leads out of the archive";
    begin = end + 1;
  }
  return {};
}

ZipReader ZipReader::open(const std::filesystem::path& path) {
  return ZipReader(MappedFile::open(path));
}

ZipReader::ZipReader(std::shared_ptr<MappedFile> file) : file_(std::move(file)) {
  const Directory directory = find_directory(*file_);
  // Each entry takes at least its fixed part, so the count is bounded before anything is reserved.
  if (directory.entries > directory.size / kDirectoryEntrySize) {
    throw file_->damaged(fmt::format("{} entries do not fit into a directory of {} bytes",
                                     directory.entries, directory.size));
  }
  entries_.reserve(directory.entries);
  uint64_t at = directory.offset;
  const uint64_t end = directory.offset + directory.size;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (end - at < kDirectoryEntrySize) throw file_->damaged("the directory is cut off");
    const auto* record = file_->bytes(at, kDirectoryEntrySize).data();
    if (load_le<uint32_t>(record) != kDirectoryEntry) {
      throw file_->damaged(fmt::format("no directory entry at byte {}", at));
    }
    const uint64_t name_size = load_le<uint16_t>(record + 28);
    const uint64_t extra_size = load_le<uint16_t>(record + 30);
    const uint64_t comment_size = load_le<uint16_t>(record + 32);
    const uint64_t whole = kDirectoryEntrySize + name_size + extra_size + comment_size;
    if (end - at < whole) throw file_->damaged("the directory is cut off");

    ZipEntry entry;
    entry.name = file_->text(at + kDirectoryEntrySize, name_size);
    const std::string problem = zip_name_problem(entry.name);
    if (!problem.empty()) {
      throw file_->damaged(fmt::format("the name of entry `{}` {}", entry.name, problem));
    }
    const auto flags = load_le<uint16_t>(record + 8);
    const auto method = load_le<uint16_t>(record + 10);
    if ((flags & 1) != 0 || (method != kStored && method != kDeflated)) {
      throw Error(ErrorCode::kUnsupported,
                  (flags & 1) != 0 ? "is encrypted" : fmt::format("uses zip method {}", method),
                  where(entry), "repack the archive without compression");
    }
    entry.deflated = method == kDeflated;
    entry.crc32 = load_le<uint32_t>(record + 16);
    entry.stored_size = load_le<uint32_t>(record + 20);
    entry.size = load_le<uint32_t>(record + 24);
    uint64_t local_header = load_le<uint32_t>(record + 42);
    apply_zip64(*file_, file_->bytes(at + kDirectoryEntrySize + name_size, extra_size), entry,
                local_header);
    add_entry(std::move(entry), local_header, directory.offset);
    if (i % kReleaseEvery == kReleaseEvery - 1) file_->release(0, directory.offset);
    at += whole;
  }
  check_no_overlaps(*file_, entries_);
  std::erase_if(entries_, [](const ZipEntry& entry) { return entry.name.back() == '/'; });
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!index_.emplace(entries_[i].name, i).second) {
      throw file_->damaged(fmt::format("two entries are named `{}`", entries_[i].name));
    }
  }
}

void ZipReader::add_entry(ZipEntry entry, uint64_t local_header, uint64_t directory_offset) {
  if (local_header > directory_offset || directory_offset - local_header < kLocalHeaderSize) {
    throw file_->damaged(fmt::format("`{}` begins outside of the archive", entry.name));
  }
  const auto* record = file_->bytes(local_header, kLocalHeaderSize).data();
  const uint64_t name_size = load_le<uint16_t>(record + 26);
  const uint64_t extra_size = load_le<uint16_t>(record + 28);
  if (load_le<uint32_t>(record) != kLocalHeader) {
    throw file_->damaged(fmt::format("no header of `{}` at byte {}", entry.name, local_header));
  }
  entry.data_offset = local_header + kLocalHeaderSize + name_size + extra_size;
  if (entry.data_offset > directory_offset ||
      entry.stored_size > directory_offset - entry.data_offset) {
    throw file_->damaged(fmt::format("`{}` claims {} bytes from byte {} on, beyond the archive's",
                                     entry.name, entry.stored_size, entry.data_offset));
  }
  if (file_->text(local_header + kLocalHeaderSize, name_size) != entry.name ||
      load_le<uint16_t>(record + 8) != (entry.deflated ? kDeflated : kStored)) {
    throw file_->damaged(fmt::format("the header of `{}` contradicts the directory", entry.name));
  }
  if (!entry.deflated && entry.size != entry.stored_size) {
    throw file_->damaged(fmt::format("`{}` is stored, but claims {} bytes in {}", entry.name,
                                     entry.size, entry.stored_size));
  }
  if (entry.deflated && entry.size > kRatioAllowance &&
      entry.size / kMaxRatio > entry.stored_size) {
    throw file_->damaged(fmt::format("`{}` claims to inflate {} bytes to {}, more than {} : 1",
                                     entry.name, entry.stored_size, entry.size, kMaxRatio));
  }
  entries_.push_back(std::move(entry));
}

const ZipEntry* ZipReader::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

const ZipEntry& ZipReader::at(std::string_view name) const {
  if (const ZipEntry* entry = find(name)) return *entry;
  throw file_->damaged(fmt::format("has no entry `{}`", name));
}

std::span<const std::byte> ZipReader::bytes(const ZipEntry& entry) const {
  if (entry.deflated) {
    throw Error(ErrorCode::kUnsupported, "is compressed and cannot be used in place", where(entry));
  }
  return file_->bytes(entry.data_offset, entry.stored_size);
}

std::string ZipReader::read(const ZipEntry& entry) const {
  const auto stored = file_->bytes(entry.data_offset, entry.stored_size);
  std::string contents(entry.size, '\0');
  if (entry.deflated) {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
    // zlib counts in 32 bits: large entries go in pieces.
    size_t in = 0, out = 0;
    int status = Z_OK;
    while (status == Z_OK) {
      const auto in_piece = static_cast<uInt>(std::min<size_t>(stored.size() - in, 1u << 30));
      const auto out_piece = static_cast<uInt>(std::min<size_t>(contents.size() - out, 1u << 30));
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data())) + in;
      stream.next_out = reinterpret_cast<Bytef*>(contents.data()) + out;
      stream.avail_in = in_piece;
      stream.avail_out = out_piece;
      status = inflate(&stream, Z_NO_FLUSH);
      in += in_piece - stream.avail_in;
      out += out_piece - stream.avail_out;
    }
    inflateEnd(&stream);
    if (status != Z_STREAM_END || out != contents.size() || in != stored.size()) {
      throw Error(ErrorCode::kBadFile, "does not inflate to the size that it claims", where(entry),
                  "the archive is damaged; fetch it again");
    }
  } else if (!stored.empty()) {
    std::memcpy(contents.data(), stored.data(), stored.size());
  }
  if (zip_crc32(std::as_bytes(std::span(contents))) != entry.crc32) {
    throw Error(ErrorCode::kBadFile, "the checksum disagrees with the contents", where(entry),
                "the archive is damaged; fetch it again");
  }
  return contents;
}

void ZipReader::verify(const ZipEntry& entry) const {
  if (entry.deflated) {
    read(entry);
  } else if (zip_crc32(bytes(entry)) != entry.crc32) {
    throw Error(ErrorCode::kBadFile, "the checksum disagrees with the contents", where(entry),
                "the archive is damaged; fetch it again");
  }
}

at::Storage ZipReader::storage(const ZipEntry& entry, size_t alignment) const {
  if (!entry.deflated) return file_->storage(entry.data_offset, entry.size, alignment);
  return MappedFile::from_bytes(read(entry), where(entry))->storage(0, entry.size, alignment);
}

at::Tensor ZipReader::tensor(const ZipEntry& entry, at::ScalarType dtype, at::IntArrayRef sizes,
                             at::OptionalIntArrayRef strides, int64_t storage_offset) const {
  const std::string place = where(entry);
  const TensorView view{dtype, sizes.vec(),
                        strides ? strides->vec() : contiguous_strides(sizes, place),
                        storage_offset};
  return view_storage(storage(entry, c10::elementSize(dtype)), view, place);
}

}  // namespace compress
