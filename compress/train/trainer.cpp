// The training loop.

#include "compress/train/trainer.h"

#include "compress/data/loader.h"
#include "compress/error.h"
#include "compress/train/autocast.h"
#include "compress/train/diagnose.h"
#include "compress/train/owned_model.h"
#include "compress/train/session.h"
#include "compress/train/taps.h"
#include "compress/train/teacher.h"
#include "compress/train/teachers.h"
#include "compress/train/training_checkpoint.h"
#include "compress/train/training_log.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

namespace compress {
namespace {

// What autocast has left in bfloat16, as float: losses are computed in that.
void widen(Activations& activations) {
  const auto widened = [](at::Tensor& tensor) {
    if (at::isReducedFloatingType(tensor.scalar_type())) tensor = tensor.to(at::kFloat);
  };
  for (at::Tensor& output : activations.outputs) widened(output);
  for (auto& [name, tap] : activations.taps) widened(tap);
}

// Sums over the samples of the epoch that is under way.
struct EpochSums {
  int64_t samples = 0;
  double loss = 0;
  std::map<std::string, double> terms;

  Json json() const { return {{"samples", samples}, {"loss", loss}, {"terms", terms}}; }
  static EpochSums read(const Json& json) {
    return {json.at("samples").get<int64_t>(), json.at("loss").get<double>(),
            json.at("terms").get<std::map<std::string, double>>()};
  }
};

// Where the time of an epoch goes.
class Stopwatch {
 public:
  void start() { last_ = Clock::now(); }
  /// Everything since the last call is due to `part`.
  void lap(const char* part) {
    const Clock::time_point now = Clock::now();
    seconds_[part] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  std::map<std::string, double> take() { return std::exchange(seconds_, {}); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_;
  std::map<std::string, double> seconds_;
};

class Run {
 public:
  Run(Model& model, const TrainOptions& options, const std::vector<Step>& during,
      const TrainingEnvironment& environment, PassContext& context)
      : model_(model),
        options_(options),
        during_(during),
        environment_(environment),
        context_(context),
        home_(model.device()),
        checkpoints_(environment.checkpoints) {}

  TrainResult run() {
    open_data();
    std::optional<TrainingCheckpoints::Saved> saved;
    if (environment_.resume && !environment_.checkpoints.empty()) {
      saved = checkpoints_.load(context_.key, at::get_num_threads());
    }
    Teachers teachers(options_, environment_, context_, model_, *data_);
    teachers_ = &teachers;
    if (saved) model_ = std::move(saved->model);
    make_trainable(model_, environment_.device, options_.channels_last);
    at::manual_seed(context_.generator("training").current_seed());
    prepare(saved ? &saved->snapshot : nullptr);
    for (; epoch_ < options_.epochs; ++epoch_) {
      run_epoch();
      end_epoch();
    }
    average_->swap(model_);
    session_->finish();
    make_ordinary(model_, home_);
    result_.epochs = epoch_;
    result_.steps = session_->clock().step;
    return result_;
  }

 private:
  void open_data() {
    data_ = environment_.open_data(options_.data, options_.channels_last);
    require_fit(model_, data_->info());
    if (data_->size() < options_.batch_size) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("the data `{}` ({}) has {} samples, fewer than a batch of {}", options_.data,
                      data_->info().name, data_->size(), options_.batch_size),
          {}, "set a smaller `batch_size`");
    }
    if (!options_.validation.empty()) {
      validation_ = environment_.open_data(options_.validation, false);
      require_fit(model_, validation_->info());
      if (validation_->info().augmented) {
        throw Error(ErrorCode::kInvalidArgument,
                    fmt::format("the validation data `{}` is augmented", options_.validation), {},
                    "add \"augment\": false to the `take` or `drop` that makes it");
      }
    }
    loader_.emplace(data_, LoaderOptions{.batch_size = options_.batch_size,
                                         .shuffle = true,
                                         .seed = sample_seed(),
                                         .drop_last = has_fixed_batch(),
                                         .threads = options_.workers});
    steps_per_epoch_ = (loader_->batches() + options_.accumulate - 1) / options_.accumulate;
  }

  uint64_t sample_seed() const { return context_.generator("samples").current_seed(); }

  bool has_fixed_batch() const {
    const auto& sizes = model_.graph().inputs().front()->type.sizes;
    return sizes && !sizes->empty() && !sizes->front().is_symbolic();
  }

