#include "client/completion.h"

#include <gtest/gtest.h>

namespace obraz::client {
namespace {

class CompletionTest : public testing::Test {
 protected:
  CompletionTest() {
    app.require_subcommand(1);
    app.add_option("--control", text, "the socket")->type_name("PATH");
    app.add_option("--folder", text, "the folder to work in (default: one)")->type_name("FOLDER");
    app.add_flag("-q,--quiet", flag, "ids only");
    CLI::App* disk = app.add_subcommand("disk", "disks: writable");
    disk->fallthrough();
    CLI::App* get = disk->add_subcommand("get", "show one disk");
    get->fallthrough();
    get->add_option("DISK", text, "its name")->required();
    CLI::App* create = disk->add_subcommand("create", "make a disk; it is empty");
    create->fallthrough();
    CLI::App* source = create->add_option_group("source");
    source->add_option("--image", text, "an image")->type_name("IMAGE");
    create->add_option("--os", text, "the system")->check(CLI::IsMember({"linux", "windows"}));
    create->add_option("--label", texts, "may repeat")->type_name("KEY=VALUE")->allow_extra_args(false);
    CLI::App* space = app.add_subcommand("space", "count bytes");
    space->fallthrough();
    space->add_option("VOLUME", texts, "several")->required();
    CLI::App* import = app.add_subcommand("import", "read a file");
    import->add_option("SOURCE", text, "a file")->required();
  }

  // What is offered, parted by blanks.
  std::string words(const std::vector<std::string>& line) {
    const Completion completion =
        complete(app, line, [this](const std::string& metavariable, const CompletionContext& context) {
          asked = metavariable;
          where = context;
          return metavariable == "DISK" || metavariable == "VOLUME"
                     ? std::vector<Candidate>{{"vm1", "10 GiB"}, {"vm2", ""}, {"xx", ""}}
                     : std::vector<Candidate>();
        });
    std::string text = completion.files ? ":files " : "";
    for (const Candidate& candidate : completion.candidates)
      text += candidate.word + " ";
    return text;
  }

  CLI::App app{"a program", "program"};
  std::string text, asked;
  std::vector<std::string> texts;
  bool flag = false;
  CompletionContext where;
};

TEST_F(CompletionTest, CommandsAreOfferedLevelByLevel) {
  EXPECT_EQ(words({""}), "disk space import ");
  EXPECT_EQ(words({"d"}), "disk ");
  EXPECT_EQ(words({"disk", ""}), "get create ");
  EXPECT_EQ(words({"--quiet", "disk", "c"}), "create ");
  EXPECT_EQ(words({"nonsense", ""}), "");
}

TEST_F(CompletionTest, ArgumentsAreNamesOfTheirKind) {
  EXPECT_EQ(words({"disk", "get", ""}), "vm1 vm2 xx ");
  EXPECT_EQ(words({"disk", "get", "vm"}), "vm1 vm2 ");
  EXPECT_EQ(words({"disk", "get", "vm1", ""}), "");  // there is one
  EXPECT_EQ(words({"space", "vm1", "vm2", "x"}), "xx ");
  EXPECT_EQ(words({"import", "/tm"}), ":files ");
}

TEST_F(CompletionTest, OptionsAreOfferedAndTheirValuesToo) {
  EXPECT_EQ(words({"disk", "create", "--"}), "--help --os --label --image --control --folder --quiet ");
  EXPECT_EQ(words({"disk", "create", "--os", ""}), "linux windows ");
  EXPECT_EQ(words({"disk", "create", "--os", "w"}), "windows ");
  EXPECT_EQ(words({"disk", "create", "--os=l"}), "--os=linux ");
  EXPECT_EQ(words({"disk", "create", "--os", "=", "l"}), "linux ");  // as bash parts it
  EXPECT_EQ(words({"disk", "create", "--os", "="}), "linux windows ");
  EXPECT_EQ(words({"disk", "create", "--unknown=l"}), "");
  EXPECT_EQ(words({"disk", "create", "--image", "x"}), "");
  EXPECT_EQ(asked, "IMAGE");
}

TEST_F(CompletionTest, AnOptionIsOfferedOnceUnlessItMayRepeat) {
  EXPECT_EQ(words({"disk", "create", "--os", "linux", "--label", "a=b", "-q", "--"}),
            "--help --label --image --control --folder ");
}

TEST_F(CompletionTest, AfterTwoDashesThereAreNoOptions) {
  EXPECT_EQ(words({"disk", "get", "--", "-"}), "");
  EXPECT_EQ(words({"disk", "get", "--", "v"}), "vm1 vm2 ");
}

TEST_F(CompletionTest, NamesAreAskedForWhereTheLineSays) {
  words({"--control", "/a", "disk", "get", "--folder=team", ""});
  EXPECT_EQ(where.control, "/a");
  EXPECT_EQ(where.folder, "team");
}

TEST_F(CompletionTest, LinesHaveWordAndDescription) {
  EXPECT_EQ(completion_lines({{{"vm1", "10 GiB"}, {"vm2", ""}}, true}), ":files\nvm1\t10 GiB\nvm2\n");
  const auto none = [](const std::string&, const CompletionContext&) { return std::vector<Candidate>(); };
  EXPECT_EQ(completion_lines(complete(app, {"disk", "cr"}, none)), "create\tmake a disk\n");
}

TEST(CompletionScript, EachShellHasOne) {
  for (const char* shell : kShells)
    EXPECT_NE(completion_script(shell).find(kCompleteCommand), std::string::npos) << shell;
  EXPECT_EQ(completion_script("tcsh"), "");
}

}  // namespace
}  // namespace obraz::client
