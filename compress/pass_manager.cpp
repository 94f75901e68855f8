// The order of things in a run, and the words in which it fails.

#include "compress/pass_manager.h"

#include "compress/graph/digest.h"
#include "compress/graph/verify.h"
#include "compress/pass_manager_checks.h"
#include "compress/version.h"
#include "compress/weight.h"

#include <c10/util/Exception.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>

namespace compress {
namespace {

std::string step_pointer(size_t step) { return fmt::format("/steps/{}", step); }

// The selectors among a step's options, with their pointers.
void check_selectors(const Step& step, const std::vector<SelectorTarget>& targets,
                     const std::string& where, Problems& problems) {
  const std::unique_ptr<AnyOptions> options = step.options->clone();
  for (const Field& field : options->fields()) {
    if (field.selector() == nullptr) continue;
    try {
      field.selector()->require_match(targets, join_pointer(where, field.name));
    } catch (const Error& nothing) {
      problems.add(nothing);
    }
  }
}

void check_needs(const Step& step, const Model& model, const RunOptions& options,
                 const std::string& where, Problems& problems) {
  const Needs needs = step.pass->info().needs;
  if (step.pass->is_hook()) {
    problems.add(where, fmt::format("{} works during training only", step.pass->info().id),
                 "put it under `during` of a `train` step");
  } else if (has(needs, Needs::kTraining) && options.training == nullptr) {
    problems.add(where, "there is nothing to train with here");
  } else if (has(needs, Needs::kTraining) && model.is_tensor_set()) {
    problems.add(where, "tensors without a graph cannot be trained",
                 "say which network it is with --arch");
  } else if (has(needs, Needs::kTraining)) {
    step.pass->check_training(model, step, *options.training, where, problems);
  } else if (has(needs, Needs::kGradients)) {
    problems.add(where, "needs gradients of a loss, which no step can ask for yet");
  } else if (has(needs, Needs::kInputs) && !options.calibration) {
    problems.add(where, fmt::format("{} needs calibration data", step.pass->info().id),
                 "add a `calibration` entry to `data`");
  } else if (has(needs, Needs::kInputs) && model.is_tensor_set()) {
    problems.add(where,
                 fmt::format("{} needs to run the model, which is tensors without a graph",
                             step.pass->info().id),
                 "say which network it is with --arch");
  }
}

bool names_a_step(const Recipe& recipe, const std::string& id) {
  return std::any_of(recipe.steps.begin(), recipe.steps.end(),
                     [&](const Step& step) { return step.pass->info().id == id; });
}

std::optional<size_t> step_number(const std::string& text) {
  if (text.empty() || text.size() > 6) return std::nullopt;
  if (text.find_first_not_of("0123456789") != text.npos) return std::nullopt;
  return std::stoul(text);
}

void check_names(const Recipe& recipe, const RunOptions& options, Problems& problems) {
  std::vector<std::string> ids;
  for (const Step& step : recipe.steps) ids.emplace_back(step.pass->info().id);
  const auto require = [&](const std::string& id, const char* flag) {
    if (names_a_step(recipe, id)) return;
    std::string hint = did_you_mean(id, ids);
    if (hint.empty()) hint = fmt::format("its passes are {}", fmt::join(ids, ", "));
    problems.add(Error(ErrorCode::kInvalidArgument, fmt::format("the recipe has no pass `{}`", id),
                       flag, hint));
  };
  for (const auto& [id, limit] : options.limits) {
    require(id, "--limit");
    if (limit < 0) {
      problems.add(Error(ErrorCode::kInvalidArgument, fmt::format("{} is less than 0", limit),
                         "--limit " + id));
    }
  }
  for (const std::string& id : options.print_after) {
    if (id != "all") require(id, "--print-after");
  }
  if (const auto number = step_number(options.stop_after)) {
    if (*number >= recipe.steps.size()) {
      problems.add(Error(ErrorCode::kInvalidArgument, fmt::format("there is no step {}", *number),
                         "--stop-after",
                         fmt::format("the steps are 0 to {}", recipe.steps.size() - 1)));
    }
  } else if (!options.stop_after.empty()) {
    require(options.stop_after, "--stop-after");
  }
}

// One run of a recipe.
class Manager {
 public:
  Manager(const Recipe& recipe, Model& model, const RunOptions& options)
      : recipe_(recipe), model_(model), options_(options) {}

