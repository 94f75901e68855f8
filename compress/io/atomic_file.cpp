// Files that appear whole or not at all: written aside, synced, renamed.

#include "compress/io/atomic_file.h"

#include "compress/error.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

namespace compress {
namespace {

constexpr size_t kBufferSize = size_t{1} << 18;
constexpr uint64_t kWritebackSize = uint64_t{1} << 24;

Error cannot_write(const std::filesystem::path& target, int code) {
  const std::string name = target.string();
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  switch (code) {
    case ENOSPC:
    case EDQUOT:
      return Error(ErrorCode::kIo, "no space left to write it", name,
                   "free some space or write elsewhere; an older file of this name is untouched");
    case EFBIG:
      return Error(ErrorCode::kIo, "grows beyond the largest file that is allowed here", name,
                   "raise the limit (ulimit -f) or write elsewhere");
    case EACCES:
    case EPERM:
    case EROFS:
      return Error(ErrorCode::kIo, fmt::format("the folder `{}` may not be written to", folder),
                   name, "check its permissions or write elsewhere");
    case ENOENT:
    case ENOTDIR:
      return Error(ErrorCode::kIo, fmt::format("there is no folder `{}`", folder), name,
                   "make it first");
    case EISDIR:
      return Error(ErrorCode::kIo, "is a folder", name, "give the name of a file inside it");
    case ENAMETOOLONG:
      return Error(ErrorCode::kIo, "the name is too long", name, "take a shorter one");
    default:
      return Error(ErrorCode::kIo,
                   fmt::format("cannot be written: {}", std::generic_category().message(code)),
                   name);
  }
}

// A name beside the target that no other writer of this machine uses.
std::string aside_name(const std::filesystem::path& target) {
  static std::atomic<unsigned> counter{0};
  const auto folder = target.has_parent_path() ? target.parent_path() : ".";
  return (folder / fmt::format(".lathe-{}-{}.part", ::getpid(), counter++)).string();
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(target) {
  std::error_code ignored;
  // A link stays a link: what it points to is replaced.
  if (std::filesystem::is_symlink(target, ignored)) {
    const auto resolved = std::filesystem::weakly_canonical(target, ignored);
    if (!resolved.empty()) target_ = resolved;
  }
  if (!target_.has_filename()) throw cannot_write(target_, EISDIR);
  struct stat status {};
  const bool exists = ::stat(target_.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) throw cannot_write(target_, EISDIR);
  if (exists && !S_ISREG(status.st_mode)) {
    fd_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) throw cannot_write(target_, errno);
    return;
  }
  // A leftover of a killed process with our number is in the way at most once a name.
  for (int attempt = 0; fd_ < 0 && attempt < 100; ++attempt) {
    aside_ = aside_name(target_);
    fd_ = ::open(aside_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) break;
  }
  if (fd_ < 0) {
    aside_.clear();
    throw cannot_write(target_, errno);
  }
  if (exists) [[maybe_unused]]
    const int unimportant = ::fchmod(fd_, status.st_mode & 07777);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : target_(std::move(other.target_)),
      aside_(std::exchange(other.aside_, {})),
      buffer_(std::move(other.buffer_)),
      size_(other.size_),
      on_its_way_(other.on_its_way_),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  if (!aside_.empty()) ::unlink(aside_.c_str());
  aside_.clear();
}

void AtomicFile::write_all(const std::byte* data, size_t size, uint64_t offset) {
  COMPRESS_CHECK(fd_ >= 0, "a file is written to after commit or failure");
  while (size > 0) {
    const ssize_t written = aside_.empty() ? ::write(fd_, data, size)
                                           : ::pwrite(fd_, data, size, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      const int code = errno;
      discard();
      throw cannot_write(target_, code);
    }
    data += written;
    size -= static_cast<size_t>(written);
    offset += static_cast<uint64_t>(written);
  }
}

void AtomicFile::flush() {
  if (buffer_.empty()) return;
  write_all(reinterpret_cast<const std::byte*>(buffer_.data()), buffer_.size(),
            size_ - buffer_.size());
  buffer_.clear();
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferSize) flush();
  if (bytes.size() > kBufferSize) {
    write_all(bytes.data(), bytes.size(), size_);
  } else {
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  size_ += bytes.size();
  if (size_ - on_its_way_ >= kWritebackSize + kBufferSize) begin_writeback();
}

// The disk works while we compute, so that the sync at the end has little left to wait for. Only
// that sync makes the bytes safe and reports what went wrong.
void AtomicFile::begin_writeback() noexcept {
  const uint64_t written = size_ - buffer_.size();
#ifdef SYNC_FILE_RANGE_WRITE
  [[maybe_unused]] const int hint =
      ::sync_file_range(fd_, static_cast<off_t>(on_its_way_),
                        static_cast<off_t>(written - on_its_way_), SYNC_FILE_RANGE_WRITE);
#endif
  on_its_way_ = written;
}

void AtomicFile::pad_to(uint64_t alignment) {
  append(std::string((alignment - size_ % alignment) % alignment, '\0'));
}

void AtomicFile::write_at(uint64_t offset, std::string_view text) {
  COMPRESS_CHECK(offset <= size_ && text.size() <= size_ - offset,
                 "a header is written outside of its room");
  if (aside_.empty()) {
    throw Error(ErrorCode::kIo, "is a device or a pipe; this format must go back to its beginning",
                target_.string(), "write to a regular file");
  }
  flush();
  write_all(reinterpret_cast<const std::byte*>(text.data()), text.size(), offset);
}

void AtomicFile::sync() {
  flush();
  COMPRESS_CHECK(fd_ >= 0, "a file is synced after commit or failure");
  int failed = 0;
  // Pipes and devices have nothing to sync (EINVAL); closing reports what the disk said late.
  if (::fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) failed = errno;
  if (::close(std::exchange(fd_, -1)) != 0 && failed == 0) failed = errno;
  if (failed != 0) {
    discard();
    throw cannot_write(target_, failed);
  }
}

void AtomicFile::commit() {
  if (fd_ >= 0) sync();
  if (aside_.empty()) return;
  if (::rename(aside_.c_str(), target_.c_str()) != 0) {
    const int code = errno;
    discard();
    throw cannot_write(target_, code);
  }
  aside_.clear();
  // The rename itself must survive a power cut; a folder that cannot be opened for that is no
  // error.
  const std::string folder = target_.has_parent_path() ? target_.parent_path().string() : ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

void write_file(const std::filesystem::path& target, std::string_view text) {
  AtomicFile file(target);
  file.append(text);
  file.commit();
}

}  // namespace compress
