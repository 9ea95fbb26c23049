"""Cedar text as statements that know their place, so that an error can say where it is.

Cedar's own errors carry no position. Both of its languages end a statement with `;`, which otherwise
stands only in strings, comments and inside braces, so that a text can be taken apart by scanning it.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

# In this order: what hides other characters comes before them.
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|\w+|\s+|&&|\|\||[=!<>]=|::|.', re.DOTALL)
# What a message of Cedar or of ours names: `word`, "word", 'word' or @word.
_NAMED: Final = re.compile(r"`([^`]+)`|\"([^\"]+)\"|'([^']+)'|(@\w+)")

_EFFECTS: Final = ("permit", "forbid")
_UNEXPECTED: Final = re.compile(r"(unexpected|invalid) token")
_UNFINISHED: Final = "unexpected end of input"


class SourceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a pack; `path` is `<pack>/<file>`."""

    path: str
    text: str


class Statement(Struct, frozen=True, kw_only=True):
    """One policy or declaration.

    `line` and `column` (from 1) are where it says what it is: at `permit` or `forbid`, below the
    annotations; or else where it begins. `start_line` and `start_column` are where it begins.
    """

    text: str
    line: int
    column: int
    start_line: int
    start_column: int

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of what stands `offset` characters into the statement."""
        line, column = position(self.text, offset)
        return self.start_line + line - 1, column + (self.start_column - 1 if line == 1 else 0)

    def place_named(self, message: str) -> tuple[int, int]:
        """Return where the first thing stands that `message` names, or else where the statement is."""
        for names in _NAMED.findall(message):
            name = next(filter(None, names))
            word = rf"(?<!\w){re.escape(name)}(?!\w)"
            # What is a string in the message is one here, rather than a word of a title.
            string = rf'(?<="){re.escape(name)}(?=")' if names[1] else word
            match = re.search(string, self.text) or re.search(word, self.text)
            if match:
                return self.place(match.start())
        return self.line, self.column

    def place_unread(self, read: Callable[[str], object]) -> tuple[int, int] | None:
        """Return where the first token stands that `read` cannot go on from, if it names none.

        `read` raises ValueError on text that it cannot parse. Whatever precedes the culprit is the
        beginning of something, of which it says no more than that it is not finished.
        """
        for token in _TOKEN.finditer(self.text):
            word = token.group()
            if word.isspace() or word.startswith("//"):
                continue
            try:
                read(self.text[: token.end()])
            except ValueError as error:
                unread = _UNFINISHED not in str(error) and token.end() < len(self.text)
                if unread or _UNEXPECTED.search(str(error)):
                    return self.place(token.start())
        return None


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of Cedar `text`; the last may lack its `;`."""
    begin: int | None = None
    effect: int | None = None
    depth = 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word.isspace() or word.startswith("//"):
            continue
        if begin is None:
            begin = token.start()
        if word == "{":
            depth += 1
        elif word == "}":
            depth -= 1
        elif word in _EFFECTS and effect is None:
            effect = token.start()
        elif word == ";" and depth <= 0:
            yield _statement(text, begin, token.end(), effect)
            begin, effect, depth = None, None, 0
    if begin is not None:
        yield _statement(text, begin, len(text), effect)


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of what stands at `offset` in `text`."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _statement(text: str, begin: int, end: int, effect: int | None) -> Statement:
    line, column = position(text, begin if effect is None else effect)
    start_line, start_column = position(text, begin)
    return Statement(
        text=text[begin:end],
        line=line,
        column=column,
        start_line=start_line,
        start_column=start_column,
    )


def place_of_word(text: str, word: str) -> tuple[int, int]:
    """Return line and column of the first place where `word` stands by itself, or (1, 1)."""
    match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    return position(text, match.start()) if match else (1, 1)
