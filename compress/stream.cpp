// Runs a recipe on a set of tensors larger than memory, one tensor at a time.

#include "compress/stream.h"

#include "compress/error.h"
#include "compress/graph/digest.h"
#include "compress/graph/text.h"
#include "compress/io/compressed_tensors.h"
#include "compress/io/mapped_file.h"
#include "compress/io/safetensors.h"
#include "compress/multiversion.h"
#include "compress/pass_manager.h"
#include "compress/pass_manager_checks.h"
#include "compress/weight.h"
#include "compress/weights_file.h"

#include <ATen/Parallel.h>
#include <ATen/ops/count_nonzero.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

namespace compress {
namespace {

// Elements that one thread masks at once: they stay in its cache, and LibTorch takes no further
// threads for so few. A block of them is written at once, and threads meet once a block.
constexpr int64_t kPiece = 1 << 15;
constexpr int64_t kBlock = 1 << 21;

// Tensors whose bytes are no multiple of 8 would leave those behind them misaligned; up to this
// size they wait in memory for the end of the file.
constexpr size_t kWaitingBytes = 1 << 16;

// Elements that are not zero.
COMPRESS_MULTIVERSION
int64_t count_floats(const uint32_t* elements, int64_t size) {
  int64_t count = 0;
  for (int64_t i = 0; i < size; ++i) count += (elements[i] << 1) != 0;
  return count;
}

// The kept elements and zeros for the others, -0 made plain; returns how many are not zero.
COMPRESS_MULTIVERSION
int64_t mask_floats(const uint32_t* elements, const uint8_t* keep, int64_t size, uint32_t* out) {
  int32_t count = 0;
  for (int64_t i = 0; i < size; ++i) {
    const bool is_nonzero = (keep[i] != 0) & ((elements[i] << 1) != 0);
    out[i] = is_nonzero ? elements[i] : 0;
    count += is_nonzero;
  }
  return count;
}

const uint32_t* bits_of(const at::Tensor& floats) {
  return reinterpret_cast<const uint32_t*>(floats.const_data_ptr<float>());
}

int64_t count_elements(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat && tensor.is_contiguous()) {
    return count_floats(bits_of(tensor), tensor.numel());
  }
  return tensor.count_nonzero().item<int64_t>();
}

// As Weight::effective: the product with the mask, to which 0 is added for plain zeros.
int64_t mask_elements(const at::Tensor& elements, const at::Tensor& keep, at::Tensor& out) {
  if (elements.scalar_type() == at::kFloat) {
    return mask_floats(
        bits_of(elements), reinterpret_cast<const uint8_t*>(keep.const_data_ptr<bool>()),
        elements.numel(), reinterpret_cast<uint32_t*>(out.mutable_data_ptr<float>()));
  }
  at::mul_out(out, elements, keep).add_(0);
  return out.count_nonzero().item<int64_t>();
}

bool waits(const at::Tensor& tensor) {
  return tensor.nbytes() % 8 != 0 && tensor.nbytes() <= kWaitingBytes;
}

uint64_t header_room(const Recipe& recipe, const Model& model, const Metadata& metadata) {
  constexpr uint64_t kConfiguration = 400, kMessage = 300;  // bytes a layer, more than they take
  std::vector<std::string> names;
  size_t dims = 2;
  uint64_t layers = 4096 + 4 * recipe_json(recipe).dump().size();
  for (const NamedTensor& tensor : model.tensors()) {
    names.push_back(tensor.name);
    names.insert(names.end(), tensor.aliases.begin(), tensor.aliases.end());
    dims = std::max(dims, static_cast<size_t>(tensor.tensor.dim()));
    if (tensor.tensor.dim() < 2) continue;
    for (const char* part : {"_packed", "_shape", "_scale", "_zero_point"}) {
      names.push_back(tensor.name + part);
    }
    layers += kConfiguration + 4 * tensor.name.size() +
              recipe.steps.size() * (kMessage + tensor.name.size());
  }
  return layers + SafetensorsWriter::header_bound(names, dims, metadata);
}

// A model of one tensor.
Model model_of(const NamedTensor& tensor) {
  Model model;
  Value* value = model.add_tensor(tensor.name, tensor.tensor, tensor.role);
  for (const std::string& alias : tensor.aliases) model.add_alias(tensor.name, alias);
  model.graph().set_outputs({{tensor.name, value}});
  return model;
}

// Adds one layer's cost to a model's, as `measure_cost` would.
void add_cost(ModelCost& total, LayerCost layer, bool is_weight) {
  total.parameters += layer.elements;
  total.nonzeros += layer.nonzeros;
  total.payload_bytes += layer.bits_on_disk / 8;
  if (!is_weight) return;
  total.weight_elements += layer.elements;
  total.weight_nonzeros += layer.nonzeros;
  total.bits_per_weight += static_cast<double>(layer.bits_on_disk);
  total.layers.push_back(std::move(layer));
}

LayerCost cost_of(const NamedTensor& tensor, int64_t nonzeros) {
  LayerCost cost;
  cost.name = tensor.name;
  cost.op = "tensor";
  cost.sizes = tensor.tensor.sizes().vec();
  cost.encoding = print(TensorType{tensor.tensor.scalar_type(), std::vector<Dim>{}});
  cost.encoding.resize(cost.encoding.find('['));
  cost.elements = tensor.role == TensorRole::kParameter ? tensor.tensor.numel() : 0;
  cost.nonzeros = tensor.role == TensorRole::kParameter ? nonzeros : 0;
  cost.bits_on_disk = static_cast<int64_t>(tensor.tensor.nbytes()) * 8;
  return cost;
}

void finish_cost(ModelCost& cost) {
  if (cost.weight_elements > 0) cost.bits_per_weight /= static_cast<double>(cost.weight_elements);
}

// The results of one step, gathered tensor by tensor.
class StepTally {
 public:
  void add(const PassContext& context, int64_t elements, Change change, double seconds) {
    if (change == Change::kSome) result.change = Change::kSome;
    result.seconds += seconds;
    for (const auto& [name, n] : context.counts()) result.counts[name] += n;
    for (const auto& [name, figure] : context.measures()) {
      auto& [sum, weight] = sums_[name];
      sum += figure * static_cast<double>(elements);
      weight += static_cast<double>(elements);
    }
    result.messages.insert(result.messages.end(), context.messages().begin(),
                           context.messages().end());
  }
  StepResult take() {
    for (const auto& [name, sum] : sums_) result.measures[name] = sum.first / sum.second;
    return std::move(result);
  }

