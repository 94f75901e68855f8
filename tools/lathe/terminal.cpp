// Results to standard output, messages and progress to standard error.

#include "tools/lathe/terminal.h"

#include "compress/allocator.h"
#include "compress/error.h"
#include "compress/files.h"
#include "compress/graph/shapes.h"
#include "tools/lathe/command.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

namespace lathe {

using compress::Error;
using compress::ErrorCode;

void print_result(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) {
    throw Error(ErrorCode::kIo, fmt::format("cannot write: {}", std::strerror(errno)),
                "standard output");
  }
}

void say(const std::string& text) {
  // A progress line that stands there makes room.
  fmt::print(stderr, "{}lathe: {}\n", isatty(STDERR_FILENO) == 1 ? "\r\033[K" : "", text);
}

void ModelArgument::add_to(CLI::App& command, const std::string& name) {
  command.add_option(name, source, kModelHelp)->required()->type_name("");
  // Two models on one command line have an --arch each: --arch and --arch-b.
  const std::string suffix = name == "MODEL" || name == "A" || name == "IN" ? "" : "-b";
  command
      .add_option(
          "--arch" + suffix, architecture,
          fmt::format("architecture of {}, if it holds weights only (see: lathe models)", name))
      ->type_name("NAME");
}

void ModelArgument::add_sizes_to(CLI::App& command) {
  add_repeatable(command, "--size", sizes,
                 "size of a free dimension of the inputs that MACs and latency are of, such as "
                 "sequence=128",
                 "NAME=N");
}

void ComputeOptions::add_to(CLI::App& command) {
  command.add_option("--threads", threads, "threads to compute with (default: one a core)")
      ->type_name("N")
      ->check(within(1, 1024));
  command.add_option("--device", device, "where the model runs: cpu or cuda (default: cpu)")
      ->type_name("DEVICE")
      ->check(CLI::IsMember({"cpu", "cuda"}).description(""));
}

void ComputeOptions::apply() const {
  if (threads > 0) at::set_num_threads(threads);
  if (device == "cuda" && !at::hasCUDA()) {
    throw Error(
        ErrorCode::kInvalidArgument, "LibTorch finds no CUDA device here", "--device",
        "build against a CUDA LibTorch and run on a machine with a GPU, or leave the option out");
  }
}

void EngineOptions::add_to(CLI::App& command) {
  command.add_flag("--engine", engine,
                   "run through the inference engine, planned once a batch size");
  command
      .add_option("--precision", precision,
                  "of the engine: graph (integers where the model is quantized, else float), float "
                  "or bfloat16")
      ->capture_default_str()
      ->type_name("PRECISION")
      ->check(CLI::IsMember({"graph", "float", "bfloat16"}).description(""));
  command.add_flag("--plan", print_plan,
                   "say on standard error what the engine does, step by step");
}

void EngineOptions::check(const ComputeOptions& compute) const {
  if (!engine && (print_plan || precision != "graph")) {
    throw Error(ErrorCode::kInvalidArgument, "belongs to the inference engine",
                print_plan ? "--plan" : "--precision", "add --engine");
  }
  if (engine && compute.device != "cpu") {
    throw Error(ErrorCode::kInvalidArgument, "the engine runs on the CPU only", "--engine",
                "leave out --device or --engine");
  }
  if (engine) compress::require_engine();
}

compress::PlanOptions EngineOptions::plan() const {
  const std::vector<std::string_view> names = option_names(compress::EnginePrecision{});
  compress::PlanOptions options;
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == precision) options.precision = static_cast<compress::EnginePrecision>(i);
  }
  return options;
}

compress::Plan EngineOptions::plan_of(const compress::Model& model,
                                      const std::vector<at::Tensor>& inputs) const {
  const compress::ReturnLargeBlocks while_packing;
  return compress::plan(model, inputs, plan());
}

namespace {

void set_size(compress::Model& model, const std::string& text) {
  const size_t equals = text.find('=');
  int64_t size = 0;
  const char* end = text.data() + text.size();
  const bool read = equals != std::string::npos &&
                    std::from_chars(text.data() + equals + 1, end, size).ptr == end;
  if (!read || size < 1) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("`{}` is no size", text), "--size",
                "write NAME=N, for example sequence=128");
  }
  if (model.is_tensor_set()) {
    throw Error(ErrorCode::kInvalidArgument, "a bare set of tensors has no inputs", "--size",
                "give its architecture with --arch (see: lathe models)");
  }
  try {
    compress::set_free_size(model, text.substr(0, equals), size);
  } catch (const Error& error) {
    throw error.within("--size " + text);
  }
}

}  // namespace

compress::Model load(const ModelArgument& argument) {
  if (!argument.architecture.empty() && argument.source.starts_with("zoo:")) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is an architecture already", argument.source), "--arch",
                "leave the option out, or name a file of weights");
  }
  compress::Model model = compress::load_model(argument.source, {argument.architecture});
  for (const std::string& note : model.notes) say(fmt::format("{}: {}", argument.source, note));
  for (const std::string& size : argument.sizes) set_size(model, size);
  return model;
}

ProgressLine::ProgressLine(std::string title)
    : title_(std::move(title)),
      start_(Clock::now()),
      last_(start_),
      enabled_(isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::clear() {
  if (shown_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

void ProgressLine::update(int64_t done, int64_t total) {
  const Clock::time_point now = Clock::now();
  if (first_ < 0) {
    first_ = done > 1 ? done : 0;
    if (first_ > 0) start_ = now;
  }
  if (!enabled_ || now - last_ < std::chrono::milliseconds(200)) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const auto here = static_cast<double>(done - first_);
  const double left = here > 0 ? seconds / here * static_cast<double>(total - done) : 0;
  const std::string when =
      left < 120 ? fmt::format("{:.0f} s", left) : fmt::format("{:.0f} min", left / 60);
  fmt::print(stderr, "\r\033[K{}: {} of {}, {} left", title_, done, total, when);
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace lathe
