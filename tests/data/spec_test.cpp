// Data entries: strict, all problems at once, each with its JSON pointer and a hint.

#include "compress/data/spec.h"

#include "compress/error.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

std::vector<std::string> problems_of(const std::string& section) {
  Problems problems;
  read_data_section(parse_json(section), "/data", problems);
  std::vector<std::string> texts;
  for (const Error& error : problems.list()) texts.push_back(error.what());
  return texts;
}

TEST(DataSpec, ReadsEveryKind) {
  Problems problems;
  const DataSection section = read_data_section(parse_json(R"({
    "train": {"cifar10": {"split": "train", "normalize": {"mean": [0.5], "std": [0.25]}}},
    "photos": {"images": {"path": "p", "size": 32, "color": "grey", "normalize": "none"}},
    "activations": {"tensors": {"path": "a.npy", "labels": "b.npy"}},
    "words": {"text": {"path": "a.txt", "tokens": "bytes", "length": 64, "end": 0.9}},
    "calibration": {"take": {"from": "train", "count": 1024}},
    "rest": {"drop": {"from": "train", "count": 1024, "seed": 0}}})"),
                                                "/data", problems);
  problems.throw_if_any();
  EXPECT_EQ(section.size(), 6u);
  const auto& train = std::get<KnownData>(section.at("train").options);
  EXPECT_EQ(train.normalize.values, (Normalization{{0.5}, {0.25}}));
  EXPECT_EQ(std::get<TextData>(section.at("words").options).tokens, TokenKind::kBytes);
  EXPECT_EQ(std::get<PartData>(section.at("calibration").options).count, 1024);
}

TEST(DataSpec, ReportsAllProblemsWithTheirPlaces) {
  EXPECT_THAT(
      problems_of(R"({
        "a": {"cifar": {"split": "test"}},
        "b": {"cifar10": {"split": "valid", "normalise": "none"}},
        "c": {"images": {"size": 0}},
        "d": {"text": {"path": "x", "begin": 0.9, "end": 0.1}},
        "e": {"mnist": {"split": "test", "normalize": {"mean": [0.5, 0.5], "sdt": [1]}}},
        "f": {"take": {"from": "g", "count": 0}},
        "h": 3})"),
      ElementsAre(HasSubstr("/data/a/cifar: no kind of data is called `cifar` (did you mean "),
                  HasSubstr("/data/b/cifar10/split: "),
                  HasSubstr("/data/b/cifar10/normalise: unknown option `normalise` (did you mean "
                            "`normalize`?)"),
                  HasSubstr("/data/c/images: `path` is missing"),
                  HasSubstr("/data/c/images/size: "), HasSubstr("/data/d/text/begin: "),
                  HasSubstr("/data/e/mnist/normalize/sdt: unknown option"),
                  HasSubstr("/data/e/mnist/normalize/mean: "),
                  HasSubstr("/data/e/mnist/normalize: `std` is missing"),
                  HasSubstr("/data/f/take/count: "), HasSubstr("/data/h: 3 is not a data entry")));
}

TEST(DataSpec, FollowsReferences) {
  EXPECT_THAT(problems_of(R"({"train": {"mnist": {"split": "train"}},
                              "a": {"take": {"from": "trian", "count": 1}}})"),
              ElementsAre(HasSubstr("/data/a/take/from: there is no data entry `trian` (did you "
                                    "mean `train`?)")));
  EXPECT_THAT(problems_of(R"({"a": {"take": {"from": "b", "count": 1}},
                              "b": {"drop": {"from": "a", "count": 1}}})"),
              ElementsAre(HasSubstr("/data/a/take/from: `a` is taken from itself in a circle"),
                          HasSubstr("/data/b/drop/from: `b` is taken from itself in a circle")));
}

