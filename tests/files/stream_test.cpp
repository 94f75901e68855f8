// Tensor by tensor gives what all at once gives.

#include "compress/stream.h"

#include "compress/files.h"
#include "compress/io/safetensors.h"
#include "compress/stream_jobs.h"
#include "compress/weight.h"
#include "tests/io/files.h"
#include "tests/support/models.h"
#include "tests/support/pass_fixture.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include <csignal>
#include <future>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;

// Odd sizes, so that tensors begin at all alignments; types that no pass touches; a tie.
Model tensors(const std::string& dtype = "f32") {
  std::string text = R"(
a.weight alias tied.weight : T[24,64]
a.bias : T[23]
counter : i64[] = 5
flags : bool[3] = [true, false, true]
b.weight : T[7,33]
deep.conv.weight : T[16,8,3,3]
c.weight : T[300,129]
)";
  for (size_t at; (at = text.find(" T[")) != text.npos;) text.replace(at + 1, 1, dtype);
  return parse_filled(text);
}

nlohmann::json json_of(const std::filesystem::path& path, const char* key) {
  const Metadata metadata = SafetensorsFile::open(path).metadata();
  const auto found = metadata.find(key);
  return found == metadata.end() ? nlohmann::json() : nlohmann::json::parse(found->second);
}

struct Both {
  std::filesystem::path whole, streamed;
  ModelCost measured;
  StreamResult result;
};

Both run_both(const std::string& line, const ScratchDir& folder, const std::string& dtype) {
  Both both{folder / "whole.safetensors", folder / "streamed.safetensors", {}, {}};
  save_model(tensors(dtype), folder / "in.safetensors");
  const Recipe recipe = recipe_of(line);
  Model whole = load_model((folder / "in.safetensors").string());
  run_recipe(recipe, whole);
  save_model(whole, both.whole);
  both.measured = measure_cost(load_model(both.whole.string()));
  both.result =
      stream_recipe(recipe, load_model((folder / "in.safetensors").string()), both.streamed);
  return both;
}

// Floats of 8 bits cannot be compared as they are.
at::Tensor bytes_of(const at::Tensor& tensor) {
  return c10::isFloat8Type(tensor.scalar_type()) ? tensor.view(at::kByte) : tensor;
}

TEST(Stream, WritesTheTensorsThatTheOrdinaryWayWrites) {
  for (const char* dtype : {"f32", "bf16", "f16"}) {
    for (const char* line :
         {"prune.magnitude{sparsity=0.7}", "prune.n_m", "quantize.weights{bits=4}",
          "quantize.weights{bits=3,grid=affine,granularity=group:16}",
          "quantize.weights{format=fp8}", "quantize.weights{format=nf4}", "quantize.hqq{bits=3}",
          "quantize.weights{format=nvfp4,where=a.*},quantize.weights{format=mxfp4,where=c.*}",
          "prune.magnitude{sparsity=0.5,where=c.*},quantize.weights{bits=8,where=[a.*,c.*]}"}) {
      const ScratchDir folder;
      const Both both = run_both(line, folder, dtype);
      const SafetensorsFile whole = SafetensorsFile::open(both.whole);
      const SafetensorsFile streamed = SafetensorsFile::open(both.streamed);
      ASSERT_EQ(streamed.entries().size(), whole.entries().size()) << line;
      EXPECT_EQ(streamed.ties(), whole.ties()) << line;
      for (const SafetensorsEntry& entry : whole.entries()) {
        const SafetensorsEntry* found = streamed.find(entry.name);
        ASSERT_NE(found, nullptr) << line << entry.name;
        EXPECT_EQ(found->dtype, entry.dtype) << line << entry.name;
        const auto width = static_cast<uint64_t>(streamed.tensor(*found).element_size());
        EXPECT_EQ(found->begin % width, 0u) << line << entry.name;
        EXPECT_TRUE(at::equal(bytes_of(streamed.tensor(*found)), bytes_of(whole.tensor(entry))))
            << line << entry.name;
      }
      for (const char* key : {"quantization_config", "lathe.shapes"})
        EXPECT_EQ(json_of(both.streamed, key), json_of(both.whole, key)) << line << key;
    }
  }
}

TEST(Stream, CountsAndMeasuresAsTheOrdinaryWayDoes) {
  const ScratchDir folder;
  for (const char* line :
       {"prune.n_m,quantize.weights{bits=4,grid=affine}", "prune.magnitude{sparsity=0.7}",
        "quantize.weights{bits=5}", "prune.n_m{where=[a.*,nothing.*]}"}) {
    const Both both = run_both(line, folder, "f32");
    const auto whole = json_of(both.whole, "lathe.provenance");
    const auto streamed = json_of(both.streamed, "lathe.provenance");
    EXPECT_EQ(streamed["input"], whole["input"]);
    EXPECT_EQ(streamed["recipe"], whole["recipe"]);
    for (size_t i = 0; i < whole["steps"].size(); ++i) {
      EXPECT_EQ(streamed["steps"][i]["counts"], whole["steps"][i]["counts"]) << line;
      EXPECT_EQ(streamed["steps"][i]["messages"], whole["steps"][i]["messages"]) << line;
      for (const auto& [name, figure] : whole["steps"][i]["measures"].items()) {
        EXPECT_NEAR(streamed["steps"][i]["measures"][name].get<double>(), figure.get<double>(),
                    1e-12);
      }
    }
    EXPECT_EQ(both.result.after.parameters, both.measured.parameters) << line;
    EXPECT_EQ(both.result.after.nonzeros, both.measured.nonzeros) << line;
    EXPECT_NEAR(both.result.after.bits_per_weight, both.measured.bits_per_weight, 1e-12) << line;
    EXPECT_EQ(both.result.after.layers.size(), both.measured.layers.size()) << line;
  }
}

