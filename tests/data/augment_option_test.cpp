// `augment` in data entries: strict, canonical, in the short form, and turned off by `take`.

#include "compress/data/spec.h"
#include "compress/error.h"
#include "tests/support/errors.h"
#include "tests/support/paths.h"

#include <ATen/ATen.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>

namespace compress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

const std::vector<Augmentation>& augment_of(const DataSpec& spec) {
  return std::get<KnownData>(spec.options).augment;
}

TEST(AugmentOption, ReadsNamesAndObjects) {
  const DataSpec spec = parse_data_spec(
      R"({"cifar10": {"split": "train", "augment": ["crop", {"flip": {"probability": 0.25}},
          {"cutout": {"size": 8}}, {"crop": {}}]}})");
  ASSERT_EQ(augment_of(spec).size(), 4u);
  EXPECT_EQ(std::get<RandomCrop>(augment_of(spec)[0].transform).pad, 4);
  EXPECT_EQ(std::get<RandomFlip>(augment_of(spec)[1].transform).probability, 0.25);
  EXPECT_EQ(std::get<Cutout>(augment_of(spec)[2].transform).size, 8);
  EXPECT_EQ(std::get<RandomCrop>(augment_of(spec)[3].transform).pad, 4);
  EXPECT_TRUE(augment_of(parse_data_spec("cifar10:train")).empty());
}

TEST(AugmentOption, ReportsAllProblemsWithTheirPlaces) {
  Problems problems;
  read_data_section(parse_json(R"({
      "a": {"cifar10": {"split": "train", "augment": ["corp", 3, {"cutuot": {}},
            {"crop": {"pda": 2}}, {"crop": {"pad": 0}}, {"flip": {"probability": 2}},
            {"cutout": {"size": "8"}}, {"crop": 4}, {"crop": {}, "flip": {}}]}},
      "b": {"images": {"path": "p", "augment": "flip"}},
      "c": {"tensors": {"path": "p.npy", "augment": ["flip"]}},
      "d": {"take": {"from": "a", "count": 1, "augment": ["flip"]}}})"),
                    "/data", problems);
  std::vector<std::string> texts;
  for (const Error& error : problems.list()) texts.push_back(error.what());
  const std::string place = "/data/a/cifar10/augment/";
  EXPECT_THAT(
      texts,
      ElementsAre(
          HasSubstr(place + "0: no augmentation is called `corp` (did you mean `crop`?)"),
          HasSubstr(place + "1: 3 is not an augmentation (it is a name, "),
          HasSubstr(place +
                    "2/cutuot: no augmentation is called `cutuot` (did you mean `cutout`?)"),
          HasSubstr(place + "3/crop/pda: unknown option `pda` (did you mean `pad`?)"),
          HasSubstr(place + "4/crop/pad: 0 is outside [1, 4096]"),
          HasSubstr(place + "5/flip/probability: 2 is outside [0, 1]"),
          HasSubstr(place + "6/cutout/size: \"8\" is not a whole number"),
          HasSubstr(place + "7/crop: 4 is not an object of options"), HasSubstr(place + "8: {"),
          HasSubstr("/data/b/images/augment: \"flip\" is not a list"),
          HasSubstr("/data/c/tensors/augment: unknown option `augment`"),
          HasSubstr("/data/d/take/augment: [\"flip\"] is neither true nor false")));
}

TEST(AugmentOption, PrintsWhatItReadsBack) {
  const DataSpec spec = parse_data_spec("mnist:train,augment=[crop,{cutout={size=8}}]");
  const Json printed = data_spec_json(spec);
  EXPECT_EQ(printed["mnist"]["augment"].dump(), R"([{"crop":{"pad":4}},{"cutout":{"size":8}}])");
  EXPECT_EQ(data_spec_json(parse_data_spec(printed.dump())), printed);
}

