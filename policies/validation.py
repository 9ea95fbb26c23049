"""What can be wrong with a set of policies, found before it decides anything, each with its place."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import cedarpy
from msgspec import Struct

from policies.closed import unknown_literals
from policies.facts import JURISDICTION
from policies.obligations import canonical
from policies.pack import Group
from policies.source import SourceFile, Statement, place_of_word, statements

REQUIRED_ANNOTATIONS: Final = ("id", "title", "cite")

_KNOWN_ANNOTATIONS: Final = (*REQUIRED_ANNOTATIONS, "obligation", "redundant")
_IDENTIFIER: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_GROUP: Final = re.compile(r"[A-Z][A-Z0-9-]{2,62}")
_CEDAR_SUBJECT: Final = re.compile(r"^for policy `policy\d+`[,:] ")


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong; `line` and `column` count from 1, and are 0 where none can be named."""

    path: str
    line: int
    message: str
    column: int = 0

    def __str__(self) -> str:
        numbers = (str(number) for number in (self.line, self.column) if number)
        return f"{':'.join((self.path, *numbers))}: {self.message}"


class Named(Protocol):
    """What has an id and a place."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def path(self) -> str:
        """Its file."""

    @property
    def line(self) -> int:
        """Its line in the file, from 1."""


class PolicyText(Struct, frozen=True, kw_only=True):
    """What a policy says of itself, and where it stands.

    `redundant` is why it stands although no outcome depends on it, where its author says so.
    """

    id: str
    title: str
    citation: str
    effect: str
    obligations: tuple[str, ...]
    path: str
    line: int
    column: int = 0
    redundant: str = ""


def examine(
    schema: Sequence[SourceFile],
    policies: Sequence[SourceFile],
    groups: Mapping[str, Group],
) -> tuple[tuple[PolicyText, ...], tuple[Finding, ...]]:
    """Return what the policies say of themselves, in the order of the text, and all that is wrong.

    Where nothing is wrong, the nth text is Cedar's `policy<n>`.
    """
    findings = list(_of_groups(groups))
    parsed, wrong = parse_schema(schema)
    findings += wrong
    texts: list[PolicyText] = []
    for file in policies:
        for statement in statements(file.text):
            policy, wrong = read_statement(file.path, statement, parsed, groups)
            if policy is not None:
                text, messages = _text_of(policy, file.path, statement)
                if text is not None:
                    messages += taken(text.id, texts)
                    texts.append(text)
                wrong = [*found_in(file.path, statement, messages), *wrong]
            findings += wrong
    return tuple(texts), tuple(findings)


def _of_groups(groups: Mapping[str, Group]) -> Iterator[Finding]:
    for name, group in groups.items():
        # Unlike any ISO 3166 code, so that a group is never taken for a country or a state.
        if not _GROUP.fullmatch(name) or JURISDICTION.fullmatch(name):
            yield _in_data(f"the group {name!r} must be 3 or more of A-Z, 0-9 and '-', and no ISO code")
        for member in group.members:
            if member not in groups and not JURISDICTION.fullmatch(member):
                yield _in_data(
                    f"{member!r} in the group {name} is neither an ISO 3166 code nor a group"
                )
        cycle = _cycle(groups, name)
        if cycle:
            yield _in_data(f"the group {name!r} contains itself: {' > '.join(cycle)}")


def _in_data(message: str) -> Finding:
    return Finding(path="data.toml", line=0, message=message)


def _cycle(groups: Mapping[str, Group], name: str) -> tuple[str, ...]:
    """Return the groups by which a group contains itself, or nothing."""
    waiting: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    while waiting:
        way = waiting.pop()
        for member in groups[way[-1]].members:
            if member == name:
                return (*way, member)
            if member in groups and member not in seen:
                seen.add(member)
                waiting.append((*way, member))
    return ()


def parse_schema(files: Sequence[SourceFile]) -> tuple[cedarpy.Schema | None, list[Finding]]:
    """Return the schema, if it parses, and what is wrong with it."""
    try:
        return cedarpy.Schema.from_str("\n".join(file.text for file in files)), []
    except ValueError as error:
        message = str(error)
    # A declaration that does not parse even by itself is the culprit; one that does may still name
    # something that does not exist, which Cedar reports by name.
    for file in files:
        for statement in statements(file.text):
            try:
                cedarpy.Schema.from_str(statement.text)
            except ValueError as error:
                if str(error).startswith("error parsing schema"):
                    line, column = _unread_declaration(statement)
                    found = Finding(path=file.path, line=line, column=column, message=str(error))
                    return None, [found]
    missing = message.rpartition(" ")[2].strip("`\"'")
    for file in files:
        if missing and missing in file.text:
            line, column = place_of_word(file.text, missing)
            found = Finding(path=file.path, line=line, column=column, message=f"schema: {message}")
            return None, [found]
    path = files[0].path if files else "schema"
    return None, [Finding(path=path, line=0, message=f"schema: {message}")]


def _unread_declaration(statement: Statement) -> tuple[int, int]:
    place = statement.place_unread(cedarpy.Schema.from_str)
    return place or (statement.start_line, statement.start_column)


def read_statement(
    path: str,
    statement: Statement,
    schema: cedarpy.Schema | None,
    groups: Mapping[str, Group],
) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return one policy in Cedar's JSON form, if it parses, and what is wrong with its conditions."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(statement.text))
    except ValueError as error:
        message = f"the policy does not parse: {error}"
        unread = statement.place_unread(cedarpy.policies_to_json_str)
        line, column = unread or statement.place_named(str(error))
        return None, [Finding(path=path, line=line, column=column, message=message)]
    if document["templates"] or len(document["staticPolicies"]) != 1:
        messages = ["templates are not used here; write the policy out"]
        return None, found_in(path, statement, messages)
    (policy,) = document["staticPolicies"].values()
    messages = unknown_literals(policy, groups)
    if schema is not None:
        result = cedarpy.validate_policies(statement.text, schema)
        messages += [_CEDAR_SUBJECT.sub("", finding.error) for finding in result.errors]
    return policy, found_in(path, statement, messages)


def found_in(path: str, statement: Statement, messages: Iterable[str]) -> list[Finding]:
    """Return each message with the place of what it names in the statement."""
    found = []
    for message in messages:
        line, column = statement.place_named(message)
        found.append(Finding(path=path, line=line, column=column, message=message))
    return found


def read_annotations(
    policy: Mapping[str, Any], required: Sequence[str], known: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the annotations of `policy`, and what is wrong with them."""
    annotations: dict[str, str | None] = policy.get("annotations", {})
    messages = [f"every policy needs @{name}(...)" for name in required if not annotations.get(name)]
    messages += [
        f"@{name} means nothing here; one of {', '.join(sorted(known))} is meant"
        for name in annotations
        if name not in known
    ]
    identifier = annotations.get("id") or ""
    if identifier and not _IDENTIFIER.fullmatch(identifier):
        messages.append("an @id is lower-case letters, digits, '.' and '-'")
    return {name: value or "" for name, value in annotations.items()}, messages


