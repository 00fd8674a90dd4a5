#include "client/style.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

#include "client/output.h"

namespace obraz::client {
namespace {

TEST(Style, AFileGetsAllOfItAndNoColours) {
  std::FILE* file = std::tmpfile();
  const Style style = style_of(file);
  EXPECT_EQ(style.columns, 0u);
  EXPECT_FALSE(style.colours);
  std::fclose(file);
}

TEST(Style, ATerminalHasItsWidthAndColoursUnlessRefused) {
  int master = -1, slave = -1;
  const winsize size{.ws_row = 24, .ws_col = 57, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, &size), 0);
  std::FILE* terminal = ::fdopen(slave, "w");
  ::setenv("TERM", "xterm", 1);
  ::unsetenv("NO_COLOR");
  EXPECT_EQ(style_of(terminal).columns, 57u);
  EXPECT_TRUE(style_of(terminal).colours);
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(style_of(terminal).colours);
  EXPECT_TRUE(style_of(terminal).escapes);
  ::setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(style_of(terminal).colours);
  ::setenv("TERM", "dumb", 1);
  EXPECT_FALSE(style_of(terminal).colours);
  std::fclose(terminal);
  ::close(master);
}

TEST(Style, TextIsShortenedByCharacters) {
  EXPECT_EQ(shortened("abc", 3), "abc");
  EXPECT_EQ(shortened("abcd", 3), "ab…");
  EXPECT_EQ(shortened("äöüß", 3), "äö…");
  EXPECT_EQ(shortened("äöüß", 4), "äöüß");
  EXPECT_EQ(shortened("abc", 1), "…");
}

TEST(Style, ATableThatIsTooWideGivesUpTheWidestColumnButNeverAnId) {
  const std::vector<Row> rows = {{"NAME", "ID", "DESCRIPTION"},
                                 {"a", "0123456789abcdef", "words and words and words"},
                                 {"bb", "1123456789abcdef", "short"}};
  EXPECT_EQ(table(rows),
            "NAME  ID                DESCRIPTION\n"
            "a     0123456789abcdef  words and words and words\n"
            "bb    1123456789abcdef  short\n");
  EXPECT_EQ(table(rows, {.columns = 40}),
            "NAME  ID                DESCRIPTION\n"
            "a     0123456789abcdef  words and words…\n"
            "bb    1123456789abcdef  short\n");
  // No narrower than the heading: such a terminal has to break the lines itself.
  EXPECT_EQ(table(rows, {.columns = 10}),
            "NAME  ID                DESCRIPTION\n"
            "a     0123456789abcdef  words and …\n"
            "bb    1123456789abcdef  short\n");
}

TEST(Style, HeadingsAndStatesHaveColours) {
  const Style style{.colours = true};
  EXPECT_EQ(table({{"NAME", "STATUS", "X"}, {"READY", "READY", "y"}, {"a", "ERROR", "y"}}, style),
            "\x1b[1mNAME\x1b[0m   \x1b[1mSTATUS\x1b[0m  \x1b[1mX\x1b[0m\n"
            "READY  \x1b[32mREADY\x1b[0m   y\n"
            "a      \x1b[31mERROR\x1b[0m   y\n");
  EXPECT_EQ(fields({{"name", "READY"}, {"status", "READY"}}, style),
            "name:    READY\nstatus:  \x1b[32mREADY\x1b[0m\n");
  EXPECT_EQ(coloured("x", Colour::red, {}), "x");
  EXPECT_EQ(colour_of_state("ok"), Colour::green);
  EXPECT_EQ(colour_of_state("failed: a flush failed"), Colour::red);
  EXPECT_EQ(colour_of_state("vm1"), Colour::none);
}

}  // namespace
}  // namespace obraz::client
