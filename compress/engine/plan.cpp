// Inference that is planned once for fixed input sizes and then only runs.

#include "compress/engine/plan.h"

#include "compress/engine/arena.h"
#include "compress/engine/kernels.h"
#include "compress/engine/lower.h"
#include "compress/engine/primitives.h"
#include "compress/engine/specialize.h"
#include "compress/error.h"
#include "compress/graph/dtype_names.h"
#include "compress/io/mapped_file.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_weight_int4pack_mm_for_cpu.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

namespace compress {

using namespace engine;  // NOLINT(google-build-using-namespace): the parts of a plan

namespace {

// A slot's memory as a tensor; for stretches that run through LibTorch.
at::Tensor view_of(const Slot& slot, void* memory) {
  return at::from_blob(memory, slot.sizes, slot.strides(), at::TensorOptions().dtype(slot.dtype));
}

// The number of threads during a run, which kernels were chosen for.
class ThreadGuard {
 public:
  explicit ThreadGuard(int threads) : before_(omp_get_max_threads()) {
    if (threads != before_) omp_set_num_threads(threads);
  }
  ~ThreadGuard() {
    if (omp_get_max_threads() != before_) omp_set_num_threads(before_);
  }
  ThreadGuard(const ThreadGuard&) = delete;
  ThreadGuard& operator=(const ThreadGuard&) = delete;

 private:
  int before_;
};

std::vector<Lifetime> lifetimes_of(const Program& program) {
  std::vector<Lifetime> lifetimes(program.buffers.size());
  const auto end = static_cast<int64_t>(program.steps.size());
  for (size_t i = 0; i < lifetimes.size(); ++i) {
    lifetimes[i] = {program.buffers[i].input ? 0 : program.buffers[i].bytes, end, -1};
  }
  const auto touch = [&](size_t slot, int64_t step) {
    Lifetime& lifetime = lifetimes[program.slots[slot].buffer];
    lifetime.first = std::min(lifetime.first, step);
    lifetime.last = std::max(lifetime.last, step);
  };
  for (size_t i = 0; i < program.steps.size(); ++i) {
    for (const size_t slot : program.steps[i].inputs) touch(slot, static_cast<int64_t>(i));
    for (const size_t slot : program.steps[i].outputs) touch(slot, static_cast<int64_t>(i));
  }
  for (const Program::Result& result : program.results) {
    if (result.slot) touch(*result.slot, end);
  }
  return lifetimes;
}

// Whether oneDNN uses this instruction set; it names those of x86 only, others count as complete.
bool has_isa(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  const auto present = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const bool x86 = present != static_cast<unsigned>(dnnl::cpu_isa::isa_default);
  return !x86 || (present & bits) == bits;
}

// Gives up the weights that a kernel has packed for itself, and the pages of the file they are in.
void drop_weights(Step& step) {
  const auto drop = [](Affine& affine) {
    release_pages(affine.weight);
    affine.weight.reset();
  };
  if (auto* convolution = std::get_if<Convolution>(&step.work)) drop(convolution->affine);
  if (auto* linear = std::get_if<Linear>(&step.work)) drop(linear->affine);
}

std::string slot_text(const Slot& slot) {
  return fmt::format("{}[{}]", dtype_name(slot.dtype), fmt::join(slot.sizes, ","));
}

}  // namespace

struct Plan::State {
  Program program;
  ArenaLayout layout;
  int64_t scratch_bytes = 0, weight_bytes = 0;
  int threads = 1;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::vector<Executable> executables;  // one a step; empty where it is no primitive
  at::Tensor arena;
  std::vector<void*> slots;  // addresses
  // Of inputs, whose address changes: (step, index into its memories).
  std::vector<std::vector<std::pair<size_t, size_t>>> readers_of_input;

