// Tables align, numbers are written as people read them.

#include "compress/report/table.h"

#include <gmock/gmock.h>

namespace compress::testing {
namespace {

using Align = Table::Align;

TEST(Table, AlignsNumbersRightAndLeavesNoTrailingBlanks) {
  Table table({{"name", Align::kLeft}, {"n"}, {"note", Align::kLeft}});
  table.add({"a", "1"});
  table.add_rule();
  table.add({"longer", "1,000", "x"});
  EXPECT_EQ(table.text(),
            "name        n  note\n"
            "------  -----  ----\n"
            "a           1\n"
            "------  -----  ----\n"
            "longer  1,000  x\n");
}

TEST(Table, CountsCharactersAndNotBytes) {
  Table table({{"µ", Align::kLeft}, {"b"}});
  table.add({"é", "2"});
  EXPECT_EQ(table.text(), "µ  b\n-  -\né  2\n");
}

TEST(Table, GivesRowsWithoutRules) {
  Table table({{"a"}, {"b"}});
  table.add({"1"});
  table.add_rule();
  EXPECT_THAT(table.rows_with_header(), ::testing::ElementsAre(std::vector<std::string>{"a", "b"},
                                                               std::vector<std::string>{"1", ""}));
  EXPECT_EQ(table.markdown(), "| a | b |\n| ---: | ---: |\n| 1 |  |\n");
}

TEST(Numbers, HaveThousandsAndPrefixes) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(-1234567), "-1,234,567");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(bytes_text(999), "999 B");
  EXPECT_EQ(bytes_text(12345), "12.3 kB");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(40553216), "40.6 M");
  EXPECT_EQ(count_text(999999), "1.00 M");
  EXPECT_EQ(count_of(1, "thread"), "1 thread");
  EXPECT_EQ(count_of(2000, "thread"), "2,000 threads");
}

}  // namespace
}  // namespace compress::testing
