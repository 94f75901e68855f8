// Finds the state_dict inside what a training script saved.

#include "compress/io/checkpoint_search.h"

#include "compress/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

namespace compress::detail {
namespace {

using Kind = PickleValue::Kind;

// Under which key scripts keep the weights, the likeliest first. Weights in training win over their
// moving average, because that is what accuracy tables are mostly made of.
constexpr std::array<std::string_view, 14> kWrappers = {
    "state_dict", "model_state_dict", "model_state",    "model",    "net",
    "network",    "net_state_dict",   "module",         "weights",  "params",
    "ema",        "ema_state_dict",   "state_dict_ema", "model_ema"};
// What belongs to training and not to the model.
constexpr std::array<std::string_view, 14> kTrainingState = {
    "optimizer",    "optimizer_state_dict", "optimizer_states", "optimizers",
    "optim",        "optim_state_dict",     "optimizer_state",  "scheduler",
    "lr_scheduler", "scheduler_state_dict", "lr_schedulers",    "scaler",
    "amp",          "grad_scaler"};
// Nesting that no script writes, and values that no checkpoint has.
constexpr int kMaxDepth = 24;
constexpr size_t kMaxVisits = 4'000'000;

template <size_t n>
bool contains(const std::array<std::string_view, n>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Search {
 public:
  Search(const TorchFile& file, const std::string& name)
      : file_(file), pickle_(file.pickle()), name_(name) {}

  StateDict run() {
    const PickleValue found = unwrap(file_.root());
    if (found.is(Kind::kTensor)) {
      add("tensor", found);
      note("the file holds one tensor without a name; it is called `tensor`");
    } else {
      collect(found, "", 0);
    }
    if (state_.tensors.empty()) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("holds no tensors (it is {})", pickle_.describe(file_.root())), name_,
                  "save it again with `torch.save(model.state_dict(), ...)`");
    }
    if (skipped_ > 0) {
      note(fmt::format("passed over {} values that are no tensors, such as `{}` ({})", skipped_,
                       skipped_example_, skipped_kind_));
    }
    return std::move(state_);
  }

 private:
  void note(std::string text) { state_.notes.push_back(std::move(text)); }

  void visit() {
    if (++visits_ > kMaxVisits) {
      throw Error(ErrorCode::kBadFile, "refers to the same values over and over", name_,
                  "the file was made to do harm");
    }
  }

  // The tensors below `value`, up to `enough`.
  size_t count_tensors(PickleValue value, int depth, size_t enough = SIZE_MAX) {
    visit();
    if (value.is(Kind::kTensor)) return 1;
    if (depth > kMaxDepth) return 0;
    size_t count = 0;
    if (value.is(Kind::kList) || value.is(Kind::kTuple) || value.is(Kind::kDict)) {
      const auto& items = pickle_.items(value);
      const size_t step = value.is(Kind::kDict) ? 2 : 1;
      for (size_t i = step - 1; i < items.size() && count < enough; i += step) {
        count += count_tensors(items[i], depth + 1, enough - count);
      }
    } else if (value.is(Kind::kObject) && is_module(value)) {
      count += count_tensors(pickle_.object(value).state, depth + 1, enough);
    }
    return count;
  }

  bool is_module(PickleValue value) const {
    return value.is(Kind::kObject) &&
           pickle_.get(pickle_.object(value).state, "_parameters").has_value() &&
           pickle_.get(pickle_.object(value).state, "_modules").has_value();
  }

  // Follows wrappers down to the dictionary (or module, list, tensor) that holds the weights.
  PickleValue unwrap(PickleValue value) {
    std::string path;
    for (int depth = 0; depth < kMaxDepth && value.is(Kind::kDict); ++depth) {
      const std::optional<std::string> key = wrapper_of(value);
      if (!key) break;
      note_left_out(value, *key);
      path += (path.empty() ? "" : ".") + *key;
      value = *pickle_.get(value, *key);
    }
    if (!path.empty()) note(fmt::format("took the tensors under `{}`", path));
    return value;
  }