def read_obligations(listed: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the obligations that an annotation lists, and what is wrong with them."""
    obligations: list[str] = []
    messages: list[str] = []
    for name in filter(str.strip, listed.split(";")):
        try:
            obligations.append(canonical(name))
        except ValueError as error:
            messages.append(str(error))
    return tuple(obligations), messages


def taken(identifier: str, earlier: Iterable[Named]) -> list[str]:
    """Return the complaint that `identifier` is the id of something earlier, if it is."""
    for other in earlier:
        if other.id == identifier:
            return [f"@id({identifier}) is taken by {other.path}:{other.line}"]
    return []


def _text_of(
    policy: dict[str, Any], path: str, statement: Statement
) -> tuple[PolicyText | None, list[str]]:
    annotations, messages = read_annotations(policy, REQUIRED_ANNOTATIONS, _KNOWN_ANNOTATIONS)
    obligations, wrong = read_obligations(annotations.get("obligation", ""))
    messages += wrong
    if policy["effect"] == "forbid" and "obligation" in annotations:
        messages.append("an obligation stands on a permit: a forbid permits nothing to oblige")
    identifier = annotations.get("id", "")
    if messages and not identifier:
        return None, messages
    text = PolicyText(
        id=identifier,
        title=annotations.get("title", ""),
        citation=annotations.get("cite", ""),
        effect=policy["effect"],
        obligations=obligations,
        path=path,
        line=statement.line,
        column=statement.column,
        redundant=annotations.get("redundant", ""),
    )
    return text, messages