  void build();
  void place();
  void set_inputs(const std::vector<at::Tensor>& inputs);
  void run_step(size_t index);
  void run_stretch(const Step& step, const Stretch& stretch);
  void run_packed(const Step& step, const PackedLinear& linear);
  std::vector<at::Tensor> results(const std::vector<at::Tensor>& inputs) const;
  std::string step_text(size_t index) const;
};

void Plan::State::build() {
  for (Step& step : program.steps) {
    Executable made;
    if (is_primitive(step)) {
      try {
        made = make_executable(step, program.slots, engine);
      } catch (const dnnl::error& error) {
        throw Error(
            ErrorCode::kUnsupported,
            fmt::format("oneDNN has no kernel for this {}: {}", kind_of(step), error.what()),
            step.name, "run the model without the engine, and please report this");
      }
    }
    scratch_bytes = std::max(scratch_bytes, made.scratch_bytes);
    weight_bytes += made.weight_bytes;
    if (const auto* linear = std::get_if<PackedLinear>(&step.work)) {
      weight_bytes +=
          static_cast<int64_t>(linear->weight.nbytes() + linear->scales_and_zeros.nbytes());
    }
    executables.push_back(std::move(made));
    drop_weights(step);
  }
  place();
}

void Plan::State::place() {
  layout = lay_out(lifetimes_of(program));
  constexpr int64_t kAlignment = 64;
  arena = at::empty({layout.bytes + scratch_bytes + kAlignment}, at::kByte);
  auto* const base = static_cast<char*>(arena.data_ptr());
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(base) % kAlignment);
  char* const start = base + (past == 0 ? 0 : kAlignment - past);
  for (const Slot& slot : program.slots) slots.push_back(start + layout.offsets[slot.buffer]);
  readers_of_input.resize(program.inputs.size());
  for (size_t step = 0; step < executables.size(); ++step) {
    Executable& executable = executables[step];
    if (executable.owned.empty()) continue;
    executable.owned[executable.scratch].set_data_handle(start + layout.bytes);
    for (const auto& [slot, index] : executable.slots) {
      const std::optional<size_t> input = program.buffers[program.slots[slot].buffer].input;
      if (input) {
        readers_of_input[*input].emplace_back(step, index);
      } else {
        executable.owned[index].set_data_handle(slots[slot]);
      }
    }
  }
}

void Plan::State::set_inputs(const std::vector<at::Tensor>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      if (program.buffers[program.slots[slot].buffer].input == i)
        slots[slot] = inputs[i].data_ptr();
    }
    for (const auto& [step, index] : readers_of_input[i]) {
      executables[step].owned[index].set_data_handle(inputs[i].data_ptr());
    }
  }
}

void Plan::State::run_step(size_t index) {
  const Step& step = program.steps[index];
  const auto from = [&]() -> const Slot& { return program.slots[step.inputs[0]]; };
  const auto to = [&]() -> const Slot& { return program.slots[step.outputs[0]]; };
  if (const auto* stretch = std::get_if<Stretch>(&step.work)) {
    run_stretch(step, *stretch);
  } else if (const auto* linear = std::get_if<PackedLinear>(&step.work)) {
    run_packed(step, *linear);
  } else if (std::holds_alternative<GlobalAverage>(step.work)) {
    global_average(from(), slots[step.inputs[0]], to(), slots[step.outputs[0]]);
  } else if (const auto* part = std::get_if<Crop>(&step.work)) {
    crop(*part, from(), slots[step.inputs[0]], to(), slots[step.outputs[0]]);
  } else {
    const Executable& executable = executables[index];
    const dnnl_status_t status = dnnl_primitive_execute(
        executable.primitive.get(), stream.get(), static_cast<int>(executable.arguments.size()),
        executable.arguments.data());
    if (status != dnnl_success) {
      throw Error(ErrorCode::kRunFailed,
                  fmt::format("{} failed with oneDNN's status {}", executable.kernel,
                              static_cast<int>(status)),
                  step.name);
    }
  }
}

void Plan::State::run_stretch(const Step& step, const Stretch& stretch) {
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    const size_t slot = step.inputs[i];
    const at::Tensor view = view_of(program.slots[slot], slots[slot]);
    // Floats of the graph may be kept as bfloat16.
    inputs.push_back(view.to(*stretch.part->graph().inputs().at(i)->type.dtype));
  }
  const std::vector<at::Tensor> outputs = stretch.part->forward(inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    view_of(program.slots[step.outputs[i]], slots[step.outputs[i]]).copy_(outputs[i]);
  }
}

void Plan::State::run_packed(const Step& step, const PackedLinear& linear) {
  const Slot& from = program.slots[step.inputs[0]];
  const Slot& to = program.slots[step.outputs[0]];
  const at::Tensor x = view_of(from, slots[step.inputs[0]]).view({-1, from.sizes.back()});
  at::Tensor y =
      at::_weight_int4pack_mm_for_cpu(x, linear.weight, linear.group, linear.scales_and_zeros);
  if (linear.bias.defined()) y.add_(linear.bias);
  view_of(to, slots[step.outputs[0]]).view({-1, to.sizes.back()}).copy_(y);
}

std::vector<at::Tensor> Plan::State::results(const std::vector<at::Tensor>& inputs) const {
  std::vector<at::Tensor> results;
  for (const Program::Result& result : program.results) {
    if (!result.slot) {
      results.push_back(result.constant.clone());
      continue;
    }
    const Slot& slot = program.slots[*result.slot];
    at::Tensor output =
        at::empty_strided(slot.sizes, slot.strides(), at::TensorOptions().dtype(slot.dtype));
    std::memcpy(output.data_ptr(), slots[*result.slot], static_cast<size_t>(slot.bytes()));
    results.push_back(std::move(output));
  }
  return results;
}

