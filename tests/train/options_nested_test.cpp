// Options inside of options: choices, structs, lists of structs; and that the schema agrees.

#include "compress/options_nested.h"

#include "compress/selector.h"
#include "compress/train/optimizer.h"
#include "compress/train/schedule.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace compress {

struct InnerOptions {
  using IsOptions = void;
  int64_t size = 3;
  std::vector<double> numbers = {0.5};

  template <class Visitor>
  void visit(Visitor& field) {
    field("size", size, "A size.").range(1, 9);
    field("numbers", numbers, "Numbers.").at_least(0);
  }
};

struct OuterOptions {
  OptimizerOptions optimizer;
  ScheduleOptions schedule = CosineSchedule{.warmup_epochs = 1};
  std::vector<ParameterGroupOptions> groups;
  InnerOptions inner;

  template <class Visitor>
  void visit(Visitor& field) {
    field("optimizer", optimizer, "An optimizer.");
    field("schedule", schedule, "A schedule.");
    field("groups", groups, "Groups.");
    field("inner", inner, "A struct.");
  }
};

namespace {

using ::testing::HasSubstr;

std::string read(const std::string& text, OptionsOf<OuterOptions>& options) {
  Problems problems;
  read_options(parse_json(text), "/steps/0/train", options, problems);
  std::string lines;
  for (const Error& problem : problems.list()) lines += std::string(problem.what()) + "\n";
  return lines;
}

std::string read(const std::string& text) {
  OptionsOf<OuterOptions> options;
  return read(text, options);
}

TEST(NestedOptions, ReadsChoicesStructsAndListsOfStructs) {
  OptionsOf<OuterOptions> options;
  EXPECT_EQ(read(R"({"optimizer": {"adamw": {"lr": 0.01, "beta2": 0.95}},
                     "schedule": {"multi_step": {"at": [1, 2.5]}},
                     "groups": [{"where": "*.bias", "weight_decay": 0}, {"freeze": true}],
                     "inner": {"size": 4}})",
                 options),
            "");
  const AdamWOptions* adamw = options.value.optimizer.get<AdamWOptions>();
  ASSERT_NE(adamw, nullptr);
  EXPECT_EQ(options.value.optimizer.get<SgdOptions>(), nullptr);
  EXPECT_EQ(options.value.optimizer.name(), "adamw");
  EXPECT_EQ(adamw->lr, 0.01);
  EXPECT_EQ(adamw->beta1, 0.9);  // what is not said is the default of the chosen struct
  EXPECT_EQ(adamw->beta2, 0.95);
  EXPECT_EQ(options.value.schedule.get<MultiStepSchedule>()->at, (std::vector<double>{1, 2.5}));
  ASSERT_EQ(options.value.groups.size(), 2u);
  EXPECT_EQ(options.value.groups[0].where, Selector::name("*.bias"));
  EXPECT_EQ(options.value.groups[0].weight_decay, 0);
  EXPECT_EQ(options.value.groups[1].weight_decay, -1);
  EXPECT_TRUE(options.value.groups[1].freeze);
  EXPECT_EQ(options.value.inner.size, 4);
  EXPECT_EQ(options.value.inner.numbers, std::vector<double>{0.5});
}

TEST(NestedOptions, TakesTheDefaultsOfAChoiceThatIsNamedBare) {
  OptionsOf<OuterOptions> options;
  EXPECT_EQ(read(R"({"optimizer": "adam", "schedule": "cosine"})", options), "");
  EXPECT_EQ(options.value.optimizer.get<AdamOptions>()->lr, 1e-3);
  // The struct's own defaults, not those of the member before it was read.
  EXPECT_EQ(options.value.schedule.get<CosineSchedule>()->warmup_epochs, 0);
  EXPECT_EQ(OptionsOf<OuterOptions>().value.optimizer.name(), "sgd");  // at first the first one
}

TEST(NestedOptions, WritesWhatItReads) {
  OptionsOf<OuterOptions> options, again, defaults;
  read(R"({"optimizer": {"sgd": {"nesterov": true}}, "schedule": "one_cycle",
           "groups": [{"where": {"kind": "norm"}, "lr_scale": 0.5}], "inner": {"numbers": []}})",
       options);
  const Json written = write_options(options, defaults);
  EXPECT_EQ(written["optimizer"].dump(),
            R"({"sgd":{"lr":0.1,"momentum":0.9,"dampening":0,"weight_decay":0,"nesterov":true}})");
  EXPECT_EQ(written["groups"].dump(),
            R"([{"where":{"kind":"norm"},"lr_scale":0.5,"weight_decay":-1,"freeze":false}])");
  EXPECT_EQ(written["inner"].dump(), R"({"size":3,"numbers":[]})");
  EXPECT_EQ(read(written.dump(), again), "");
  EXPECT_EQ(write_options(again, defaults).dump(), written.dump());
  EXPECT_EQ(write_options(defaults, defaults, WriteOptions::kChanged).dump(), "{}");
  again.value.optimizer = AdamOptions{};
  EXPECT_NE(write_options(again, defaults).dump(), written.dump());
}

