// Sizes as terms in postfix over the shapes of a plugin's inputs: "0.0 197 * 1 +" (edgetok/tensorrt/term.py).
#pragma once

#include <cstdlib>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace edgetok {

inline std::string trimmed(std::string const& text)
{
    auto const first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
    return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

// The parts of a text, without the spaces around them; an empty text has none.
inline std::vector<std::string> parts(std::string const& text, char separator)
{
    std::vector<std::string> found;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);)
        if (auto const word = trimmed(part); !word.empty())
            found.push_back(word);
    return found;
}

// A whole number from 0 to 2^31 - 1.
inline std::optional<int> number(std::string const& word)
{
    if (word.empty() || word.size() > 10 || word.find_first_not_of("0123456789") != std::string::npos)
        return std::nullopt;
    auto const value = std::strtoll(word.c_str(), nullptr, 10);
    return value > 2147483647 ? std::nullopt : std::optional<int>(static_cast<int>(value));
}

// The value of a term, or nothing where the text is no term. `Algebra` has a type Value, and
//   std::optional<Value> size(int tensor, int axis), constant(int), operate(char, Value, Value).
template <typename Algebra>
std::optional<typename Algebra::Value> evaluate(std::string const& text, Algebra& algebra)
{
    std::vector<typename Algebra::Value> stack;
    for (auto const& word : parts(text, ' ')) {
        std::optional<typename Algebra::Value> value;
        auto const dot = word.find('.');
        if (word.size() == 1 && (word[0] == '+' || word[0] == '*')) {
            if (stack.size() < 2)
                return std::nullopt;
            auto const right = stack.back();
            stack.pop_back();
            auto const left = stack.back();
            stack.pop_back();
            value = algebra.operate(word[0], left, right);
        } else if (dot != std::string::npos) {
            auto const tensor = number(word.substr(0, dot)), axis = number(word.substr(dot + 1));
            if (tensor && axis)
                value = algebra.size(*tensor, *axis);
        } else if (auto const whole = number(word)) {
            value = algebra.constant(*whole);
        }
        if (!value)
            return std::nullopt;
        stack.push_back(*value);
    }
    if (stack.size() != 1)
        return std::nullopt;
    return stack.back();
}

} // namespace edgetok