  // Hooks, losses and optimizer, fresh or as a checkpoint left them.
  void prepare(const TrainingSnapshot* saved) {
    SessionOptions session;
    session.steps_per_epoch = steps_per_epoch_;
    session.total_steps = steps_per_epoch_ * options_.epochs;
    session.moments = [this](std::string_view name) {
      return optimizes(name) ? optimizer_->moments(name) : std::vector<at::Tensor>();
    };
    session.replaced = [this](std::string_view name, const auto& moment) {
      follow(std::string(name), moment);
    };
    const auto hooks = saved ? saved->part("hooks") : std::map<std::string, at::Tensor>();
    session_.emplace(model_, during_, context_, session, saved ? &hooks : nullptr);

    for (const LossOptions& loss : options_.losses) losses_.push_back(make_loss(loss));
    std::vector<std::string> taps;
    for (const auto& loss : losses_) {
      for (const std::string& tap : loss->wishes().student_taps) taps.push_back(tap);
    }
    taps_.emplace(model_, taps);
    prepare_losses();

    std::vector<OptimizedParameter> parameters =
        optimized_parameters(model_, options_.groups, "groups");
    if (parameters.empty()) {
      throw Error(ErrorCode::kInvalidArgument, "there is nothing to train", {},
                  "the model has no floating-point parameters, or all are frozen");
    }
    for (size_t i = 0; i < losses_.size(); ++i) {
      for (const auto& [name, tensor] : losses_[i]->parameters()) {
        parameters.push_back({fmt::format("losses/{}/{}", i, name), tensor});
      }
    }
    optimizer_.emplace(options_.optimizer, std::move(parameters));
    schedule_.emplace(options_.schedule, session.total_steps, steps_per_epoch_);
    average_.emplace(model_, options_.ema);
    if (saved) go_on(*saved);
    log_.emplace(options_.log, saved ? saved->log_bytes : 0);
  }

  // Frozen parameters are not the optimizer's.
  bool optimizes(std::string_view name) const {
    if (!optimizer_) return false;
    const auto& parameters = optimizer_->parameters();
    return std::any_of(parameters.begin(), parameters.end(),
                       [&](const OptimizedParameter& one) { return one.name == name; });
  }

  // Losses see the first batch before any step, to make adapters of the right sizes.
  void prepare_losses() {
    std::vector<int64_t> first(has_fixed_batch() ? options_.batch_size
                                                 : std::min<int64_t>(2, data_->size()));
    std::iota(first.begin(), first.end(), 0);
    const Batch batch = on_device(data_->get(first, {sample_seed(), 0}));
    const at::NoGradGuard no_grad;
    model_.eval();  // batch norm must not learn from it
    const Activations student = taps_->run(batch.inputs);
    model_.train();
    const auto teachers = teachers_->run(batch, 0);
    const LossBatch seen{batch, student, teachers, 0, data_->size()};
    for (size_t i = 0; i < losses_.size(); ++i) {
      try {
        losses_[i]->prepare(seen, context_.generator(fmt::format("loss {}", i)).current_seed());
      } catch (const Error& error) {
        throw error.within(fmt::format("losses/{}", i));
      }
    }
  }

  void go_on(const TrainingSnapshot& saved) {
    const at::NoGradGuard no_grad;
    session_->set_step(saved.step);
    epoch_ = saved.epoch;
    batch_ = saved.batch;
    sums_ = EpochSums::read(saved.figures.at("sums"));
    result_.loss = saved.figures.at("loss").get<double>();
    result_.validation = saved.figures.at("validation").get<std::map<std::string, double>>();
    optimizer_->load_state(saved.part("optimizer"));
    average_->load(saved.part("average"));
    for (size_t i = 0; i < losses_.size(); ++i) {
      const auto part = saved.part(fmt::format("losses/{}", i));
      for (const auto& tensors : {losses_[i]->parameters(), losses_[i]->buffers()}) {
        for (const auto& [name, tensor] : tensors) tensor.copy_(part.at(name));
      }
    }
    at::Generator random = at::detail::getDefaultCPUGenerator();
    random.set_state(saved.tensors.at("random/cpu"));
  }

