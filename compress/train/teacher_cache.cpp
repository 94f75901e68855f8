// A teacher's logits on disk, so that it runs once for each variant of a sample.

#include "compress/train/teacher_cache.h"

#include "compress/error.h"
#include "compress/io/atomic_file.h"
#include "compress/io/file_json.h"
#include "compress/io/little_endian.h"

#include <ATen/ops/empty.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

namespace compress {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kFormat = "lathe teacher logits 1";
constexpr uint64_t kPage = 4096;                  // the header ends at a multiple of it
constexpr uint64_t kMostHeader = 1 << 20;         // bytes
constexpr uint64_t kMostRow = uint64_t{1} << 32;  // elements
constexpr uint64_t kChecksum = sizeof(uint64_t);

Error system_error(ErrorCode code, const std::string& name, std::string_view what) {
  const int number = errno;
  return Error(code, fmt::format("{}: {}", what, std::generic_category().message(number)), name,
               number == ENOSPC ? "free some space, or train without a cache" : "");
}

// A part of a file's name: letters, digits, and a hash where others had to go.
std::string file_part(const std::string& text) {
  constexpr size_t kMostLetters = 48;
  std::string part;
  for (const char letter : text.substr(0, kMostLetters)) {
    const bool plain = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                       (letter >= '0' && letter <= '9') || letter == '.' || letter == '_';
    part += plain ? letter : '_';
  }
  return part == text ? part
                      : fmt::format("{}_{:016x}", part, XXH3_64bits(text.data(), text.size()));
}

ordered_json header_of(const TeacherCacheKey& key, uint64_t epoch, int64_t samples) {
  ordered_json header = {
      {"format", kFormat}, {"teacher", key.teacher}, {"data", key.data}, {"samples", samples}};
  if (key.augmented) header["seed"] = key.seed;
  if (key.augmented) header["epoch"] = epoch;
  return header;
}

}  // namespace

// One open file. Reading goes through a mapping, writing through the descriptor: the two see each
// other, and a full disk is an error and no signal.
class TeacherCache::File {
 public:
  // Opens the file if it is there.
  static std::unique_ptr<File> open(const std::filesystem::path& path, const ordered_json& header,
                                    int64_t samples);
  static void create(const std::filesystem::path& path, ordered_json header,
                     at::IntArrayRef row_sizes);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::vector<int64_t>& row_sizes() const { return row_sizes_; }
  // Copies the row; false if it is not there.
  bool read(int64_t index, float* row) const;
  void write(int64_t index, const float* row);

 private:
  explicit File(std::string name) : name_(std::move(name)) {}
  uint64_t load_header(uint64_t size, const ordered_json& expected);
  void map(int64_t samples, uint64_t size);
  uint64_t row_bytes() const { return elements_ * sizeof(float); }
  uint64_t stride() const { return (kChecksum + row_bytes() + 7) / 8 * 8; }
  uint64_t checksum(int64_t index, const void* row) const {
    const uint64_t sum = XXH64(row, row_bytes(), static_cast<uint64_t>(index));
    return sum == 0 ? 1 : sum;  // 0 is a record that was never written
  }
  Error bad(std::string message) const {
    return Error(ErrorCode::kBadFile, std::move(message), name_,
                 "remove it: the teacher's logits are computed anew");
  }

  std::string name_;
  int fd_ = -1;
  std::vector<int64_t> row_sizes_;
  uint64_t elements_ = 1, header_size_ = 0, file_size_ = 0;
  std::byte* data_ = nullptr;
};

TeacherCache::File::~File() {
  if (data_ != nullptr) ::munmap(data_, file_size_);
  if (fd_ >= 0) ::close(fd_);
}

std::unique_ptr<TeacherCache::File> TeacherCache::File::open(const std::filesystem::path& path,
                                                             const ordered_json& header,
                                                             int64_t samples) {
  std::unique_ptr<File> file(new File(path.string()));
  file->fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (file->fd_ < 0) {
    if (errno == ENOENT) return nullptr;
    throw system_error(ErrorCode::kIo, file->name_, "cannot be opened");
  }
  struct stat status {};
  if (::fstat(file->fd_, &status) != 0) {
    throw system_error(ErrorCode::kIo, file->name_, "cannot be opened");
  }
  if (!S_ISREG(status.st_mode)) throw file->bad("is no regular file");
  const auto size = static_cast<uint64_t>(status.st_size);
  file->header_size_ = file->load_header(size, header);
  file->map(samples, size);
  return file;
}

