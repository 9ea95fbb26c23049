"""What can be wrong with a set of policies, found before it decides anything, each with its place."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import cedarpy
from msgspec import Struct

from policies.closed import unknown_literals
from policies.facts import JURISDICTION
from policies.pack import Group
from policies.source import SourceFile, Statement, line_of_word, statements

REQUIRED_ANNOTATIONS: Final = ("id", "title", "cite")

_KNOWN_ANNOTATIONS: Final = {*REQUIRED_ANNOTATIONS, "obligation"}
_POLICY_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_OBLIGATION: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_GROUP: Final = re.compile(r"[A-Z][A-Z0-9-]{2,62}")
_CEDAR_SUBJECT: Final = re.compile(r"^for policy `policy\d+`[,:] ")


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong; `line` counts from 1, and is 0 where no line can be named."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.message}"


class PolicyText(Struct, frozen=True, kw_only=True):
    """What a policy says of itself, and where it stands."""

    id: str
    title: str
    citation: str
    effect: str
    obligations: tuple[str, ...]
    path: str
    line: int


def examine(
    schema: Sequence[SourceFile],
    policies: Sequence[SourceFile],
    groups: Mapping[str, Group],
) -> tuple[tuple[PolicyText, ...], tuple[Finding, ...]]:
    """Return what the policies say of themselves, in the order of the text, and all that is wrong.

    Where nothing is wrong, the nth text is Cedar's `policy<n>`.
    """
    findings = list(_of_groups(groups))
    parsed, wrong = _parse_schema(schema)
    findings += wrong
    texts: list[PolicyText] = []
    for file in policies:
        for statement in statements(file.text):
            text, wrong = _examine_policy(file.path, statement, parsed, groups)
            if text is not None:
                wrong += _taken(text, texts)
                texts.append(text)
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
        if name in _reached(groups, name):
            yield _in_data(f"the group {name} contains itself")


def _in_data(message: str) -> Finding:
    return Finding(path="data.toml", line=0, message=message)


def _reached(groups: Mapping[str, Group], name: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(groups[name].members)
    while waiting:
        member = waiting.pop()
        if member in groups and member not in reached:
            reached.add(member)
            waiting += groups[member].members
    return reached


def _parse_schema(files: Sequence[SourceFile]) -> tuple[cedarpy.Schema | None, list[Finding]]:
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
                    return None, [Finding(path=file.path, line=statement.line, message=str(error))]
    missing = message.rpartition(" ")[2].strip("`\"'")
    for file in files:
        if missing and missing in file.text:
            line = line_of_word(file.text, missing)
            return None, [Finding(path=file.path, line=line, message=f"schema: {message}")]
    path = files[0].path if files else "schema"
    return None, [Finding(path=path, line=0, message=f"schema: {message}")]


def _examine_policy(
    path: str,
    statement: Statement,
    schema: cedarpy.Schema | None,
    groups: Mapping[str, Group],
) -> tuple[PolicyText | None, list[Finding]]:
    def found(messages: Iterable[str]) -> list[Finding]:
        return [Finding(path=path, line=statement.line, message=message) for message in messages]

    try:
        document = json.loads(cedarpy.policies_to_json_str(statement.text))
    except ValueError as error:
        return None, found([f"the policy does not parse: {error}"])
    if document["templates"] or len(document["staticPolicies"]) != 1:
        return None, found(["templates are not used here; write the policy out"])
    (policy,) = document["staticPolicies"].values()
    text, messages = _text_of(policy, path, statement.line)
    messages += unknown_literals(policy, groups)
    if schema is not None:
        result = cedarpy.validate_policies(statement.text, schema)
        messages += [_CEDAR_SUBJECT.sub("", finding.error) for finding in result.errors]
    return text, found(messages)


def _text_of(policy: dict[str, Any], path: str, line: int) -> tuple[PolicyText | None, list[str]]:
    annotations: dict[str, str | None] = policy.get("annotations", {})
    messages = [
        f"every policy needs @{name}(...)" for name in REQUIRED_ANNOTATIONS if not annotations.get(name)
    ]
    messages += [
        f"@{name} means nothing here; one of {', '.join(sorted(_KNOWN_ANNOTATIONS))} is meant"
        for name in annotations
        if name not in _KNOWN_ANNOTATIONS
    ]
    identifier = annotations.get("id") or ""
    if identifier and not _POLICY_ID.fullmatch(identifier):
        messages.append("an @id is lower-case letters, digits, '.' and '-'")
    listed = (annotations.get("obligation") or "").split(";")
    obligations = tuple(name.strip() for name in listed if name.strip())
    messages += [
        f"the obligation {name!r} is not lower-case letters, digits and '_'"
        for name in obligations
        if not _OBLIGATION.fullmatch(name)
    ]
    if policy["effect"] == "forbid" and obligations:
        messages.append("an obligation stands on a permit: a forbid permits nothing to oblige")
    if messages and not identifier:
        return None, messages
    text = PolicyText(
        id=identifier,
        title=annotations.get("title") or "",
        citation=annotations.get("cite") or "",
        effect=policy["effect"],
        obligations=obligations,
        path=path,
        line=line,
    )
    return text, messages


def _taken(text: PolicyText, earlier: Iterable[PolicyText]) -> list[Finding]:
    for other in earlier:
        if other.id == text.id:
            message = f"@id({text.id}) is taken by {other.path}:{other.line}"
            return [Finding(path=text.path, line=text.line, message=message)]
    return []
