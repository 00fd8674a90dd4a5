// What somebody may have meant who wrote a word that is none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace obraz::client {

// The one of those known that is nearest, when one is near: a third of the word's letters, and one, put in,
// taken out or replaced. Empty: none is.
std::string nearest_word(std::string_view word, const std::vector<std::string>& known);

}  // namespace obraz::client
