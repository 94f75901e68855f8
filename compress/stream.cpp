// Runs a recipe on a set of tensors larger than memory, one tensor at a time.

#include "compress/stream.h"

#include "compress/error.h"
#include "compress/graph/digest.h"
#include "compress/graph/text.h"
#include "compress/io/compressed_tensors.h"
#include "compress/io/mapped_file.h"
#include "compress/io/safetensors.h"
#include "compress/pass_manager.h"
#include "compress/pass_manager_checks.h"
#include "compress/stream_output.h"
#include "compress/stream_scan.h"
#include "compress/weight.h"
#include "compress/weights_file.h"

#include <ATen/ops/count_nonzero.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

namespace compress {
namespace {

// What may wait to be written beyond that for which there is room beside the two largest tensors.
constexpr int64_t kAheadBytes = int64_t{1} << 25;

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
    for (const char* part : {"_packed", "_shape", "_scale", "_zero_point", "_global_scale"}) {
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
    add_messages(context);
  }
  void add_messages(const PassContext& context) {
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
    say_idle_globs();
    int64_t total = 0, done = 0;
    for (const NamedTensor& tensor : model_.tensors()) {
      total += static_cast<int64_t>(tensor.tensor.nbytes());
    }
    auto digest = digests_.mutable_tensors().begin();
    for (const NamedTensor& tensor : model_.tensors()) {
      take(tensor, *digest++);
      done += static_cast<int64_t>(tensor.tensor.nbytes());
      if (options_.on_progress) options_.on_progress(done, total);
    }
    finish();
    return std::move(result_);
  }

 private:
  void say_idle_globs() {
    const std::vector<SelectorTarget> targets = selector_targets(model_);
    for (size_t i = 0; i < recipe_.steps.size(); ++i) {
      PassContext context(recipe_.seed, i);
      context.on_message = options_.on_message;
      for (const std::string& said : idle_globs(recipe_.steps[i], targets)) context.message(said);
      tallies_[i].add_messages(context);
    }
  }

  void take(const NamedTensor& tensor, NamedTensor& digest) {
    output_.wait(bytes_ahead(tensor.tensor));
    Model one = model_of(tensor);
    FiniteCheck finite;
    const TensorScan scan = scan_tensor(tensor.tensor);
    digest.digest = scan.digest;
    digest.tensor = at::Tensor();
    if (scan.is_finite.value_or(false)) finite.accept(one.tensors().front());
    const std::string odd = finite.problem(one);
    if (!odd.empty()) {
      throw Error(ErrorCode::kRunFailed, odd, "the model",
                  "it cannot be compressed; was the training run broken?");
    }
    const bool is_weight = !weights(std::as_const(one)).empty();
    add_cost(result_.before, cost_of(tensor, scan.nonzeros), is_weight);
    if (is_weight) {
      for (size_t step = 0; step < recipe_.steps.size(); ++step) run_step(step, one, finite);
      write_weight(one, tensor, scan.nonzeros);
    } else {
      output_.add(tensor.name, tensor.tensor);
      after_.emplace_back(cost_of(tensor, scan.nonzeros), false);
    }
  }

  // How much of other tensors may wait to be written while this one is read and worked on: they,
  // this one and the masks of both then take two tensors. Several steps make more on the way.
  int64_t bytes_ahead(const at::Tensor& tensor) const {
    if (recipe_.steps.size() > 1) return 1;
    const auto left = static_cast<int64_t>(tensor.nbytes()) - 2 * tensor.numel();
    return kAheadBytes + std::max(kAheadBytes, left);
  }

  void run_step(size_t index, Model& one, FiniteCheck& finite) {
    const Step& step = recipe_.steps[index];
    PassContext context(recipe_.seed, index);
    context.on_message = options_.on_message;
    const auto place = [&](const std::string& inner) {
      std::string text =
          fmt::format("{} ({})", place_of_step(recipe_, index), step.pass->info().id);
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
    LayerCost& cost = after_.emplace_back(cost_of(original, nonzeros), true).first;
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
      release_pages(original.tensor);
    } else {
      output_.add_dense(weight.name());
      if (weight.stored() != nullptr && weight.mask().defined()) {
        cost.nonzeros = 0;  // counted as they are written
        output_.add_masked(weight.name(), weight.stored()->tensor.detach(), weight.mask(),
                           &cost.nonzeros);
        cost.encoding.resize(cost.encoding.find(' '));  // the file has the zeros, not the mask
      } else {
        const at::Tensor elements = weight.effective();
        if (elements.const_data_ptr() != original.tensor.const_data_ptr()) {
          cost.nonzeros = elements.count_nonzero().item<int64_t>();
          release_pages(original.tensor);
        }
        output_.add(weight.name(), elements);
      }
      for (const std::string& alias : original.aliases) output_.add_tie(alias, weight.name());
    }
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
    for (auto& [cost, is_weight] : after_) add_cost(result_.after, std::move(cost), is_weight);
    finish_cost(result_.before);
    finish_cost(result_.after);
  }

  const Recipe& recipe_;
  const Model& model_;
  const StreamOptions& options_;
  const std::string graph_text_;  // what a quantized file is read back by; see pack_model
  std::deque<std::pair<LayerCost, bool>> after_;  // and whether of a weight; filled while writing
  StreamOutput output_;
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
  at_origins(check_steps(recipe, model), recipe.origins).throw_if_any(recipe.file);
  return Stream(recipe, model, output, options).run();
}

}  // namespace compress
