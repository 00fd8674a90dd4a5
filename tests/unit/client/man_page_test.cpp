#include "man_page.h"

#include <gtest/gtest.h>

namespace obraz {
namespace {

TEST(ManPage, SaysWhatHelpSays) {
  CLI::App app("a program", "program");
  std::string text;
  std::vector<std::string> texts;
  bool flag = false;
  app.add_option("--store", text, "the directory, made when absent")->type_name("DIR")->default_str("./here");
  CLI::App* disk = app.add_subcommand("disk", "disks");
  CLI::App* create = disk->add_subcommand("create", "make a disk");
  create->add_option("NAME", text, "what it is called")->required();
  create->add_option("MORE", texts, "and others");
  create->add_option("--os", text, "the system")->check(CLI::IsMember({"linux", "windows"}))->required();
  create->add_flag("-f,--force,!--no-force", flag);
  const ManPage page{.section = 8,
                     .title = "makes disks",
                     .description = "One.\n\nTwo:\n\n  program \\ 'x'\n\nThree.",
                     .sections = {{"EXIT STATUS", ".0 is good"}}};
  const std::string manual = man_page(app, page);
  EXPECT_EQ(manual.substr(0, manual.find(".SH NAME")),
            std::string(".TH PROGRAM 8 \"\" \"Obraz ") + OBRAZ_VERSION + "\" \"Obraz\"\n");
  for (const char* part :
       {".SH NAME\nprogram \\- makes disks\n",
        ".SH SYNOPSIS\n\\fBprogram\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR ...\n",
        ".SH DESCRIPTION\nOne.\n.PP\nTwo:\n.PP\n.RS\n.EX\nprogram \\e 'x'\n.EE\n.RE\n.PP\nThree.\n",
        ".TP\n\\fB\\-\\-store\\fR \\fIDIR\\fR\nThe directory, made when absent (default: ./here).\n",
        ".SS \\fBprogram disk create\\fR \\fINAME\\fR \\fIMORE\\fR ... \\fB\\-\\-os\\fR "
        "\\fIlinux|windows\\fR "
        "[\\fIOPTIONS\\fR]\nMake a disk.\n",
        ".TP\n\\fB\\-f\\fR, \\fB\\-\\-force\\fR, \\fB\\-\\-no\\-force\\fR\n.SH",
        ".SH EXIT STATUS\n\\&.0 is good\n"})
    EXPECT_NE(manual.find(part), std::string::npos) << part << "\n--- is not in\n" << manual;
}

}  // namespace
}  // namespace obraz