  void save() {
    if (environment_.checkpoints.empty()) return;
    require_finite("the checkpoint was not written");
    TrainingSnapshot now;
    now.key = context_.key;
    now.threads = at::get_num_threads();
    now.step = session_->clock().step;
    now.epoch = epoch_;
    now.batch = batch_;
    now.log_bytes = log_->bytes();
    now.figures = {
        {"sums", sums_.json()}, {"loss", result_.loss}, {"validation", result_.validation}};
    now.add_part("hooks", session_->state());
    now.add_part("optimizer", optimizer_->state());
    now.add_part("average", average_->averages());
    for (size_t i = 0; i < losses_.size(); ++i) {
      now.add_part(fmt::format("losses/{}", i), losses_[i]->parameters());
      now.add_part(fmt::format("losses/{}", i), losses_[i]->buffers());
    }
    now.tensors["random/cpu"] = at::detail::getDefaultCPUGenerator().get_state();
    checkpoints_.save(model_, now);
  }

  void run_epoch() {
    const auto start = std::chrono::steady_clock::now();
    const int64_t first = batch_;
    loader_->start(static_cast<uint64_t>(epoch_), batch_);
    while (batch_ < loader_->batches()) {
      run_step(std::min(options_.accumulate, loader_->batches() - batch_));
      const bool due =
          options_.checkpoint_steps > 0 && session_->clock().step % options_.checkpoint_steps == 0;
      if (due && batch_ < loader_->batches()) save();
      context_.progress(epoch_ * loader_->batches() + batch_, options_.epochs * loader_->batches());
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const auto samples = static_cast<double>((batch_ - first) * options_.batch_size);
    result_.samples_per_second = samples / std::max(elapsed.count(), 1e-9);
  }

  // One step of the optimizer, over the next `batches` batches.
  void run_step(int64_t batches) {
    watch_.start();
    session_->before_forward();
    watch_.lap("passes");
    for (int64_t i = 0; i < batches; ++i) {
      std::optional<Batch> batch = loader_->next();
      COMPRESS_CHECK(batch.has_value(), "the epoch has the batches that the loader announced");
      watch_.lap("data");
      backward(on_device(std::move(*batch)), static_cast<double>(batches));
      ++batch_;
    }
    session_->after_backward();
    watch_.lap("passes");
    if (options_.clip_norm > 0 && !std::isfinite(optimizer_->clip(options_.clip_norm))) {
      throw Error(ErrorCode::kRunFailed, "the gradients are not finite", step_name(),
                  "lower the learning rate");
    }
    if (!session_->step()) optimizer_->step(schedule_->factor(session_->clock().step));
    optimizer_->zero_grad();
    watch_.lap("optimizer");
    session_->after_step();
    average_->update(model_);
    watch_.lap("passes");
  }

  void backward(const Batch& batch, double batches) {
    at::Tensor loss;
    std::map<std::string, double> values;
    Activations student;
    std::map<std::string, Activations> teachers;
    {
      const Autocast autocast(options_.precision == Precision::kBf16, environment_.device);
      student = taps_->run(batch.inputs);
      teachers = teachers_->run(batch, epoch_);
    }
    widen(student);
    for (auto& [name, activations] : teachers) widen(activations);
    const LossBatch seen{batch, student, teachers, session_->clock().epoch(), data_->size()};
    for (const auto& term : losses_) {
      const at::Tensor value = term->compute(seen);
      values[term->name()] += value.item<double>();
      const at::Tensor weighted = value.mul(term->weight());
      loss = loss.defined() ? loss.add(weighted) : weighted;
    }
    if (const at::Tensor term = session_->loss_term(); term.defined()) {
      values["hooks"] += term.item<double>();
      loss = loss.add(term);
    }
    const double value = loss.item<double>();
    if (!std::isfinite(value)) {
      throw Error(ErrorCode::kRunFailed,
                  fmt::format("the loss is {}: {} not finite", value,
                              first_not_finite(model_, batch.inputs)),
                  step_name(), "lower the learning rate, warm up, or clip gradients");
    }
    watch_.lap("forward");
    (batches > 1 ? loss.div(batches) : loss).backward();
    watch_.lap("backward");
    const auto samples = static_cast<double>(batch.size());
    sums_.samples += batch.size();
    sums_.loss += value * samples;
    for (const auto& [name, term] : values) sums_.terms[name] += term * samples;
  }

  void end_epoch() {
    require_finite("the training cannot go on");
    const auto samples = static_cast<double>(sums_.samples);
    result_.loss = sums_.loss / samples;
    Json line = {
        {"epoch", epoch_ + 1},
        {"step", session_->clock().step},
        {"lr", optimizer_->learning_rate() * schedule_->factor(session_->clock().step - 1)},
        {"loss", result_.loss},
        {"samples_per_second", result_.samples_per_second},
        {"seconds", watch_.take()}};
    for (const auto& [name, sum] : sums_.terms) line["terms"][name] = sum / samples;
    const bool last = epoch_ + 1 == options_.epochs;
    if (validation_ && (last || (epoch_ + 1) % options_.validate_every == 0)) {
      validate();
      line["validation"] = result_.validation;
    }
    log_->add(line);
    say(line);
    sums_ = {};
    batch_ = 0;
    const bool due = options_.checkpoint_every > 0 && (epoch_ + 1) % options_.checkpoint_every == 0;
    if (!due || last) return;
    ++epoch_;  // the checkpoint is of the beginning of the next
    save();
    --epoch_;
  }

  void validate() {
    average_->swap(model_);
    session_->before_evaluation();
    model_.eval();
    const std::vector<double> figures = evaluate(model_, validation_, options_.metrics);
    const auto names = option_names(Metric{});
    for (size_t i = 0; i < figures.size(); ++i) {
      result_.validation[std::string(names[static_cast<size_t>(options_.metrics[i])])] = figures[i];
    }
    model_.train();
    average_->swap(model_);
  }

  void say(const Json& line) const {
    if (!context_.on_message) return;
    std::string text =
        fmt::format("  epoch {} of {}: loss {:.4f}", epoch_ + 1, options_.epochs, result_.loss);
    if (line.contains("validation")) {
      for (const auto& [name, figure] : result_.validation) {
        text += fmt::format(", {} {}", name, metric_text(parse_metric(name), figure));
      }
    }
    context_.on_message(fmt::format("{}, {:.0f} samples/s", text, result_.samples_per_second));
  }

  void require_finite(const std::string& consequence) const {
    for (const OptimizedParameter& parameter : optimizer_->parameters()) {
      // A sum is not finite if any element is not; it can overflow only far from sensible weights.
      if (std::isfinite(parameter.tensor.detach().sum().item<double>())) continue;
      throw Error(ErrorCode::kRunFailed,
                  fmt::format("the parameter {} is not finite; {}", parameter.name, consequence),
                  step_name(), "lower the learning rate, warm up, or clip gradients");
    }
  }

  std::string step_name() const {
    return fmt::format("step {} (epoch {})", session_->clock().step + 1, epoch_ + 1);
  }

  Batch on_device(Batch batch) const {
    for (at::Tensor& input : batch.inputs) input = input.to(environment_.device);
    if (batch.labels.defined()) batch.labels = batch.labels.to(environment_.device);
    return batch;
  }

  // A hook has put another tensor in the place of a parameter.
  void follow(const std::string& name, const std::function<at::Tensor(const at::Tensor&)>& moment) {
    at::Tensor tensor = model_.tensor(name);
    if (!tensor.requires_grad()) tensor.set_requires_grad(true);
    if (optimizes(name)) optimizer_->replace(name, tensor, moment);
    if (!average_) return;
    const auto average = average_->averages().find(name);
    if (average != average_->averages().end()) average_->replace(name, moment(average->second));
  }

  Model& model_;
  const TrainOptions& options_;
  const std::vector<Step>& during_;
  const TrainingEnvironment& environment_;
  PassContext& context_;
  c10::Device home_;
  TrainingCheckpoints checkpoints_;

  DatasetPtr data_, validation_;
  std::optional<Loader> loader_;
  int64_t steps_per_epoch_ = 1;
  Teachers* teachers_ = nullptr;
  std::optional<TrainingSession> session_;
  std::optional<Taps> taps_;
  std::vector<std::unique_ptr<Loss>> losses_;
  std::optional<Optimizer> optimizer_;
  std::optional<Schedule> schedule_;
  std::optional<MovingAverage> average_;
  std::optional<TrainingLog> log_;

  int64_t epoch_ = 0, batch_ = 0;  // done
  EpochSums sums_;
  Stopwatch watch_;
  TrainResult result_;
};

}  // namespace

TrainResult train(Model& model, const TrainOptions& options, const std::vector<Step>& during,
                  const TrainingEnvironment& environment, PassContext& context) {
  return Run(model, options, during, environment, context).run();
}

}  // namespace compress
