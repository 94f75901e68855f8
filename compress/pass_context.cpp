// Randomness and reports of a pass.

#include "compress/pass_context.h"

#include "compress/calibrate/statistics.h"
#include "compress/error.h"

#include <ATen/CPUGeneratorImpl.h>

#include <utility>

namespace compress {
namespace {

// FNV-1a over the bytes of a number or a text, finished by the mixer of SplitMix64: LibTorch's
// generator takes the low 32 bits of its seed, so they must depend on everything.
uint64_t mix(uint64_t hash, std::string_view bytes) {
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  return hash ^ (hash >> 31);
}

uint64_t mix(uint64_t hash, uint64_t number) {
  char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(number >> (8 * i));
  return mix(hash, std::string_view(bytes, sizeof bytes));
}

}  // namespace

at::Generator PassContext::generator(std::string_view name) const {
  constexpr uint64_t kOffsetBasis = 0xcbf29ce484222325u;
  const uint64_t seed = mix(mix(mix(kOffsetBasis, seed_), uint64_t{step_}), name);
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

bool PassContext::begin(std::string_view item) {
  if (edits_ >= edit_limit) return false;
  ++edits_;
  item_ = item;
  return true;
}

void PassContext::count(std::string_view name, int64_t n) { counts_[std::string(name)] += n; }

void PassContext::measure(std::string_view name, double figure) {
  measures_[std::string(name)] = figure;
}

void PassContext::message(std::string text) {
  if (on_message) on_message(text);
  messages_.push_back(std::move(text));
}

void PassContext::progress(int64_t done, int64_t total) {
  if (on_progress) on_progress(done, total);
}

const BatchSource& PassContext::calibration() const {
  if (!batches) {
    throw Error(ErrorCode::kInvalidArgument, "there is no calibration data", "",
                "add a `calibration` entry to `data`");
  }
  return batches;
}

const Statistics& PassContext::statistics() const {
  COMPRESS_CHECK(collected != nullptr, "a pass asked for statistics without a wish");
  return *collected;
}

}  // namespace compress