std::string Plan::State::step_text(size_t index) const {
  const Step& step = program.steps[index];
  std::vector<std::string> inputs, outputs, fused;
  for (const size_t slot : step.inputs) inputs.push_back(slot_text(program.slots[slot]));
  for (const size_t slot : step.outputs) outputs.push_back(slot_text(program.slots[slot]));
  for (const PostOp& op : step.post) fused.push_back(name_of(op.kind));
  const auto* stretch = std::get_if<Stretch>(&step.work);
  const bool packed = std::holds_alternative<PackedLinear>(step.work);
  const std::string kernel = stretch              ? stretch->operators
                             : packed             ? "libtorch:int4pack"
                             : is_primitive(step) ? executables[index].kernel
                                                  : "lathe";
  std::string text = fmt::format("{:14} {:32} {:28} {} -> {}", kind_of(step), step.name, kernel,
                                 fmt::join(inputs, " "), fmt::join(outputs, " "));
  if (!fused.empty()) text += fmt::format(" + {}", fmt::join(fused, " "));
  for (const size_t slot : step.outputs) {
    const size_t buffer = program.slots[slot].buffer;
    text += fmt::format("  @{}", layout.offsets[buffer]);
  }
  return text + "\n";
}

bool has_engine() { return true; }
void require_engine() {}

bool has_wide_integer_sums() {
  return has_isa(dnnl::cpu_isa::avx2_vnni) || has_isa(dnnl::cpu_isa::avx512_core_vnni);
}

bool has_bfloat16_kernels() {
  return has_isa(dnnl::cpu_isa::avx2_vnni_2) || has_isa(dnnl::cpu_isa::avx512_core);
}

Plan::Plan(std::unique_ptr<State> state) : state_(std::move(state)) {}
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;
Plan::~Plan() = default;

std::vector<at::Tensor> Plan::run(const std::vector<at::Tensor>& inputs) {
  State& state = *state_;
  if (inputs.size() != state.program.inputs.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the plan takes {} inputs, {} were given", state.program.inputs.size(),
                            inputs.size()));
  }
  std::vector<at::Tensor> plain;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Slot& slot = state.program.slots[state.program.inputs[i]];
    if (inputs[i].sizes() != at::IntArrayRef(slot.sizes) || inputs[i].scalar_type() != slot.dtype ||
        !inputs[i].is_cpu()) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("is {}[{}] on {}, the plan was made for {} on the CPU",
                      dtype_name(inputs[i].scalar_type()), fmt::join(inputs[i].sizes(), ","),
                      inputs[i].device().str(), slot_text(slot)),
          slot.name, "make a plan for these sizes");
    }
    plain.push_back(inputs[i].contiguous());
  }
  const at::NoGradGuard no_grad;
  const ThreadGuard threads(state.threads);
  state.set_inputs(plain);
  for (size_t i = 0; i < state.program.steps.size(); ++i) state.run_step(i);
  return state.results(plain);
}

std::string Plan::text() const {
  std::string text;
  for (size_t i = 0; i < state_->program.steps.size(); ++i) text += state_->step_text(i);
  text +=
      fmt::format("{} steps, {} threads; values {} bytes, scratchpad {} bytes, weights {} bytes\n",
                  state_->program.steps.size(), state_->threads, state_->layout.bytes,
                  state_->scratch_bytes, state_->weight_bytes);
  if (const int64_t layers = state_->program.layers_of_narrow_sums; layers > 0) {
    text += fmt::format(
        "{} layers of eight-bit codes compute in float: this processor (no VNNI) adds products of "
        "codes in 16 bits, which would overflow\n",
        layers);
  }
  return text;
}

int64_t Plan::arena_bytes() const { return state_->layout.bytes; }
int64_t Plan::weight_bytes() const { return state_->weight_bytes; }

Plan plan(const Model& model, const std::vector<at::Tensor>& inputs, const PlanOptions& options) {
  if (model.is_tensor_set()) {
    throw Error(ErrorCode::kInvalidArgument, "the model is a bare set of tensors and cannot be run",
                {}, "give its architecture with --arch (see: lathe models)");
  }
  if (!model.device().is_cpu()) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("the engine runs on the CPU, the model is on {}", model.device().str()),
                {}, "move the model to the CPU");
  }
  const bool bfloat16 = options.precision == EnginePrecision::kBfloat16;
  if (bfloat16 && !has_bfloat16_kernels()) {
    throw Error(ErrorCode::kUnsupported, "oneDNN has no bfloat16 kernels for this processor", {},
                "plan in the graph's precision or in float");
  }
  const at::NoGradGuard no_grad;
  auto state = std::make_unique<Plan::State>();
  state->threads = options.threads > 0 ? options.threads : at::get_num_threads();
  const ThreadGuard threads(state->threads);
  const Model fixed = specialize(model, inputs);
  state->program = lower(fixed, {.eight_bit = options.precision != EnginePrecision::kFloat,
                                 .float_type = bfloat16 ? c10::kBFloat16 : c10::kFloat,
                                 .wide_sums = has_wide_integer_sums()});
  state->build();
  return Plan(std::move(state));
}

}  // namespace compress
