// Results of steps as JSON, and the key that tells whether a run can go on.

#include "compress/run_state.h"

#include "compress/version.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <limits>

namespace compress {
namespace {

constexpr const char* kProvenance = "lathe.provenance";

StepResult read_step_result(const Json& json) {
  StepResult result;
  result.index = json.at("step").get<size_t>();
  result.pass = json.at("pass").get<std::string>();
  result.options = json.at("options");
  result.change = json.at("changed").get<bool>() ? Change::kSome : Change::kNone;
  for (const auto& [name, n] : json.at("counts").items()) result.counts[name] = n.get<int64_t>();
  for (const auto& [name, x] : json.at("measures").items()) {
    // JSON has no NaN and no infinity; they were written as null.
    result.measures[name] =
        x.is_null() ? std::numeric_limits<double>::quiet_NaN() : x.get<double>();
  }
  result.messages = json.at("messages").get<std::vector<std::string>>();
  result.digest = json.at("digest").get<std::string>();
  result.seconds = json.value("seconds", 0.0);
  return result;
}

}  // namespace

Json step_result_json(const StepResult& result, bool repeatable) {
  Json json = {{"step", result.index},        {"pass", result.pass},
               {"options", result.options},   {"changed", result.change == Change::kSome},
               {"counts", result.counts},     {"measures", result.measures},
               {"messages", result.messages}, {"digest", result.digest}};
  if (!repeatable) json["seconds"] = result.seconds;
  return json;
}

void add_provenance(std::map<std::string, std::string>& metadata, const Recipe& recipe,
                    const std::string& input_digest, const std::vector<StepResult>& steps) {
  Json results = Json::array();
  for (const StepResult& result : steps) {
    results.push_back(step_result_json(result, /*repeatable=*/true));
    if (result.digest.empty()) results.back().erase("digest");
  }
  Json provenance = {{"lathe", version()},
                     {"recipe", recipe_json(recipe)},
                     {"seed", recipe.seed},
                     {"input", input_digest},
                     {"steps", results}};
  if (const auto earlier = metadata.find(kProvenance); earlier != metadata.end()) {
    const Json json = Json::parse(earlier->second, nullptr, false);
    if (json.is_discarded()) {
      provenance["earlier"] = earlier->second;
    } else {
      provenance["earlier"] = json;
    }
  }
  metadata[kProvenance] = provenance.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string resume_key(const Recipe& recipe, size_t steps, const std::string& input_digest) {
  Json key = recipe_json(recipe);
  COMPRESS_CHECK(steps <= key["steps"].size(), "a key for more steps than the recipe has");
  key["steps"].erase(key["steps"].begin() + static_cast<std::ptrdiff_t>(steps), key["steps"].end());
  key.erase("name");
  key.erase("evaluate");  // looks at the result only
  key["lathe"] = version();
  key["input"] = input_digest;
  const std::string text = key.dump(-1, ' ', false, Json::error_handler_t::replace);
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

RunState make_run_state(const Recipe& recipe, const std::string& input_digest,
                        std::vector<StepResult> results) {
  RunState state;
  state.key = resume_key(recipe, results.size(), input_digest);
  state.input_digest = input_digest;
  state.results = std::move(results);
  return state;
}

Json run_state_json(const RunState& state) {
  Json results = Json::array();
  for (const StepResult& result : state.results) results.push_back(step_result_json(result));
  return {{"key", state.key}, {"input", state.input_digest}, {"results", results}};
}

RunState read_run_state(const Json& json, const std::string& file) {
  try {
    RunState state;
    state.key = json.at("key").get<std::string>();
    state.input_digest = json.at("input").get<std::string>();
    for (const Json& result : json.at("results")) state.results.push_back(read_step_result(result));
    return state;
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kBadFile, fmt::format("not the state of a run: {}", error.what()), file,
                "start without --resume");
  }
}

void require_resumable(const RunState& state, const Recipe& recipe, const std::string& input_digest,
                       const std::string& checkpoint_digest) {
  const std::string hint = "start without --resume, or undo the change";
  if (state.input_digest != input_digest) {
    throw Error(ErrorCode::kInvalidArgument,
                "the input model is not the one that the interrupted run started with", "--resume",
                hint);
  }
  if (state.finished() > recipe.steps.size() ||
      state.key != resume_key(recipe, state.finished(), input_digest)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the recipe's seed, data or first {} steps, or the version of Lathe, "
                            "changed since the interrupted run",
                            state.finished()),
                "--resume", hint);
  }
  if (state.model_digest() != checkpoint_digest) {
    throw Error(ErrorCode::kBadFile,
                fmt::format("the checkpoint is not the model after step {}", state.finished()),
                "--resume", "start without --resume");
  }
}

}  // namespace compress
