// Exported programs: what loads has a text form that reads back the same, and what is well formed
// can be written and loaded again. Inputs are archives as text (sections.h).

#include "compress/error.h"
#include "compress/graph/batch.h"
#include "compress/graph/text.h"
#include "compress/graph/verify.h"
#include "compress/io/mapped_file.h"
#include "compress/io/pt2.h"
#include "compress/io/zip.h"
#include "tests/fuzz/require.h"
#include "tests/fuzz/sections.h"

#include <ATen/Parallel.h>

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <span>

namespace {

// A zip archive of stored entries with the right checksums.
std::string zip_of(const std::vector<compress::fuzz::Section>& sections) {
  std::string archive, directory;
  const auto put = [](std::string& out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  };
  for (const compress::fuzz::Section& section : sections) {
    const uint64_t offset = archive.size(), size = section.contents.size();
    const uint64_t checksum = compress::zip_crc32(std::as_bytes(std::span(section.contents)));
    std::string fields;  // what both headers share
    put(fields, 0, 4);   // flags, stored
    put(fields, 0, 4);   // time
    put(fields, checksum, 4);
    put(fields, size, 4);
    put(fields, size, 4);
    put(fields, section.name.size(), 2);
    put(fields, 0, 2);  // no extra field
    put(archive, 0x04034b50, 4);
    put(archive, 20, 2);  // version
    archive += fields + section.name + section.contents;
    put(directory, 0x02014b50, 4);
    put(directory, 20, 2);
    put(directory, 20, 2);
    directory += fields;
    put(directory, 0, 10);  // comment, disk, attributes
    put(directory, offset, 4);
    directory += section.name;
  }
  const uint64_t start = archive.size();
  archive += directory;
  put(archive, 0x06054b50, 4);
  put(archive, 0, 4);
  put(archive, sections.size(), 2);
  put(archive, sections.size(), 2);
  put(archive, directory.size(), 4);
  put(archive, start, 4);
  put(archive, 0, 2);
  return archive;
}

// The text form refuses `aten::` operators that this LibTorch lacks.
bool has_unknown_operator(const compress::Model& model) {
  for (const compress::Node& node : model.graph().nodes()) {
    if (node.schema() == nullptr && node.op().starts_with("aten::")) return true;
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  at::set_num_threads(1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace compress;
  // Enough to run the models of the corpus at twice their batch.
  const BatchOptions small{.most_bytes = 1 << 20, .most_macs = 1 << 20};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string archive = zip_of(fuzz::split_sections(text));
  std::optional<Model> model;
  try {
    model = load_pt2(MappedFile::from_bytes(archive), small);
  } catch (const Error&) {
    return 0;
  }
  if (!problems(*model, {.unused = false}).empty()) return 0;
  if (!has_unknown_operator(*model)) {
    const std::string printed = print(*model);
    FUZZ_REQUIRE(print(parse_model(printed)) == printed);
  }
  static const std::string path =
      (std::filesystem::temp_directory_path() / ("lathe-fuzz-" + std::to_string(getpid())))
          .string();
  try {
    save_pt2(*model, path);
  } catch (const Error&) {
    return 0;  // what this process does not know, it may not be able to write
  }
  const Model again = load_pt2(std::filesystem::path(path), small);
  FUZZ_REQUIRE(again.graph().inputs().size() == model->graph().inputs().size());
  FUZZ_REQUIRE(again.graph().outputs().size() == model->graph().outputs().size());
  FUZZ_REQUIRE(problems(again, {.unused = false}).empty());
  ::unlink(path.c_str());
  return 0;
}