TEST(DataSpec, ReadsTheShortForm) {
  const DataSpec spec = parse_data_spec("cifar10:test,normalize=imagenet");
  EXPECT_EQ(spec.kind, "cifar10");
  EXPECT_EQ(std::get<KnownData>(spec.options).split, Split::kTest);
  EXPECT_EQ(std::get<KnownData>(spec.options).normalize.values, normalization("imagenet"));
  const DataSpec images =
      parse_data_spec(R"(images:a/b:c,size=32,normalize={"mean": [0.5, 0.4, 0.3], "std": [1]})");
  EXPECT_EQ(std::get<ImageFolderData>(images.options).path, "a/b:c");
  EXPECT_EQ(std::get<ImageFolderData>(images.options).size, 32);
  EXPECT_EQ(std::get<ImageFolderData>(images.options).normalize.values.mean[1], 0.4);
  EXPECT_EQ(parse_data_spec(R"( {"mnist": {"split": "test"}})").kind, "mnist");

  const auto message = [](const char* text) { return message_of([&] { parse_data_spec(text); }); };
  EXPECT_THAT(message("cifar10"),
              HasSubstr("`split` is missing (write cifar10:test or cifar10:train)"));
  EXPECT_THAT(message("fashion-mnist,normalize=none"),
              HasSubstr("(write fashion-mnist:test or fashion-mnist:train)"));
  EXPECT_THAT(message("images"), HasSubstr("`path` is missing (write images:path)"));
  EXPECT_THAT(message(R"({"cifar10": {}})"),
              HasSubstr("/cifar10: `split` is missing (it is `train` or `test`)"));
  EXPECT_THAT(message("cifr10:test"), HasSubstr("did you mean `cifar10`?"));
  EXPECT_THAT(message("cifar10:test,imagenet"), HasSubstr("`imagenet` is not key=value"));
  EXPECT_THAT(message("take:train,count=1"), HasSubstr("refers to an entry of a recipe"));
  EXPECT_THAT(message(""), HasSubstr("no kind of data"));
}

TEST(DataSpec, PrintsWhatItReadsBack) {
  for (const char* text :
       {"cifar10:train", "images:p,size=64,color=grey,normalize={\"mean\":[0.1],\"std\":[2]}",
        "tensors:a.npy,inputs=[\"a\",\"b\"]", "text:t.txt,tokens=bytes,end=0.5"}) {
    const Json printed = data_spec_json(parse_data_spec(text));
    EXPECT_EQ(data_spec_json(parse_data_spec(printed.dump())), printed) << text;
  }
}

TEST(DataSpec, HasASchemaForEveryKind) {
  const Json schema = data_spec_schema();
  ASSERT_EQ(schema["oneOf"].size(), data_kinds().size());
  EXPECT_EQ(schema["oneOf"][0]["properties"]["cifar10"]["required"], Json::array({"split"}));
}

TEST(OpenData, TakesAndDropsPartsOfAnotherEntry) {
  const testing::ScratchDir scratch;
  std::ofstream(scratch / "a.txt") << std::string(101, 'x');
  Problems problems;
  const DataSection section = read_data_section(
      {{"all", {{"text", {{"path", (scratch / "a.txt").string()}, {"length", 1}}}}},
       {"some", {{"take", {{"from", "all"}, {"count", 30}}}}},
       {"rest", {{"drop", {{"from", "all"}, {"count", 30}}}}}},
      "/data", problems);
  problems.throw_if_any();
  EXPECT_EQ(open_data(section.at("all"), section)->size(), 100);
  EXPECT_EQ(open_data(section.at("some"), section)->size(), 30);
  EXPECT_EQ(open_data(section.at("rest"), section)->size(), 70);
}

TEST(OpenData, SaysHowToFetchWhatIsMissing) {
  const testing::ScratchDir scratch;
  ASSERT_EQ(setenv("LATHE_DATA", scratch.path().c_str(), 1), 0);
  const std::string message = message_of([] { open_data(parse_data_spec("mnist:test")); });
  unsetenv("LATHE_DATA");
  EXPECT_THAT(message, HasSubstr(scratch.path().string()));
  EXPECT_THAT(message, HasSubstr("run tools/fetch_data mnist"));
}

}  // namespace
}  // namespace compress