  StepResult result;

 private:
  std::map<std::string, std::pair<double, double>> sums_;
};

// The output file, and what its metadata will say.
class Output {
 public:
  Output(const std::filesystem::path& path, uint64_t header_room) : writer_(path, header_room) {}

  void add(const std::string& name, const at::Tensor& tensor) {
    order_.push_back(name);
    if (!waits(tensor)) return writer_.add(name, tensor);
    waiting_.emplace_back(name, tensor.clone());
  }

  // The product of a weight and its mask; returns how many elements are not zero.
  int64_t add_masked(const std::string& name, const at::Tensor& weight, const at::Tensor& mask) {
    if (waits(weight)) {
      const at::Tensor product = weight.mul(mask).add_(0);
      add(name, product);
      return count_elements(product);
    }
    order_.push_back(name);
    const at::Tensor elements = weight.contiguous().view({-1}), keep = mask.contiguous().view({-1});
    const int64_t total = elements.numel();
    at::Tensor block = at::empty({std::min(kBlock, total)}, elements.options());
    std::atomic<int64_t> nonzeros = 0;
    writer_.begin(name, weight);
    for (int64_t start = 0; start < total; start += kBlock) {
      const int64_t size = std::min(kBlock, total - start);
      at::parallel_for(0, (size + kPiece - 1) / kPiece, 1, [&](int64_t first, int64_t last) {
        for (int64_t piece = first; piece < last; ++piece) {
          const int64_t at = piece * kPiece, length = std::min(kPiece, size - at);
          at::Tensor part = block.narrow(0, at, length);
          nonzeros += mask_elements(elements.narrow(0, start + at, length),
                                    keep.narrow(0, start + at, length), part);
        }
      });
      writer_.append(block.narrow(0, 0, size));
    }
    return nonzeros;
  }

  // The tensors and the configuration of a model in the layout of compressed-tensors.
  void add_packed(const Model& model) {
    const CompressedTensors packed = pack_compressed_tensors(model);
    for (const auto& [name, tensor] : packed.tensors) add(name, tensor);
    for (const auto& [key, value] : packed.metadata) merge(key, value);
  }

  void add_tie(std::string alias, std::string name) {
    ties_.emplace_back(std::move(alias), std::move(name));
  }
  // A layer that is not packed, for the configuration.
  void add_dense(const std::string& name) {
    constexpr std::string_view kWeight = ".weight";
    if (name.ends_with(kWeight)) dense_.push_back(name.substr(0, name.size() - kWeight.size()));
  }
  bool is_packed() const { return merged_.contains(kQuantizationConfigKey); }

