// The JSON schema says what the reader accepts.

#include "compress/schema.h"

#include "tests/recipe/test_passes.h"

#include <gmock/gmock.h>

namespace compress {
namespace {

using ::testing::HasSubstr;

TEST(Schema, DescribesEveryPassOfTheRegistry) {
  const PassRegistry registry = testing::test_passes();
  const Json schema = recipe_schema(registry);
  EXPECT_EQ(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema["properties"]["steps"]["items"]["anyOf"].size(), registry.passes().size());
  const Json& scale = schema["$defs"]["test.scale"];
  EXPECT_EQ(scale["properties"]["pass"]["const"], "test.scale");
  EXPECT_EQ(scale["properties"]["times"].dump(),
            R"({"description":"How often.","default":1,"anyOf":[{"type":"integer","minimum":0,)"
            R"("maximum":8},{"$ref":"#/$defs/variable"}]})");
  EXPECT_EQ(scale["additionalProperties"], false);
}

// Every reference must lead somewhere, or editors ignore the whole schema.
void expect_references_resolve(const Json& node, const Json& schema) {
  if (node.is_object() && node.contains("$ref")) {
    const std::string reference = node["$ref"].get<std::string>();
    const std::string prefix = "#/$defs/";
    ASSERT_TRUE(reference.starts_with(prefix)) << reference;
    EXPECT_TRUE(schema["$defs"].contains(reference.substr(prefix.size()))) << reference;
  }
  if (node.is_structured()) {
    for (const Json& part : node) expect_references_resolve(part, schema);
  }
}

TEST(Schema, LetsVariablesStandInSectionsOfOthers) {
  const Json section = {{"properties", {{"size", {{"type", "integer"}, {"default", 3}}}}}};
  const Json schema = recipe_schema(testing::test_passes(), {{"evaluate", section}});
  EXPECT_EQ(schema["properties"]["evaluate"]["type"], "object");
  EXPECT_EQ(schema["properties"]["evaluate"]["properties"]["size"].dump(),
            R"({"default":3,"anyOf":[{"type":"integer"},{"$ref":"#/$defs/variable"}]})");
}

TEST(Schema, ResolvesItsReferences) {
  const Json schema = recipe_schema(testing::test_passes());
  expect_references_resolve(schema, schema);
}

TEST(PassPage, ShowsCardOptionsAndUse) {
  const PassRegistry registry = testing::test_passes();
  const std::string page = pass_page(registry.at("test.scale"));
  EXPECT_THAT(page, HasSubstr("# `test.scale`\n\nScales weights.\n"));
  EXPECT_THAT(page, HasSubstr("| weights | shapes, dtypes | the whole model |"));
  EXPECT_THAT(page, HasSubstr("| `times` | whole number, 0 to 8 | `1` | How often. |"));
  EXPECT_THAT(page, HasSubstr("lathe apply 'test.scale{factor=2,times=1,"));
  EXPECT_THAT(pass_page(registry.at("test.liar")), HasSubstr("## Options\n\nNone.\n"));
}

TEST(PassHelp, FitsTheTerminal) {
  EXPECT_THAT(pass_help(testing::test_passes().at("test.calibrated")),
              HasSubstr("test.calibrated: Needs data\n  needs weights, calibration inputs; keeps "
                        "nothing; sees the whole model\n\n  (no options)\n"));
}

}  // namespace
}  // namespace compress