TEST(Stream, RefusesASelectorThatMatchesNothingBeforeAnyWork) {
  const ScratchDir folder;
  const Error error = error_of([&] {
    stream_recipe(recipe_of("prune.n_m{where=nothing.*}"), tensors(), folder / "out.safetensors");
  });
  EXPECT_THAT(error.what(), HasSubstr("/steps/0/where"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(Stream, LeavesNoFileBehindWhenAWeightIsNotFinite) {
  const ScratchDir folder;
  Model model = tensors();
  model.tensor("c.weight").view(-1)[5] = std::numeric_limits<float>::quiet_NaN();
  const Error error =
      error_of([&] { stream_recipe(recipe_of("prune.n_m"), model, folder / "out.safetensors"); });
  EXPECT_THAT(error.what(), HasSubstr("NaN or infinite elements in c.weight"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

// What is masked and written at once is 1 MB, what one job holds 32 MB; sizes are odd.
TEST(Stream, WritesTheSameBytesForAnyNumberOfThreads) {
  const ScratchDir folder;
  const std::string small =
      "b.weight : bf16[700,1001]\nc.weight : f64[33,65]\nd.weight : f32[900,1003]\n"
      "e.bias : f32[900]\n";
  const int threads = at::get_num_threads();
  for (const auto& [line, text] :
       {std::pair{"prune.magnitude{sparsity=0.7}", "a.weight : f32[1500,5601]\n" + small},
        std::pair{"prune.n_m", small}, std::pair{"prune.n_m{n=3,m=8}", small}}) {
    const Model model = parse_filled(text);
    std::vector<std::string> files;
    for (const int count : {1, 3}) {
      at::set_num_threads(count);
      const StreamResult result =
          stream_recipe(recipe_of(line), model, folder / "streamed.safetensors");
      files.push_back(read_all(folder / "streamed.safetensors"));
      EXPECT_EQ(result.after.nonzeros,
                measure_cost(load_model((folder / "streamed.safetensors").string())).nonzeros);
    }
    at::set_num_threads(threads);
    EXPECT_TRUE(files[0] == files[1]) << line;
    Model whole = model.clone();
    run_recipe(recipe_of(line), whole);
    const SafetensorsFile found = SafetensorsFile::open(folder / "streamed.safetensors");
    for (const Weight& weight : weights(whole)) {
      ASSERT_NE(found.find(weight.name()), nullptr);
      EXPECT_TRUE(at::equal(found.tensor(*found.find(weight.name())), weight.effective()));
    }
  }
}

TEST(Stream, ReportsADiskThatRefusesAndLeavesNoFile) {
  const ScratchDir folder;
  const Model model = parse_filled("a.weight : f32[1024,1024]\nb.weight : f32[1024,1024]");
  struct rlimit before {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const struct rlimit small {
    1 << 20, before.rlim_max
  };
  const auto ignored = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const Error error =
      error_of([&] { stream_recipe(recipe_of("prune.n_m"), model, folder / "out.safetensors"); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, ignored);
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_THAT(error.what(), HasSubstr("largest file"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(StreamJobs, RunInOrderAndWaitForTheBytesThatTheyHold) {
  std::vector<int> done;
  std::promise<void> gate;
  std::shared_future<void> open = gate.get_future().share();
  StreamJobs jobs;
  jobs.add(1, [&] { done.push_back(1); });
  jobs.wait();
  EXPECT_EQ(done, std::vector<int>{1});
  jobs.add(10, [&, open] {
    open.wait();
    done.push_back(2);
  });
  jobs.add(5, [&] { done.push_back(3); });
  jobs.wait(15);  // both may be left
  EXPECT_EQ(done, std::vector<int>{1});
  gate.set_value();
  jobs.wait(5);
  jobs.wait();
  EXPECT_EQ(done, (std::vector<int>{1, 2, 3}));
}

TEST(StreamJobs, HandOverWhatAJobThrewAndDropTheOthers) {
  bool ran = false;
  StreamJobs jobs;
  jobs.add(1, [] { throw Error(ErrorCode::kIo, "no space left"); });
  EXPECT_THROW(jobs.wait(), Error);
  EXPECT_THROW(jobs.add(1, [&] { ran = true; }), Error);
  EXPECT_THROW(jobs.wait(100), Error);
  EXPECT_FALSE(ran);
}

TEST(CanStream, IsNotForStepsThatSeeTheWholeModel) {
  EXPECT_TRUE(can_stream(recipe_of("prune.magnitude,quantize.weights")));
  EXPECT_FALSE(can_stream(recipe_of("prune.magnitude{scope=model}")));
  EXPECT_FALSE(can_stream(recipe_of("prune.n_m,fold.batch_norm")));
  EXPECT_TRUE(can_stream(tensors()));
  Model quantized = tensors();
  run_pass("quantize.weights", quantized);
  EXPECT_FALSE(can_stream(quantized));
}

}  // namespace
}  // namespace compress::testing
