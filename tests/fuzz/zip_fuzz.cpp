// Zip archives: whatever opens stays inside the file, and reads the same after being written anew.

#include "compress/error.h"
#include "compress/io/zip.h"
#include "tests/fuzz/require.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace compress;
  try {
    const auto file =
        MappedFile::from_bytes(std::string(reinterpret_cast<const char*>(data), size));
    const ZipReader zip(file);
    static const std::string path =
        (std::filesystem::temp_directory_path() / ("lathe-fuzz-" + std::to_string(getpid())))
            .string();
    ZipWriter writer(path);
    std::vector<std::pair<std::string, std::string>> kept;
    for (const ZipEntry& entry : zip.entries()) {
      FUZZ_REQUIRE(entry.data_offset + entry.stored_size <= size);
      FUZZ_REQUIRE(zip_name_problem(entry.name).empty());
      FUZZ_REQUIRE(zip.find(entry.name) == &entry);
      try {
        std::string contents = zip.read(entry);
        FUZZ_REQUIRE(contents.size() == entry.size);
        writer.add(entry.name, contents);
        kept.emplace_back(entry.name, std::move(contents));
      } catch (const Error&) {  // a wrong checksum
      }
    }
    writer.finish();
    const ZipReader again = ZipReader::open(path);
    FUZZ_REQUIRE(again.entries().size() == kept.size());
    for (const auto& [name, contents] : kept) FUZZ_REQUIRE(again.read(again.at(name)) == contents);
    ::unlink(path.c_str());
  } catch (const Error&) {
  }
  return 0;
}