  RunResult run() {
    if (options_.resume != nullptr) {
      state_.input_digest = options_.resume->input_digest;
      state_.results = options_.resume->results;
    } else {
      state_.input_digest = model_digest(model_);
    }
    finite_.problem(model_);  // what is odd now was refused or, in a checkpoint, already seen
    if (options_.verify) {
      verify(model_, {.unused = false});
      was_tidy_ = problems(model_).empty();
    }
    if (options_.training != nullptr && options_.original == nullptr) {
      original_.emplace(model_.clone(/*deep=*/false));
    }
    RunResult result;
    for (size_t i = 0; i < state_.finished(); ++i) {
      result.stopped |= stops_after(i) && state_.finished() < recipe_.steps.size();
    }
    for (size_t i = state_.finished(); i < recipe_.steps.size() && !result.stopped; ++i) {
      run_step(i);
      result.stopped = stops_after(i) && i + 1 < recipe_.steps.size();
    }
    add_provenance(model_.metadata, recipe_, state_.input_digest, state_.results);
    result.input_digest = state_.input_digest;
    result.output_digest = state_.model_digest();
    result.steps = std::move(state_.results);
    return result;
  }

 private:
  const Pass& pass(size_t step) const { return *recipe_.steps[step].pass; }

  bool stops_after(size_t step) const {
    const auto number = step_number(options_.stop_after);
    return number ? *number == step : pass(step).info().id == options_.stop_after;
  }

  void run_step(size_t i) {
    const Step& step = recipe_.steps[i];
    PassContext context(recipe_.seed, i);
    prepare(context, i);
    if (options_.on_step_begin) options_.on_step_begin(i, step);
    StepResult result;
    result.index = i;
    result.pass = step.pass->info().id;
    result.options = step_options_json(step);
    try {
      const std::vector<SelectorTarget> targets = selector_targets(model_);
      if (i > 0) check_again(i, targets);
      for (const std::string& sentence : idle_globs(step, targets)) context.message(sentence);
      run_pass(step, context, result);
    } catch (const Error& error) {
      throw Error(error.code(), error.message(), place(i, context, error.where()), error.hint());
    } catch (const c10::Error& error) {
      throw Error(ErrorCode::kRunFailed, error.what_without_backtrace(), place(i, context, ""));
    }
    result.counts = context.counts();
    result.measures = context.measures();
    result.messages = context.messages();
    state_.results.push_back(result);
    state_.key = resume_key(recipe_, state_.finished(), state_.input_digest);
    const bool prints =
        std::any_of(options_.print_after.begin(), options_.print_after.end(),
                    [&](const std::string& id) { return id == "all" || id == result.pass; });
    if (prints && options_.on_print) options_.on_print(model_, result);
    if (options_.on_step_end) options_.on_step_end(model_, state_);
  }

  void prepare(PassContext& context, size_t step) {
    context.on_message = options_.on_message;
    context.step = &recipe_.steps[step];
    context.key = resume_key(recipe_, step + 1, state_.input_digest);
    context.training = options_.training;
    context.batches = options_.calibration;
    context.original = options_.original != nullptr ? options_.original
                       : original_                  ? &*original_
                                                    : nullptr;
    if (options_.on_progress) {
      context.on_progress = [this, step](int64_t done, int64_t total) {
        options_.on_progress(step, done, total);
      };
    }
    const auto limit = options_.limits.find(std::string(pass(step).info().id));
    if (limit != options_.limits.end()) context.edit_limit = limit->second;
  }

  // Earlier steps may have changed what the selectors of this one see.
  void check_again(size_t step, const std::vector<SelectorTarget>& targets) const {
    Problems problems;
    check_selectors(recipe_.steps[step], targets, "", problems);
    problems.throw_if_any();
  }

