// An archive as one text, so that a fuzzer can change what checksums would protect: entries follow
// each other, each under a line `#### name`. What stands before the first such line has no name.

#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace compress::fuzz {

inline constexpr std::string_view kMark = "#### ";

struct Section {
  std::string name;
  std::string contents;
};

inline std::vector<Section> split_sections(std::string_view text) {
  std::vector<Section> sections;
  const auto starts_section = [&](size_t at) {
    return text.substr(at, kMark.size()) == kMark && (at == 0 || text[at - 1] == '\n');
  };
  for (size_t start = 0; start < text.size();) {
    Section& section = sections.emplace_back();
    if (starts_section(start)) {
      const size_t line = std::min(text.find('\n', start), text.size());
      section.name = text.substr(start + kMark.size(), line - start - kMark.size());
      start = std::min(line + 1, text.size());
    }
    size_t end = start;
    while (end < text.size() && !(end > start && starts_section(end))) {
      end = std::min(text.find('\n', end), text.size() - 1) + 1;
    }
    // The newline in front of the next mark is not the entry's.
    const bool has_next = end < text.size() && end > start;
    section.contents = text.substr(start, end - start - (has_next ? 1 : 0));
    start = end;
  }
  return sections;
}

inline std::string join_sections(const std::vector<Section>& sections) {
  std::string text;
  for (const Section& section : sections) {
    if (!text.empty()) text += '\n';
    if (!section.name.empty()) text += std::string(kMark) + section.name + '\n';
    text += section.contents;
  }
  return text;
}

}  // namespace compress::fuzz