void TeacherCache::File::create(const std::filesystem::path& path, ordered_json header,
                                at::IntArrayRef row_sizes) {
  header["row"] = row_sizes.vec();
  std::string text = header.dump() + "\n";
  const uint64_t size = (sizeof(uint64_t) + text.size() + kPage - 1) / kPage * kPage;
  text.resize(size - sizeof(uint64_t), ' ');
  std::string bytes;
  append_le<uint64_t>(bytes, size);
  write_file(path, bytes + text);  // the records follow as a hole, which takes no space
}

// Reads and checks the header; its size in bytes.
uint64_t TeacherCache::File::load_header(uint64_t size, const ordered_json& expected) {
  uint64_t header_size = 0;
  const bool has_size = ::pread(fd_, &header_size, sizeof(header_size), 0) ==
                        static_cast<ssize_t>(sizeof(header_size));
  if (!has_size || header_size % kPage != 0 || header_size == 0 || header_size > kMostHeader ||
      header_size > size) {
    throw bad("is no file of a teacher's logits, or is cut off");
  }
  std::string text(header_size - sizeof(header_size), '\0');
  if (::pread(fd_, text.data(), text.size(), sizeof(header_size)) !=
      static_cast<ssize_t>(text.size())) {
    throw bad("cannot be read to the end of its header");
  }
  const ordered_json header = parse_file_json(text, name_);
  if (!header.contains("format") || header["format"] != kFormat) {
    throw bad("is no file of a teacher's logits");
  }
  for (const auto& [key, value] : expected.items()) {
    if (header.contains(key) && header[key] == value) continue;
    const std::string found = header.contains(key) ? header[key].dump() : "nothing";
    throw bad(fmt::format("belongs to another run: `{}` is {}, not {}", key, found, value.dump()));
  }
  const bool has_row = header.contains("row") && header["row"].is_array();
  if (!has_row || header["row"].size() > 8) throw bad("does not say how long a row is");
  for (const ordered_json& element : header["row"]) {
    const uint64_t count = element.is_number_unsigned() ? element.get<uint64_t>() : 0;
    if (count == 0 || count > kMostRow / elements_) throw bad("has rows of impossible sizes");
    row_sizes_.push_back(static_cast<int64_t>(count));
    elements_ *= count;
  }
  return header_size;
}

// The file ends after its header (just made, or killed then) or after its last record.
void TeacherCache::File::map(int64_t samples, uint64_t size) {
  const auto records = static_cast<uint64_t>(samples);
  const bool fits =
      records <=
      (static_cast<uint64_t>(std::numeric_limits<off_t>::max()) - header_size_) / stride();
  if (!fits) throw bad("has rows of impossible sizes");
  file_size_ = header_size_ + records * stride();
  if (size != header_size_ && size != file_size_) {
    throw bad(fmt::format("is {} bytes long, {} were expected", size, file_size_));
  }
  if (size == header_size_ && ::ftruncate(fd_, static_cast<off_t>(file_size_)) != 0) {
    throw system_error(ErrorCode::kIo, name_, "cannot be made longer");
  }
  void* data = ::mmap(nullptr, file_size_, PROT_READ, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) throw system_error(ErrorCode::kIo, name_, "cannot be mapped");
  data_ = static_cast<std::byte*>(data);
}

bool TeacherCache::File::read(int64_t index, float* row) const {
  const std::byte* record = data_ + header_size_ + static_cast<uint64_t>(index) * stride();
  const auto sum = load_le<uint64_t>(record);
  if (sum == 0) return false;
  std::memcpy(row, record + kChecksum, row_bytes());
  return checksum(index, row) == sum;
}