  void finish(const Metadata& metadata) {
    std::stable_sort(waiting_.begin(), waiting_.end(), [](const auto& a, const auto& b) {
      return a.second.element_size() > b.second.element_size();
    });
    for (const auto& [name, tensor] : waiting_) writer_.add(name, tensor);
    for (const auto& [alias, name] : ties_) writer_.add_tie(alias, name);
    for (const auto& [key, value] : metadata) writer_.set_metadata(key, value);
    if (is_packed()) {
      merged_[kQuantizationConfigKey]["ignore"] = dense_;
      writer_.set_metadata("format", "pt");
    }
    for (const auto& [key, json] : merged_) writer_.set_metadata(key, json.dump());
    writer_.list_in_order(order_);
    writer_.finish();
  }

 private:
  // Each weight comes with a configuration of its own; groups of one scheme become one.
  void merge(const std::string& key, const std::string& text) {
    if (key == "format") return;
    Json json = Json::parse(text);
    const auto known = merged_.find(key);
    if (known == merged_.end()) {
      merged_[key] = std::move(json);
    } else if (key != kQuantizationConfigKey) {
      known->second.update(json);
    } else {
      merge_groups(known->second["config_groups"], json["config_groups"].front());
    }
  }

  static void merge_groups(Json& groups, const Json& added) {
    for (Json& group : groups) {
      if (group["weights"] != added["weights"]) continue;
      group["targets"].insert(group["targets"].end(), added["targets"].begin(),
                              added["targets"].end());
      return;
    }
    groups[fmt::format("group_{}", groups.size())] = added;
  }

  SafetensorsWriter writer_;
  NamedTensors waiting_;
  std::vector<std::pair<std::string, std::string>> ties_;
  std::vector<std::string> order_, dense_;
  std::map<std::string, Json> merged_;
};

// One run of a recipe over a file.
class Stream {
 public:
  Stream(const Recipe& recipe, const Model& model, const std::filesystem::path& path,
         const StreamOptions& options)
      : recipe_(recipe),
        model_(model),
        options_(options),
        graph_text_(print(model, {.contents = false})),
        output_(path, header_room(recipe, model, {{"lathe.graph", graph_text_}})),
        tallies_(recipe.steps.size()),
        digests_(model.clone(/*deep=*/false)) {}

  StreamResult run() {
    int64_t total = 0, done = 0;
    for (const NamedTensor& tensor : model_.tensors()) {
      total += static_cast<int64_t>(tensor.tensor.nbytes());
    }
    auto digest = digests_.mutable_tensors().begin();
    for (const NamedTensor& tensor : model_.tensors()) {
      take(tensor, *digest++);
      release_pages(tensor.tensor);
      done += static_cast<int64_t>(tensor.tensor.nbytes());
      if (options_.on_progress) options_.on_progress(done, total);
    }
    finish();
    return std::move(result_);
  }

 private:
  void take(const NamedTensor& tensor, NamedTensor& digest) {
    Model one = model_of(tensor);
    FiniteCheck finite;
    std::string odd;
    int64_t nonzeros = 0;
    // The hash runs through the tensor on one thread while another looks at its elements.
    at::parallel_for(0, 2, 1, [&](int64_t first, int64_t last) {
      if (first == 0) digest.digest = tensor_digest(tensor.tensor.detach());
      if (last == 2) {
        odd = finite.problem(one);
        nonzeros = count_elements(tensor.tensor);
      }
    });
    digest.tensor = at::Tensor();
    if (!odd.empty()) {
      throw Error(ErrorCode::kRunFailed, odd, "the model",
                  "it cannot be compressed; was the training run broken?");
    }
    const bool is_weight = !weights(std::as_const(one)).empty();
    add_cost(result_.before, cost_of(tensor, nonzeros), is_weight);
    if (is_weight) {
      for (size_t step = 0; step < recipe_.steps.size(); ++step) run_step(step, one, finite);
      write_weight(one, tensor, nonzeros);
    } else {
      output_.add(tensor.name, tensor.tensor);
      add_cost(result_.after, cost_of(tensor, nonzeros), false);
    }
  }