TEST(NestedOptions, ReportsAllProblemsWithPointersAndHints) {
  EXPECT_EQ(read(R"({"optimizer": "adm", "schedule": {"cosin": {}}})"),
            "/steps/0/train/optimizer: unknown choice `adm` (did you mean `adam`?)\n"
            "/steps/0/train/schedule/cosin: unknown choice `cosin` (did you mean `cosine`?)\n");
  EXPECT_EQ(read(R"({"optimizer": "lion9999"})"),
            "/steps/0/train/optimizer: unknown choice `lion9999` (it can be sgd, adam, adamw)\n");
  EXPECT_EQ(read(R"({"optimizer": {"sgd": {"lr": "0.1", "momentun": 0.5}},
                     "groups": [{"freeze": 1}, {"lr_scale": -2}], "inner": {"size": 10}})"),
            "/steps/0/train/optimizer/sgd/lr: \"0.1\" is not a number (write 0.1 without quotes)\n"
            "/steps/0/train/optimizer/sgd/momentun: unknown option `momentun` (did you mean "
            "`momentum`?)\n"
            "/steps/0/train/groups/0/freeze: 1 is neither true nor false\n"
            "/steps/0/train/groups/1/lr_scale: -2 is less than 0\n"
            "/steps/0/train/inner/size: 10 is outside [1, 9]\n");
}

TEST(NestedOptions, RefusesWrongTypes) {
  for (const char* wrong : {"1", "null", "[]", "{}", R"({"sgd": {}, "adam": {}})"}) {
    EXPECT_THAT(read(std::string(R"({"optimizer": )") + wrong + "}"),
                HasSubstr("does not name one of sgd, adam, adamw (for example {\"sgd\": {}})"))
        << wrong;
  }
  EXPECT_EQ(read(R"({"optimizer": {"sgd": 0.1}})"),
            "/steps/0/train/optimizer/sgd: 0.1 is not an object of options\n");
  EXPECT_EQ(read(R"({"inner": "size"})"),
            "/steps/0/train/inner: \"size\" is not an object of options\n");
  EXPECT_EQ(read(R"({"groups": {"freeze": true}})"),
            "/steps/0/train/groups: {\"freeze\":true} is not a list\n");
}

TEST(NestedOptions, ChecksTheRulesOfTheChosenStruct) {
  EXPECT_EQ(read(R"({"optimizer": {"sgd": {"nesterov": true, "momentum": 0}}})"),
            "/steps/0/train/optimizer/sgd/nesterov: nesterov momentum requires a momentum and zero "
            "dampening (set momentum, for example to 0.9)\n");
  EXPECT_EQ(read(R"({"optimizer": {"adam": {"beta1": 1}}})"),
            "/steps/0/train/optimizer/adam/beta1: it must be less than 1\n");
  EXPECT_EQ(read(R"({"groups": [{}, {"weight_decay": -0.5}]})"),
            "/steps/0/train/groups/1/weight_decay: -0.5 is neither -1 nor at least 0\n");
}

// A checker for the part of JSON schema that options use, written from the standard (draft
// 2020-12); what it does not know makes the test fail.
bool conforms(const Json& value, const Json& schema) {
  for (const auto& [keyword, rule] : schema.items()) {
    if (keyword == "type") {
      const bool fits =
          (rule == "object" && value.is_object()) || (rule == "array" && value.is_array()) ||
          (rule == "string" && value.is_string()) || (rule == "boolean" && value.is_boolean()) ||
          (rule == "number" && value.is_number()) ||
          (rule == "integer" && value.is_number_integer());
      if (!fits) return false;
    } else if (keyword == "enum") {
      if (std::find(rule.begin(), rule.end(), value) == rule.end()) return false;
    } else if (keyword == "oneOf") {
      const auto count = std::count_if(rule.begin(), rule.end(),
                                       [&](const Json& one) { return conforms(value, one); });
      if (count != 1) return false;
    } else if (keyword == "properties" || keyword == "additionalProperties") {
      if (!value.is_object()) continue;
      for (const auto& [key, item] : value.items()) {
        const bool known = schema.at("properties").contains(key);
        if (keyword == "properties" && known && !conforms(item, rule.at(key))) return false;
        if (keyword == "additionalProperties" && !known && rule == false) return false;
      }
    } else if (keyword == "required") {
      for (const Json& key : rule) {
        if (value.is_object() && !value.contains(key.get<std::string>())) return false;
      }
    } else if (keyword == "items") {
      if (!value.is_array()) continue;
      for (const Json& item : value) {
        if (!conforms(item, rule)) return false;
      }
    } else if (keyword == "minimum") {
      if (value.is_number() && value.get<double>() < rule.get<double>()) return false;
    } else if (keyword == "maximum") {
      if (value.is_number() && value.get<double>() > rule.get<double>()) return false;
    } else if (keyword == "$ref") {
      EXPECT_EQ(rule, "#/$defs/selector");  // which has a test of its own
    } else {
      EXPECT_TRUE(keyword == "description" || keyword == "default") << keyword;
    }
  }
  return true;
}