TEST(AugmentOption, HasASchema) {
  const Json known = data_spec_schema()["oneOf"][0]["properties"]["cifar10"]["properties"];
  const Json& choices = known["augment"]["items"]["anyOf"];
  EXPECT_EQ(choices[0]["enum"], Json::array({"crop", "flip", "cutout"}));
  ASSERT_EQ(choices.size(), 4u);
  EXPECT_EQ(choices[2]["properties"]["flip"]["properties"]["probability"]["maximum"], 1);
  EXPECT_EQ(known["augment"]["default"], Json::array());
}

TEST(ShortForm, TakesWordsWithinBrackets) {
  const auto printed = [](const std::string& value) {
    return data_spec_json(parse_data_spec("cifar10:train,augment=" + value))["cifar10"]["augment"];
  };
  const Json expected = {{{"crop", {{"pad", 2}}}}, {{"flip", {{"probability", 0.5}}}}};
  for (const char* same : {R"([{"crop":{"pad":2}},"flip"])", "[{crop={pad=2}},flip]",
                           "[ { crop : { pad : 2 } } , flip ]", R"([{"crop": {pad=2}},"flip"])"}) {
    EXPECT_EQ(printed(same), expected) << same;
  }
  EXPECT_EQ(printed("[]"), Json::array());
  EXPECT_EQ(printed("[ ]"), Json::array());

  const DataSpec tensors = parse_data_spec("tensors:a.npy,inputs=[x, y:0,\"z w\"],labels=a[1].npy");
  EXPECT_THAT(std::get<TensorData>(tensors.options).inputs, ElementsAre("x", "y:0", "z w"));
  EXPECT_EQ(std::get<TensorData>(tensors.options).labels, "a[1].npy");
}

TEST(ShortForm, RefusesBracketsThatDoNotFit) {
  const auto message = [](const std::string& value) {
    return message_of([&] { parse_data_spec("cifar10:train,augment=" + value); });
  };
  EXPECT_THAT(message("[crop,flip"), HasSubstr("data: the end in the place of `,` or `]`"));
  EXPECT_THAT(message("[crop}"), HasSubstr("`}` in the place of `,` or `]`"));
  EXPECT_THAT(message("[crop,]"), HasSubstr("`]` in the place of a value"));
  EXPECT_THAT(message("[crop]x"), HasSubstr("`x` in the place of the end"));
  EXPECT_THAT(message("{crop}"), HasSubstr("`}` in the place of `=`"));
  EXPECT_THAT(message("[{crop={pad=1,pad=2}}]"), HasSubstr("`pad` comes twice"));
  EXPECT_THAT(message("[\"crop"), HasSubstr("the end in the place of a closing quote"));
  EXPECT_THAT(message("[\"crop\\"), HasSubstr("the end in the place of a closing quote"));
  EXPECT_THAT(message(std::string(10000, '[')), HasSubstr("less nesting"));
  EXPECT_THAT(message("crop"), HasSubstr("\"crop\" is not a list"));
}

// An MNIST of three training images, black but for one white pixel in the top left corner.
class OpenAugmented : public ::testing::Test {
 protected:
  OpenAugmented() {
    using namespace std::string_literals;
    std::filesystem::create_directories(scratch_ / "mnist");
    std::ofstream(scratch_ / "mnist/SHA256SUMS") << "";
    std::string images = "\0\0\x08\x03\0\0\0\x03\0\0\0\x1c\0\0\0\x1c"s;
    for (int i = 0; i < 3; ++i) images += '\xff' + std::string(28 * 28 - 1, '\0');
    std::ofstream(scratch_ / "mnist/train-images-idx3-ubyte", std::ios::binary) << images;
    std::ofstream(scratch_ / "mnist/train-labels-idx1-ubyte", std::ios::binary)
        << "\0\0\x08\x01\0\0\0\x03\1\2\3"s;
    setenv("LATHE_DATA", scratch_.path().c_str(), 1);
  }
  ~OpenAugmented() override { unsetenv("LATHE_DATA"); }

