// The unpickler: every opcode family by hand-written pickles, and that nothing is ever executed.
//
// The pickles were printed by Python's pickle.dumps(value, protocol).

#include "compress/io/pickle.h"

#include "compress/io/torch_file.h"
#include "tests/io/files.h"
#include "tests/support/paths.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <filesystem>

namespace compress::testing {
namespace {

using ::testing::HasSubstr;
using Kind = PickleValue::Kind;

Pickle parse(std::string_view bytes) { return read_pickle(bytes, "test"); }

// A value as Python would print it; containers by their elements.
std::string show(const Pickle& pickle, PickleValue value) {
  switch (value.kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return value.integer != 0 ? "True" : "False";
    case Kind::kInt:
      return std::to_string(value.integer);
    case Kind::kFloat:
      return std::to_string(value.real);
    case Kind::kString:
      return fmt::format("'{}'", pickle.text(value));
    case Kind::kBytes:
      return fmt::format("b'{}'", pickle.text(value));
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict: {
      std::string text;
      for (const PickleValue item : pickle.items(value)) text += show(pickle, item) + ",";
      text.insert(0, 1, value.is(Kind::kList) ? '[' : value.is(Kind::kTuple) ? '(' : '{');
      return text + ')';
    }
    default:
      return pickle.describe(value);
  }
}

std::string show(std::string_view bytes) {
  const Pickle pickle = parse(bytes);
  return show(pickle, pickle.root);
}

#define BYTES(literal) std::string_view(literal, sizeof(literal) - 1)

TEST(Pickle, ReadsEveryProtocol) {
  // {"a": [1, -2, 300, 70000, 1 << 40], "b": (True, None, 1.5), "c": {}}
  const char* expected = "{'a',[1,-2,300,70000,1099511627776,),'b',(True,None,1.500000,),'c',{),)";
  EXPECT_EQ(show(BYTES("(dp0\nVa\np1\n(lp2\nI1\naI-2\naI300\naI70000\naI1099511627776\nasVb\np3\n"
                       "(I01\nNF1.5\ntp4\nsVc\np5\n(dp6\ns.")),
            expected);
  EXPECT_EQ(show(BYTES("\x80\x02}q\x00(X\x01\x00\x00\x00\x61q\x01]q\x02(K\x01J\xfe\xff\xff\xffM,"
                       "\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01"
                       "eX\x01\x00\x00\x00\x62q\x03\x88NG?\xf8\x00\x00\x00\x00\x00\x00\x87q\x04X"
                       "\x01\x00\x00\x00\x63q\x05}q\x06u.")),
            expected);
  EXPECT_EQ(show(BYTES("\x80\x05\x95>\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01\x61\x94]\x94(K\x01J"
                       "\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01"
                       "e\x8c\x01\x62\x94\x88NG?\xf8\x00\x00\x00\x00\x00\x00\x87\x94\x8c\x01\x63"
                       "\x94}\x94u.")),
            expected);
}

TEST(Pickle, KeepsUnknownGlobalsAndObjectsInert) {
  // os.system("echo fooled")
  EXPECT_EQ(show(BYTES("\x80\x02\x63posix\nsystem\nX\x0b\x00\x00\x00\x65\x63ho fooled\x85R.")),
            "an object of `posix.system`");
  EXPECT_EQ(show(BYTES("\x80\x04\x8c\x08\x62uiltins\x8c\x04\x65val\x93.")),
            "the Python name `builtins.eval`");
  EXPECT_EQ(show(BYTES("(cos\nsystem\nX\x02\x00\x00\x00lso.")), "an object of `os.system`");
  EXPECT_EQ(show(BYTES("(X\x02\x00\x00\x00lsios\nsystem\n.")), "an object of `os.system`");
  // The result of calling a placeholder is one more.
  EXPECT_EQ(show(BYTES("cos\nsystem\n)R)R.")), "an object of `a computed function`");
}

TEST(Pickle, ReadsOrderedDicts) {
  EXPECT_EQ(show(BYTES("ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00\x61K\x01u.")), "{'a',1,)");
  EXPECT_EQ(show(BYTES("ccollections\nOrderedDict\n](]X\x01\x00\x00\x00\x61\x61K\x01\x61"
                       "e\x85R.")),
            "{'a',1,)");
}

TEST(Pickle, StopsAtItsEndMarkAndSaysWhere) {
  EXPECT_EQ(parse("K\x05.K\x06.").size_bytes, 3u);
  const Pickle loop = parse("]q\x01h\x01\x61.");  // a list that holds itself
  EXPECT_EQ(loop.items(loop.root).size(), 1u);
}

struct BadPickle {
  const char* name;
  std::string bytes;
  const char* message;
};

class PickleDamage : public ::testing::TestWithParam<BadPickle> {};

TEST_P(PickleDamage, IsRefusedByName) {
  const Error error = error_of([] { parse(GetParam().bytes); });
  EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
}

#define TENSOR(rest) "ctorch._utils\n_rebuild_tensor_v2\n(" rest "tR."
#define STORAGE                                      \
  "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" \
  "0X\3\0\0\0"                                       \
  "cpuK\4tQ"
#define TEXT(literal) std::string(literal, sizeof(literal) - 1)

INSTANTIATE_TEST_SUITE_P(
    Pickle, PickleDamage,
    ::testing::Values(
        BadPickle{"empty", "", "cut off"}, BadPickle{"no_stop", "N", "cut off"},
        BadPickle{"empty_stack", ".", "takes more from its stack"},
        BadPickle{"below_mark", "N(.", "takes more from its stack"},
        BadPickle{"no_mark", "t.", "no mark"},
        BadPickle{"protocol", "\x80\x09.", "protocol 9, expected 0 to 5"},
        BadPickle{"memo", TEXT("h\x05."), "memo 5 is used before it is set"},
        BadPickle{"long_string", TEXT("X\xff\xff\xff\x7f."), "cut off"},
        BadPickle{"huge_string", TEXT("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "cut off"},
        BadPickle{"negative_long", TEXT("\x8b\xff\xff\xff\xff."), "negative number of bytes"},
        BadPickle{"extension", TEXT("\x82\x01."), "0x82 is no pickle instruction"},
        BadPickle{"append_to_int", "K\1K\2a.", "cannot add items to an integer"},
        BadPickle{"odd_dict", "}(Nu.", "a key has no value"},
        BadPickle{"unnamed_global", "NN\x93.", "a global has no name"},
        BadPickle{"bad_integer", "Ixyz\n.", "no integer"},
        BadPickle{"not_a_storage", "K\1Q.", "its kind is missing"},
        BadPickle{"tensor_without_storage", TEXT(TENSOR("NK\0)))")), "its storage is None"},
        BadPickle{"tensor_of_object", TEXT(TENSOR("cos\nsystem\n)RK\0)))")),
                  "its storage is an object of `os.system`"},
        BadPickle{"tensor_sizes", TEXT(TENSOR(STORAGE "K\0N)")), "its sizes is None"},
        BadPickle{"tensor_size", TEXT(TENSOR(STORAGE "K\0N\x85)")), "sizes holds None"},
        BadPickle{"strange_storage",
                  TEXT("(X\7\0\0\0storagectorch\nQInt8Storage\nX\1\0\0\0"
                       "0X\3\0\0\0"
                       "cpuK\4tQ."),
                  "storages of class `torch.QInt8Storage` are not read"},
        BadPickle{"self_call",
                  TEXT("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n"
                       "_rebuild_from_type_v2\nN)NtR."),
                  "it calls itself"}),
    [](const auto& info) { return std::string(info.param.name); });

// One byte of pickle makes a list; memory must stay in proportion to the input all the same.
TEST(Pickle, RefusesToGrowBeyondItsInput) {
  const std::string lists(std::size_t{8} << 20, ']');
  EXPECT_THAT(error_of([&] { parse(lists + "."); }).message(), HasSubstr("take more memory"));
}

// Calling a known function with one long argument again and again must not copy it each time.
TEST(Pickle, IsLinearInCallsWithOneLongArgument) {
  std::string bytes =
      "ccollections\nOrderedDict\nq\1"
      "0]q\2(";
  bytes += std::string(1 << 20, 'N') + "e0";
  for (int i = 0; i < 100'000; ++i) bytes += "h\1h\2\x85R0";
  EXPECT_THAT(error_of([&] { parse(bytes + "N."); }).code(), ErrorCode::kBadFile);
}

TEST(Pickle, RunsNothingThatAFileAsksFor) {
  // The file asks for `touch lathe-was-fooled`.
  const ScratchDir folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const TorchFile file(MappedFile::open(source_dir() / "tests/golden/io/evil.pth"));
  const auto hook = file.pickle().get(file.root(), "hook");
  ASSERT_TRUE(hook.has_value());
  EXPECT_EQ(file.pickle().describe(*hook), "an object of `posix.system`");
  std::filesystem::current_path(before);
  EXPECT_EQ(files_in(folder.path()), 0u);
}

}  // namespace
}  // namespace compress::testing