  std::optional<std::string> wrapper_of(PickleValue dict) {
    for (const std::string_view key : kWrappers) {
      const auto value = pickle_.get(dict, key);
      if (value && !value->is(Kind::kTensor) && count_tensors(*value, 0, 1) > 0) {
        return std::string(key);
      }
    }
    // An unknown key is a wrapper if nothing else in the dictionary has tensors.
    std::optional<std::string> only;
    const auto& items = pickle_.items(dict);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].is(Kind::kString) && contains(kTrainingState, pickle_.text(items[i]))) continue;
      if (count_tensors(items[i + 1], 0, 1) == 0) continue;
      const bool wraps = items[i].is(Kind::kString) && !items[i + 1].is(Kind::kTensor);
      if (!wraps || only) return std::nullopt;
      only = pickle_.text(items[i]);
    }
    // {"layer": {"weight": ...}} is a nested state_dict of one layer, and its name counts.
    if (only && pickle_.get(*pickle_.get(dict, *only), "weight")) return std::nullopt;
    return only;
  }

  void note_left_out(PickleValue dict, const std::string& taken) {
    const auto& items = pickle_.items(dict);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (!items[i].is(Kind::kString) || pickle_.text(items[i]) == taken) continue;
      const std::string_view key = pickle_.text(items[i]);
      const size_t count = count_tensors(items[i + 1], 0);
      if (contains(kTrainingState, key)) {
        note(fmt::format("left out `{}` ({} tensors of training state)", key, count));
      } else if (count > 0) {
        note(fmt::format("left out `{}` ({} tensors)", key, count));
      }
    }
  }

  std::string key_text(PickleValue key) const {
    if (key.is(Kind::kString)) return std::string(pickle_.text(key));
    if (key.is(Kind::kInt)) return std::to_string(key.integer);
    return {};
  }

  void add(const std::string& name, PickleValue value) {
    // Repeated keys: the last one wins, as in Python.
    at::Tensor tensor;
    try {
      tensor = file_.tensor(value);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("tensor `{}`: {}", name, error.message()),
                  error.where(), error.hint());
    }
    const auto [place, fresh] = index_.emplace(name, state_.tensors.size());
    if (fresh) {
      state_.tensors.emplace_back(name, std::move(tensor));
    } else {
      state_.tensors[place->second].second = std::move(tensor);
    }
  }

  void collect(PickleValue value, const std::string& prefix, int depth) {
    visit();
    if (depth > kMaxDepth) {
      throw Error(ErrorCode::kBadFile, fmt::format("nested deeper than {}", kMaxDepth), name_);
    }
    if (value.is(Kind::kTensor)) {
      add(prefix, value);
    } else if (value.is(Kind::kDict)) {
      const auto& items = pickle_.items(value);
      for (size_t i = 0; i + 1 < items.size(); i += 2) {
        const std::string key = key_text(items[i]);
        if (depth == 0 && contains(kTrainingState, key) && !items[i + 1].is(Kind::kTensor)) {
          note(fmt::format("left out `{}` ({} tensors of training state)", key,
                           count_tensors(items[i + 1], 0)));
          continue;
        }
        collect(items[i + 1], joined(prefix, key), depth + 1);
      }
    } else if (value.is(Kind::kList) || value.is(Kind::kTuple)) {
      size_t i = 0;
      for (const PickleValue item : pickle_.items(value)) {
        collect(item, joined(prefix, std::to_string(i++)), depth + 1);
      }
    } else if (is_module(value)) {
      if (depth == 0) {
        note(fmt::format("took parameters and buffers out of a pickled `{}`, without running it",
                         pickle_.object(value).global));
      }
      collect_module(value, prefix, depth);
    } else {
      skip(value, prefix);
    }
  }

  std::string joined(const std::string& prefix, const std::string& key) const {
    return prefix.empty() ? key : prefix + "." + key;
  }

  // As Module.state_dict does: parameters, persistent buffers, then the modules inside.
  void collect_module(PickleValue module, const std::string& prefix, int depth) {
    const PickleValue state = pickle_.object(module).state;
    std::unordered_set<std::string> transient;
    if (const auto names = pickle_.get(state, "_non_persistent_buffers_set");
        names && names->is(Kind::kList)) {
      for (const PickleValue item : pickle_.items(*names)) transient.insert(key_text(item));
    }
    for (const char* part : {"_parameters", "_buffers", "_modules"}) {
      const auto members = pickle_.get(state, part);
      if (!members || !members->is(Kind::kDict)) continue;
      const auto& items = pickle_.items(*members);
      for (size_t i = 0; i + 1 < items.size(); i += 2) {
        const std::string key = key_text(items[i]);
        const bool absent = items[i + 1].is(Kind::kNone);
        if (absent || (part == std::string_view("_buffers") && transient.count(key))) continue;
        collect(items[i + 1], joined(prefix, key), depth + 1);
      }
    }
  }

  void skip(PickleValue value, const std::string& name) {
    if (value.is(Kind::kObject)) {
      const std::string_view global = pickle_.object(value).global;
      if (global.starts_with("torch._utils._rebuild_")) {
        throw Error(ErrorCode::kUnsupported,
                    fmt::format("tensor `{}` is of a kind that is not read (`{}`)", name, global),
                    name_, "dequantize or densify it before saving");
      }
    }
    if (skipped_++ == 0) {
      skipped_example_ = name;
      skipped_kind_ = pickle_.describe(value);
    }
  }

  const TorchFile& file_;
  const Pickle& pickle_;
  const std::string& name_;
  StateDict state_;
  std::unordered_map<std::string, size_t> index_;
  size_t visits_ = 0, skipped_ = 0;
  std::string skipped_example_, skipped_kind_;
};

}  // namespace

StateDict find_state_dict(const TorchFile& file, const std::string& name) {
  return Search(file, name).run();
}

}  // namespace compress::detail