void TeacherCache::File::write(int64_t index, const float* row) {
  std::string record;
  append_le(record, checksum(index, row));
  record.append(reinterpret_cast<const char*>(row), row_bytes());
  uint64_t offset = header_size_ + static_cast<uint64_t>(index) * stride();
  for (size_t done = 0; done < record.size();) {
    const ssize_t written = ::pwrite(fd_, record.data() + done, record.size() - done,
                                     static_cast<off_t>(offset + done));
    if (written < 0 && errno != EINTR) {
      throw system_error(ErrorCode::kIo, name_, "cannot be written");
    }
    done += static_cast<size_t>(written < 0 ? 0 : written);
  }
}

TeacherCache::TeacherCache(std::filesystem::path folder, TeacherCacheKey key, int64_t samples)
    : folder_(std::move(folder)), key_(std::move(key)), samples_(samples) {
  std::error_code failure;
  std::filesystem::create_directories(folder_, failure);
  if (failure) {
    throw Error(ErrorCode::kIo, fmt::format("the folder cannot be made: {}", failure.message()),
                folder_.string());
  }
}

TeacherCache::~TeacherCache() = default;

std::filesystem::path TeacherCache::path(uint64_t epoch) const {
  std::string name = file_part(key_.teacher) + "-" + file_part(key_.data);
  if (key_.augmented) name += fmt::format("-{}-{}", key_.seed, epoch);
  return folder_ / (name + ".logits");
}

TeacherCache::File* TeacherCache::open(uint64_t epoch) {
  const uint64_t variant = key_.augmented ? epoch : 0;
  if (file_ == nullptr || variant != variant_) {
    file_ = File::open(path(variant), header_of(key_, variant, samples_), samples_);
    variant_ = variant;
  }
  return file_.get();
}

at::Tensor TeacherCache::find(const std::vector<int64_t>& indices, uint64_t epoch) {
  const File* file = open(epoch);
  if (file == nullptr || indices.empty()) return {};
  std::vector<int64_t> sizes = {static_cast<int64_t>(indices.size())};
  sizes.insert(sizes.end(), file->row_sizes().begin(), file->row_sizes().end());
  at::Tensor rows = at::empty(sizes, at::kFloat);
  float* next = rows.mutable_data_ptr<float>();
  const int64_t step = rows.numel() / sizes.front();
  for (const int64_t index : indices) {
    COMPRESS_CHECK(index >= 0 && index < samples_, "a sample is outside of the teacher's cache");
    if (!file->read(index, next)) return {};
    next += step;
  }
  return rows;
}

void TeacherCache::store(const std::vector<int64_t>& indices, uint64_t epoch,
                         const at::Tensor& rows) {
  if (rows.dim() < 1 || rows.size(0) != static_cast<int64_t>(indices.size())) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the teacher gives [{}] for {} samples", fmt::join(rows.sizes(), ", "),
                            indices.size()));
  }
  if (rows.scalar_type() != at::kFloat && !at::isReducedFloatingType(rows.scalar_type())) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("a cache keeps float32, the teacher gives {}",
                            c10::toString(rows.scalar_type())),
                folder_.string(), "train without a cache");
  }
  const at::IntArrayRef row_sizes = rows.sizes().slice(1);
  File* file = open(epoch);
  if (file == nullptr) {
    const uint64_t variant = key_.augmented ? epoch : 0;
    File::create(path(variant), header_of(key_, variant, samples_), row_sizes);
    file = open(epoch);
    COMPRESS_CHECK(file != nullptr, "a file that was just made is gone");
  }
  if (row_sizes != at::IntArrayRef(file->row_sizes())) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("has rows of [{}], the teacher gives [{}]",
                            fmt::join(file->row_sizes(), ", "), fmt::join(row_sizes, ", ")),
                path(epoch).string(), "remove it");
  }
  const at::Tensor plain = rows.detach().cpu().to(at::kFloat).contiguous();
  const float* next = plain.const_data_ptr<float>();
  const int64_t step = plain.numel() / std::max<int64_t>(1, plain.size(0));
  for (const int64_t index : indices) {
    COMPRESS_CHECK(index >= 0 && index < samples_, "a sample is outside of the teacher's cache");
    file->write(index, next);
    next += step;
  }
}

}  // namespace compress