  testing::ScratchDir scratch_;
};

at::Tensor first_image(const DatasetPtr& data) { return data->get({0}).inputs[0][0][0]; }

TEST_F(OpenAugmented, ChangesTheImagesBeforeNormalisation) {
  const std::string entry = "mnist:train,normalize=none,augment=";
  const at::Tensor plain = first_image(open_data(parse_data_spec(entry + "[]")));
  EXPECT_EQ(plain[0][0].item<float>(), 1.0f);
  const at::Tensor flipped =
      first_image(open_data(parse_data_spec(entry + "[{flip={probability=1}}]")));
  EXPECT_TRUE(flipped.equal(plain.flip(1)));
  // A cutout has the mean of the data set, whatever the normalisation; 0.1307 * 255 rounds to 33.
  const at::Tensor cut = first_image(open_data(parse_data_spec(entry + "[{cutout={size=64}}]")));
  EXPECT_TRUE(cut.equal(at::full({28, 28}, 33.0f / 255.0f)));
  const at::Tensor zeros =
      first_image(open_data(parse_data_spec("mnist:train,augment=[{cutout={size=64}}]")));
  EXPECT_LT(zeros.abs().max().item<float>(), 0.5 / 255 / 0.3081);
}

TEST_F(OpenAugmented, LeavesTheTransformsOfTheCallerForLast) {
  OpenDataOptions options;
  options.transforms.push_back([](Image& image, SampleRandom&) { image.bytes[0] = 51; });
  const DataSpec spec = parse_data_spec("mnist:train,normalize=none,augment=[{cutout={size=64}}]");
  EXPECT_EQ(first_image(open_data(spec, {}, options))[0][0].item<float>(), 51.0f / 255.0f);
  options.augment = false;
  EXPECT_EQ(first_image(open_data(spec, {}, options))[0][1].item<float>(), 0.0f);
}

TEST_F(OpenAugmented, PartsCanDoWithoutIt) {
  Problems problems;
  const DataSection section = read_data_section(parse_json(R"({
      "all": {"mnist": {"split": "train", "normalize": "none", "augment": [{"cutout": {"size": 64}}]}},
      "train": {"drop": {"from": "all", "count": 1}},
      "validation": {"take": {"from": "all", "count": 1, "augment": false}},
      "nested": {"take": {"from": "validation", "count": 1}},
      "outer": {"take": {"from": "train", "count": 1, "augment": false}}})"),
                                                "/data", problems);
  problems.throw_if_any();
  const auto corner = [&](const std::string& name) {
    return first_image(open_data(section.at(name), section))[0][0].item<float>();
  };
  EXPECT_EQ(corner("all"), 33.0f / 255.0f);
  EXPECT_EQ(corner("train"), 33.0f / 255.0f);
  for (const char* plain : {"validation", "nested", "outer"}) EXPECT_EQ(corner(plain), 1.0f);
}

TEST(OpenAugmentedFolder, CropsAfterTheCropFromTheMiddle) {
  const std::string golden = (testing::source_dir() / "tests/golden/data").string();
  const std::string entry = "images:" + golden + ",size=8,resize=8,normalize=symmetric";
  const at::Tensor plain = open_data(parse_data_spec(entry))->get({0, 1}).inputs[0];
  const at::Tensor flipped = open_data(parse_data_spec(entry + ",augment=[{flip={probability=1}}]"))
                                 ->get({0, 1})
                                 .inputs[0];
  EXPECT_TRUE(flipped.equal(plain.flip(3)));
  // The square has the mean of the normalisation: 0.5 * 255 = 127.5 rounds to 128.
  const at::Tensor cut =
      open_data(parse_data_spec(entry + ",augment=[{cutout={size=16}}]"))->get({0}).inputs[0];
  EXPECT_TRUE(cut.equal(at::full({1, 3, 8, 8}, (128.0f / 255.0f - 0.5f) / 0.5f)));
}

}  // namespace
}  // namespace compress
