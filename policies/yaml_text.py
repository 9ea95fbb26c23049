"""The part of YAML that test cases are written in, read strictly and with places.

Plain words are text, `true` and `false` apart: YAML 1.1 reads `NO`, the code of Norway, as false.
Nothing is given twice, named with an anchor, or tagged with a type.
"""

import re
from typing import Final, Protocol, TypeVar

import msgspec
import yaml

from policies.errors import CasesInvalid

SIZE_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 16

T = TypeVar("T")

_BOOL: Final = "tag:yaml.org,2002:bool"
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_PATH: Final = re.compile(r" - at `\$(.*)`$")


class _Mark(Protocol):
    """A place in a text, as each of the library's parsers has it; both count from 0."""

    line: int
    column: int


class _Loader(yaml.SafeLoader):
    """The safe loader, with `true` and `false` as the only plain words that are not text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_Loader.add_implicit_resolver(_BOOL, re.compile("true|false"), ["t", "f"])


def read_yaml(text: str, place: str, kind: type[T]) -> T:
    """Return what `text` says; `place` names its file in errors.

    Raises:
        CasesInvalid: naming file, line and column, if it is not such YAML or does not fit `kind`.
    """
    if len(text) > SIZE_MAX:
        raise CasesInvalid(f"{place}: it is longer than {SIZE_MAX} characters")
    try:
        _refuse(text, place)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise CasesInvalid(f"{_at(place, mark)}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:  # a character that no document may hold, without a mark
        raise CasesInvalid(f"{place}: not valid YAML: it holds a control character") from error
    if root is None:
        raise CasesInvalid(f"{place}: it is empty")
    value = _value(root, place)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        path = _PATH.search(message)
        where = _at(place, _marked(root, path.group(1) if path else "", message))
        raise CasesInvalid(f"{where}: {message}") from error


def _refuse(text: str, place: str) -> None:
    """Refuse what could mean more than it says, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = _at(place, event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise CasesInvalid(f"{where}: anchors and aliases are not used here; write it out")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None):
            raise CasesInvalid(f"{where}: tags are not used here")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise CasesInvalid(f"{where}: it is nested deeper than {DEPTH_MAX}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _value(node: yaml.Node, place: str) -> object:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, place) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, object] = {}
        for key, value in node.value:
            name = key.value
            if not isinstance(name, str):
                raise CasesInvalid(f"{_at(place, key.start_mark)}: a key is one word or phrase")
            if name in found:
                raise CasesInvalid(f"{_at(place, key.start_mark)}: {name!r} is given twice")
            found[name] = _value(value, place)
        return found
    return node.value == "true" if node.tag == _BOOL else node.value


def _marked(root: yaml.Node, path: str, message: str) -> _Mark | None:
    """Return where the value at a path of msgspec stands, or the key that the message names."""
    node: yaml.Node = root
    for name, number in _STEP.findall(path):
        if isinstance(node, yaml.SequenceNode) and number.isdigit():
            node = node.value[int(number)]
        elif isinstance(node, yaml.MappingNode):
            # The key is not told of a mapping whose keys are free; it is then the mapping's place.
            node = next((value for key, value in node.value if key.value == name), node)
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if f"`{key.value}`" in message.partition(" - at ")[0]:
                start: _Mark = key.start_mark
                return start
    return node.start_mark


def _at(place: str, mark: _Mark | None) -> str:
    return f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