  void run_step(size_t index, Model& one, FiniteCheck& finite) {
    const Step& step = recipe_.steps[index];
    PassContext context(recipe_.seed, index);
    context.on_message = options_.on_message;
    const auto place = [&](const std::string& inner) {
      std::string text = recipe_.file.empty() ? "" : recipe_.file + ": ";
      text += fmt::format("/steps/{} ({})", index, step.pass->info().id);
      if (!context.item().empty()) text += fmt::format(", at {}", context.item());
      return inner.empty() || inner == context.item() ? text : text + ", " + inner;
    };
    try {
      const int64_t elements = weights(std::as_const(one)).front().elements();
      const auto start = std::chrono::steady_clock::now();
      const Change change = step.pass->run_any(one, *step.options, context);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      const std::string problem = finite.problem(one);
      if (!problem.empty()) {
        throw Error(ErrorCode::kRunFailed, fmt::format("the pass left {}", problem));
      }
      tallies_[index].add(context, elements, change, elapsed.count());
    } catch (const Error& error) {
      throw Error(error.code(), error.message(), place(error.where()), error.hint());
    } catch (const c10::Error& error) {
      throw Error(ErrorCode::kRunFailed, error.what_without_backtrace(), place(""));
    }
  }

  void write_weight(Model& one, const NamedTensor& original, int64_t nonzeros) {
    std::vector<Weight> found = weights(one);
    COMPRESS_CHECK(found.size() == 1, "a step that sees one weight leaves one weight");
    const Weight& weight = found.front();
    LayerCost cost = cost_of(original, nonzeros);
    cost.encoding = weight.encoding();
    if (weight.is_quantized()) {
      const Model tight = for_compressed_tensors(one, &result_.notes);
      const std::vector<Weight> written = weights(tight);
      cost.nonzeros = count_nonzeros(written.front());
      cost.bits_on_disk = written.front().bits_on_disk();
      cost.encoding = written.front().encoding();
      if (!written.front().is_quantized()) output_.add_dense(weight.name());
      if (written.front().is_quantized()) {
        output_.add_packed(tight);
      } else {
        output_.add(weight.name(), written.front().effective());
      }
    } else {
      output_.add_dense(weight.name());
      if (weight.stored() != nullptr && weight.mask().defined()) {
        cost.nonzeros =
            output_.add_masked(weight.name(), weight.stored()->tensor.detach(), weight.mask());
        cost.encoding.resize(cost.encoding.find(' '));  // the file has the zeros, not the mask
      } else {
        const at::Tensor elements = weight.effective();
        if (!elements.is_same(original.tensor)) {
          cost.nonzeros = elements.count_nonzero().item<int64_t>();
        }
        output_.add(weight.name(), elements);
      }
      for (const std::string& alias : original.aliases) output_.add_tie(alias, weight.name());
    }
    add_cost(result_.after, std::move(cost), true);
  }

  void finish() {
    result_.input_digest = model_digest(digests_);
    for (size_t i = 0; i < tallies_.size(); ++i) {
      const Step& step = recipe_.steps[i];
      StepResult& result = tallies_[i].result;
      result.index = i;
      result.pass = step.pass->info().id;
      result.options = step_options_json(step);
      result_.steps.push_back(tallies_[i].take());
    }
    Metadata metadata(model_.metadata.begin(), model_.metadata.end());
    add_provenance(metadata, recipe_, result_.input_digest, result_.steps);
    if (output_.is_packed()) metadata["lathe.graph"] = graph_text_;
    output_.finish(metadata);
    finish_cost(result_.before);
    finish_cost(result_.after);
  }

  const Recipe& recipe_;
  const Model& model_;
  const StreamOptions& options_;
  const std::string graph_text_;  // what a quantized file is read back by; see pack_model
  Output output_;
  std::vector<StepTally> tallies_;
  Model digests_;  // tensors become digests as they are read
  StreamResult result_;
};

}  // namespace

bool can_stream(const Recipe& recipe) {
  return !recipe.steps.empty() &&
         std::all_of(recipe.steps.begin(), recipe.steps.end(), [](const Step& step) {
           return step.pass->info().needs == Needs::kWeights &&
                  step.pass->locality_any(*step.options) == Locality::kTensor;
         });
}

bool can_stream(const Model& model) {
  return model.is_tensor_set() && model.graph().nodes().empty() &&
         std::all_of(model.tensors().begin(), model.tensors().end(),
                     [](const NamedTensor& named) { return named.tensor.defined(); });
}

StreamResult stream_recipe(const Recipe& recipe, const Model& model,
                           const std::filesystem::path& output, const StreamOptions& options) {
  COMPRESS_CHECK(can_stream(recipe) && can_stream(model), "a recipe that can be streamed");
  const at::NoGradGuard no_grad;
  check_steps(recipe, model).throw_if_any(recipe.file);
  return Stream(recipe, model, output, options).run();
}

}  // namespace compress
