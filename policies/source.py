"""Cedar text as statements that know their line, so that an error can say where it is.

Cedar's own errors carry no position. Both of its languages end a statement with `;`, which otherwise
stands only in strings, comments and inside braces, so that a text can be taken apart by scanning it.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

# In this order: what hides other characters comes before them.
_TOKEN = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|\w+|\s+|.', re.DOTALL)

_EFFECTS = ("permit", "forbid")


class SourceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a pack; `path` is `<pack>/<file>`."""

    path: str
    text: str


class Statement(Struct, frozen=True, kw_only=True):
    """One policy or declaration.

    `line` (from 1) is where it says what it is: the line of `permit` or `forbid`, below the
    annotations; or else where it begins.
    """

    text: str
    line: int


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


def _statement(text: str, begin: int, end: int, effect: int | None) -> Statement:
    said = begin if effect is None else effect
    return Statement(text=text[begin:end], line=text.count("\n", 0, said) + 1)


def line_of_word(text: str, word: str) -> int:
    """Return the first line of `text` that holds `word` by itself, or 1."""
    match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    return text.count("\n", 0, match.start()) + 1 if match else 1