  void run_pass(const Step& step, PassContext& context, StepResult& result) {
    std::optional<KeptClaims> before;
    if (options_.verify) before.emplace(model_);
    const auto start = std::chrono::steady_clock::now();
    const Wishes wishes = step.pass->wishes_any(model_, *step.options);
    Statistics statistics;
    if (!wishes.empty()) statistics = collect_statistics(model_, wishes, options_.calibration);
    context.collected = &statistics;
    const Change claimed = step.pass->run_any(model_, *step.options, context);
    context.collected = nullptr;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    result.seconds = elapsed.count();
    check_claims(step, claimed, before, result);
  }

  void check_claims(const Step& step, Change claimed, const std::optional<KeptClaims>& before,
                    StepResult& result) {
    const std::string_view id = step.pass->info().id;
    result.digest = model_digest(model_);
    const bool changed = result.digest != state_.model_digest();
    result.change = changed ? Change::kSome : Change::kNone;
    COMPRESS_CHECK(claimed == Change::kSome || !changed,
                   fmt::format("{} says that it changed nothing, but the model has changed", id));
    COMPRESS_CHECK(!options_.verify || claimed == result.change,
                   fmt::format("{} says that it changed the model, but nothing has changed", id));
    if (const std::string problem = finite_.problem(model_); !problem.empty()) {
      throw Error(ErrorCode::kRunFailed, fmt::format("the pass left {}", problem));
    }
    if (!options_.verify) return;
    verify(model_, {.unused = was_tidy_});
    const std::string broken = before->broken(model_, step.pass->info().keeps);
    COMPRESS_CHECK(broken.empty(), fmt::format("{} broke what it says it keeps: {}", id, broken));
  }

  // "a.json: /steps/1 (prune.magnitude), at layer1.0.conv1.weight, ..."
  std::string place(size_t step, const PassContext& context, const std::string& inner) const {
    std::string text = fmt::format("{} ({})", place_of_step(recipe_, step), pass(step).info().id);
    if (!context.item().empty()) text += fmt::format(", at {}", context.item());
    if (!inner.empty() && inner != context.item()) text += fmt::format(", {}", inner);
    return text;
  }

  const Recipe& recipe_;
  Model& model_;
  const RunOptions& options_;
  RunState state_;
  FiniteCheck finite_;
  std::optional<Model> original_;  // as the run began; shares its tensors
  bool was_tidy_ = true;           // the model came without tensors that nothing uses
};

}  // namespace

Problems check_recipe(const Recipe& recipe, const Model& model, const RunOptions& options) {
  Problems problems = check_steps(recipe, model, options);
  const std::string odd = FiniteCheck().problem(model);
  if (!odd.empty()) {
    problems.add(Error(ErrorCode::kRunFailed, odd, "the model",
                       "it cannot be compressed; was the training run broken?"));
  }
  return problems;
}

Problems check_steps(const Recipe& recipe, const Model& model, const RunOptions& options) {
  Problems problems;
  check_names(recipe, options, problems);
  const std::vector<SelectorTarget> targets = selector_targets(model);
  bool same_weights = true;
  const size_t first = options.resume == nullptr ? 0 : options.resume->finished();
  for (size_t i = first; i < recipe.steps.size(); ++i) {
    const Step& step = recipe.steps[i];
    const std::string where = step_pointer(i);
    check_needs(step, model, options, where, problems);
    if (same_weights) check_selectors(step, targets, where, problems);
    if (same_weights) {
      try {
        step.pass->check_any(model, *step.options);
      } catch (const Error& refusal) {
        problems.add(refusal.within(where));
      }
    }
    same_weights = same_weights && has(step.pass->info().keeps, Keeps::kShapes);
  }
  return problems;
}

RunResult run_recipe(const Recipe& recipe, Model& model, const RunOptions& options) {
  at_origins(check_recipe(recipe, model, options), recipe.origins).throw_if_any(recipe.file);
  return Manager(recipe, model, options).run();
}

}  // namespace compress
