// Mutates JSON as a tree: most random changes of its bytes would only exercise the JSON parser.
// Works on texts of sections (sections.h) and on plain JSON.

#include "tests/fuzz/sections.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using Json = nlohmann::ordered_json;
using compress::fuzz::Section;

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  size_t below(size_t count) { return count == 0 ? 0 : random_() % count; }

  // Changes one place of the document.
  void mutate(Json& root) {
    std::vector<Json*> all;
    collect(root, all);
    Json& chosen = *all[below(all.size())];
    const Json other = *all[below(all.size())];
    switch (below(6)) {
      case 0:
        chosen = other;
        break;
      case 1:
        if (!chosen.empty() && chosen.is_structured()) {
          chosen.erase(std::next(chosen.begin(), below(chosen.size())));
        }
        break;
      case 2:
        insert(chosen, other, all);
        break;
      default:
        change(chosen, other);
    }
  }

 private:
  static void collect(Json& node, std::vector<Json*>& all) {
    all.push_back(&node);
    if (!node.is_structured()) return;
    for (Json& element : node) collect(element, all);
  }

  void insert(Json& chosen, const Json& other, const std::vector<Json*>& all) {
    if (chosen.is_array()) {
      chosen.insert(std::next(chosen.begin(), below(chosen.size() + 1)), other);
    } else if (chosen.is_object()) {
      // A key from anywhere in the document.
      for (int i = 0; i < 20; ++i) {
        const Json& donor = *all[below(all.size())];
        if (!donor.is_object() || donor.empty()) continue;
        const std::string key = std::next(donor.begin(), below(donor.size())).key();
        chosen[key] = other;
        return;
      }
    }
  }

  void change(Json& chosen, const Json& other) {
    if (chosen.is_boolean()) {
      chosen = !chosen.get<bool>();
    } else if (chosen.is_number()) {
      constexpr int64_t kNumbers[] = {
          0, 1, -1, 2, 3, 7, 64, 65536, 2147483648, INT64_MAX, INT64_MIN, 4611686018427387904};
      if (below(4) == 0) {
        chosen = 0.5 * chosen.get<double>();
      } else if (below(2) == 0) {
        chosen = static_cast<int64_t>(chosen.get<double>() < 1e9 ? chosen.get<double>() : 0) +
                 static_cast<int64_t>(below(5)) - 2;
      } else {
        chosen = kNumbers[below(std::size(kNumbers))];
      }
    } else if (chosen.is_string() && other.is_string()) {
      chosen = other;
    } else if (chosen.is_string()) {
      std::string text = chosen.get<std::string>();
      const size_t size = text.size();
      text.resize(size + 16);
      text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, text.size()));
      chosen = std::move(text);
    } else {
      chosen = other;
    }
  }

  std::mt19937 random_;
};

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  Mutator mutator(seed);
  if (mutator.below(5) == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<Section> sections =
      compress::fuzz::split_sections({reinterpret_cast<const char*>(data), size});
  // By size, as the largest holds the program.
  const size_t place = mutator.below(size);
  size_t end = 0;
  for (Section& section : sections) {
    end += section.name.size() + section.contents.size() + compress::fuzz::kMark.size() + 2;
    if (place >= end && &section != &sections.back()) continue;
    Json root = Json::parse(section.contents, nullptr, false);
    if (root.is_discarded()) break;
    const size_t times = 1 + mutator.below(3);
    for (size_t i = 0; i < times; ++i) mutator.mutate(root);
    section.contents = root.dump(-1, ' ', false, Json::error_handler_t::replace);
    const std::string text = compress::fuzz::join_sections(sections);
    if (text.size() > max_size) break;
    std::memcpy(data, text.data(), text.size());
    return text.size();
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
