// Errors name the place, the finding and the remedy.

#include "compress/error.h"

#include <gtest/gtest.h>

namespace compress {
namespace {

TEST(Error, SaysWhereWhatAndHowToMendIt) {
  const Error error(ErrorCode::kInvalidArgument, "1.5 is outside [0, 1]", "/steps/1/sparsity",
                    "keep it below 1");
  EXPECT_STREQ(error.what(), "/steps/1/sparsity: 1.5 is outside [0, 1] (keep it below 1)");
  EXPECT_STREQ(error.within("recipes/a.json").what(),
               "recipes/a.json: /steps/1/sparsity: 1.5 is outside [0, 1] (keep it below 1)");
}

TEST(Error, OffersTheNearestNameOnlyWhenItIsNear) {
  const std::vector<std::string> names = {"sparsity", "scope", "where"};
  EXPECT_EQ(nearest("sparsty", names), "sparsity");
  EXPECT_EQ(nearest("temperature", names), "");
  EXPECT_EQ(did_you_mean("scop", names), "did you mean `scope`?");
}

TEST(Error, OffersWhatTheWordIsAPartOfBeforeWhatLooksLikeIt) {
  const std::vector<std::string> names = {"resnet50", "resnet20-cifar100", "resnet20-cifar10",
                                          "wide-resnet16", "mobilenet"};
  EXPECT_EQ(nearest("resnet20", names), "resnet20-cifar10");
  EXPECT_EQ(nearest("resnet16", names), "wide-resnet16");
  EXPECT_EQ(nearest("resnet51", names), "resnet50");
  EXPECT_EQ(nearest("resnet-20", names), "resnet20-cifar10");
  EXPECT_EQ(nearest("re", names), "");  // too little to tell
}

}  // namespace
}  // namespace compress