TEST(NestedOptions, SchemaAcceptsWhatTheReaderAccepts) {
  const Json schema = options_schema(OptionsOf<OuterOptions>());
  for (const char* text :
       {"{}", R"({"optimizer": "sgd"})", R"({"optimizer": {"adamw": {}}})",
        R"({"optimizer": {"adam": {"lr": 1, "eps": 1e-6}}})", R"({"schedule": "linear"})",
        R"({"schedule": {"multi_step": {"at": [1, 2.5], "gamma": 0.5}}})", R"({"groups": []})",
        R"({"groups": [{}, {"where": "*", "freeze": true}]})", R"({"inner": {}})",
        R"({"inner": {"size": 9, "numbers": [0, 1.5]}})"}) {
    EXPECT_EQ(read(text), "") << text;
    EXPECT_TRUE(conforms(parse_json(text), schema)) << text;
  }
  for (const char* text :
       {"[]", R"({"optimizer": "lion"})", R"({"optimizer": {}})", R"({"optimizer": 1})",
        R"({"optimizer": {"sgd": {}, "adam": {}}})", R"({"optimizer": {"sgd": {"beta1": 0.5}}})",
        R"({"optimizer": {"sgd": {"lr": -1}}})", R"({"optimizer": {"sgd": {"nesterov": 1}}})",
        R"({"schedule": {"step": {"every": 1.5}}})", R"({"schedule": {"multi_step": {"at": 1}}})",
        R"({"schedule": {"multi_step": {"at": [-1]}}})", R"({"groups": {}})",
        R"({"groups": [{"where": "*", "lr": 1}]})", R"({"groups": ["*"]})",
        R"({"inner": {"size": 0}})", R"({"inner": {"size": 10}})", R"({"inner": [3]})",
        R"({"inner": {"numbers": [1, "2"]}})", R"({"outer": {}})"}) {
    EXPECT_NE(read(text), "") << text;
    EXPECT_FALSE(conforms(parse_json(text), schema)) << text;
  }
}

TEST(NestedOptions, SchemaTellsDefaultsThatConform) {
  const OptionsOf<OuterOptions> defaults;
  const Json schema = options_schema(defaults);
  EXPECT_TRUE(conforms(write_options(defaults, defaults), schema));
  for (const auto& [name, property] : schema["properties"].items()) {
    EXPECT_TRUE(conforms(property["default"], property)) << name;
    EXPECT_TRUE(property["description"].is_string());
  }
  EXPECT_EQ(schema["properties"]["optimizer"]["oneOf"][0].dump(),
            R"({"enum":["sgd","adam","adamw"]})");
}

TEST(NestedOptions, TellsTypeAndDefaultInHelp) {
  const OptionsOf<OuterOptions> defaults;
  const std::string help = options_help(defaults);
  EXPECT_THAT(help, HasSubstr("(sgd | adam | adamw)"));
  EXPECT_THAT(help, HasSubstr("inner={size=3,numbers=[0.5]}   ({size, numbers})"));
  EXPECT_THAT(help, HasSubstr("(list of {where, lr_scale, weight_decay, freeze})"));
}

TEST(CheckOptions, FindsWhatAReaderWouldHaveRefused) {
  OptionsOf<OuterOptions> options;
  EXPECT_NO_THROW(check_options(options));
  options.value.inner.size = 10;
  options.value.groups.resize(1);
  options.value.groups[0].lr_scale = -1;
  try {
    check_options(options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "2 problems\n  /groups/0/lr_scale: -1 is less than 0\n"
                 "  /inner/size: 10 is outside [1, 9]");
  }
  EXPECT_THROW(check_options(OptimizerOptions(AdamOptions{.beta1 = 1})), Error);
}

}  // namespace
}  // namespace compress
