// A file seen as memory: weights are used where they lie in the page cache, never read up front.

#include "compress/io/mapped_file.h"

#include "compress/io/tensor_view.h"

#include <c10/core/CPUAllocator.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace compress {
namespace {

// The deleter of storages that view a mapping; release_pages() knows them by it.
void delete_owner(void* context) { delete static_cast<std::shared_ptr<MappedFile>*>(context); }

}  // namespace
namespace {

Error cannot_open(const std::string& name, int code) {
  switch (code) {
    case ENOENT:
    case ENOTDIR:
      return Error(ErrorCode::kIo, "no such file", name, "check the path");
    case EACCES:
    case EPERM:
      return Error(ErrorCode::kIo, "may not be read", name, "check the file's permissions");
    default:
      return Error(ErrorCode::kIo,
                   fmt::format("cannot be opened: {}", std::generic_category().message(code)),
                   name);
  }
}

// Closes the descriptor when the scope ends; the mapping outlives it.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const std::string name = path.string();
  // O_NONBLOCK: a named pipe without a writer must not hang us before we can refuse it.
  const Descriptor file{::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) throw cannot_open(name, errno);
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) throw cannot_open(name, errno);
  if (S_ISDIR(status.st_mode)) {
    throw Error(ErrorCode::kIo, "is a folder, not a file", name, "name a file inside it");
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kIo, "is a device or a pipe, not a file", name,
                "write it to a file first");
  }
  if (status.st_size == 0) {
    throw Error(ErrorCode::kIo, "is empty (0 bytes)", name, "fetch or write it again");
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  // MAP_NORESERVE: a private writable mapping must not be charged against memory before it is used.
  void* data =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.fd, 0);
  if (data == MAP_FAILED) throw cannot_open(name, errno);
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->name_ = name;
  mapped->data_ = static_cast<std::byte*>(data);
  mapped->size_ = size;
  mapped->mapped_ = true;
  return mapped;
}

std::shared_ptr<MappedFile> MappedFile::from_bytes(std::string bytes, std::string name) {
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->name_ = std::move(name);
  file->memory_ = std::move(bytes);
  file->data_ = reinterpret_cast<std::byte*>(file->memory_.data());
  file->size_ = file->memory_.size();
  return file;
}

MappedFile::~MappedFile() {
  if (mapped_) ::munmap(data_, size_);
}

std::span<const std::byte> MappedFile::bytes(uint64_t offset, uint64_t size) const {
  if (offset > size_ || size > size_ - offset) {
    throw damaged(fmt::format("needs {} bytes from byte {} on, but the file ends at byte {}", size,
                              offset, size_));
  }
  return {data_ + offset, static_cast<size_t>(size)};
}

Error MappedFile::damaged(std::string message) const {
  return Error(ErrorCode::kBadFile, std::move(message), name_,
               "the file is cut off or damaged; fetch it again");
}

std::string_view MappedFile::text(uint64_t offset, uint64_t size) const {
  const auto range = bytes(offset, size);
  return {reinterpret_cast<const char*>(range.data()), range.size()};
}

at::Storage MappedFile::storage(uint64_t offset, uint64_t size, size_t alignment) {
  const auto range = bytes(offset, size);
  std::byte* data = data_ + offset;
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    at::DataPtr copy = c10::GetCPUAllocator()->allocate(size);
    std::memcpy(copy.get(), range.data(), size);
    return at::Storage(at::Storage::use_byte_size_t(), size, std::move(copy), nullptr, false);
  }
  auto* owner = new std::shared_ptr<MappedFile>(shared_from_this());
  at::DataPtr view(data, owner, &delete_owner, at::Device(at::kCPU));
  return at::Storage(at::Storage::use_byte_size_t(), size, std::move(view), nullptr, false);
}

at::Tensor MappedFile::tensor(uint64_t offset, at::ScalarType dtype, at::IntArrayRef sizes) {
  TensorView view{dtype, sizes.vec(), contiguous_strides(sizes, name_), 0};
  const uint64_t size = required_bytes(view, name_);
  return view_storage(storage(offset, size, c10::elementSize(dtype)), view, name_);
}

void MappedFile::release(uint64_t offset, uint64_t size) {
  if (!mapped_ || offset >= size_) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t end = offset + std::min(size, size_ - offset);
  const uint64_t first = (offset + page - 1) / page * page;
  const uint64_t last = end == size_ ? end : end / page * page;
  if (first < last) ::madvise(data_ + first, last - first, MADV_DONTNEED);
}

bool release_pages(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage() || !tensor.is_contiguous()) return false;
  const at::DataPtr& view = tensor.storage().data_ptr();
  if (view.get_deleter() != &delete_owner) return false;
  MappedFile& file = **static_cast<std::shared_ptr<MappedFile>*>(view.get_context());
  const auto* begin = static_cast<const std::byte*>(tensor.const_data_ptr());
  file.release(static_cast<uint64_t>(begin - file.bytes().data()), tensor.nbytes());
  return true;
}

}  // namespace compress
