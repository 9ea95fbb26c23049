"""Spelling mistakes that Cedar's own validator cannot see: literals outside a closed set.

`context.purpose == "TREATT"` is a valid policy that never applies; so is `context.jurisdiction in
Jurisdiction::"EAA"`. The sets are strings in the schema, not enumerated entities, because each entity
in a request's context costs about 8 us at every decision (measured).
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from policies.facts import (
    JURISDICTION,
    Agreement,
    CallerKind,
    DataClass,
    Purpose,
    RiskClass,
    Role,
)

_CLOSED_SETS: Final[Mapping[str, type[StrEnum]]] = {
    "agreements": Agreement,
    "data_class": DataClass,
    "data_classes": DataClass,
    "kind": CallerKind,
    "purpose": Purpose,
    "purposes": Purpose,
    "risk": RiskClass,
}
# Attributes that hold names which a site gives: no closed sets, but policies name few of them.
NAMES: Final = frozenset({"operator", "organisation", "site"})
# Whether left is compared with, or looked up in, right.
_COMPARISONS: Final = ("==", "!=", "contains", "containsAny", "containsAll")

_ROLES: Final = frozenset(Role)


def unknown_literals(policy: dict[str, Any], groups: Container[str]) -> list[str]:
    """Return a message for each literal of `policy` (Cedar's JSON form) that is in no closed set.

    `groups` are the groups of jurisdictions that the bundle's data defines.
    """
    messages = [
        f'"{value}" is no {attribute}; one of {", ".join(_CLOSED_SETS[attribute])} is meant'
        for attribute, value in _compared(policy["conditions"], _CLOSED_SETS)
        if value not in set(_CLOSED_SETS[attribute])
    ]
    for kind, identifier in _entities(policy):
        if kind == "Role" and identifier not in _ROLES:
            messages.append(f'Role::"{identifier}" does not exist; one of {", ".join(Role)} is meant')
        if kind == "Jurisdiction" and not (identifier in groups or JURISDICTION.fullmatch(identifier)):
            messages.append(
                f'Jurisdiction::"{identifier}" is neither an ISO 3166 code nor a group in data.toml'
            )
    return messages


def named_in(policies: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Return the names that policies compare a site, an organisation or an operator with."""
    return frozenset(
        value for policy in policies for _, value in _compared(policy["conditions"], NAMES)
    )


def _compared(node: object, attributes: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield each string that `node` compares with one of these attributes, and the attribute."""
    for operator, sides in _members(node):
        if operator in _COMPARISONS and isinstance(sides, dict):
            for one, other in (("left", "right"), ("right", "left")):
                attribute = _attribute(sides.get(one))
                if attribute in attributes:
                    yield from ((attribute, value) for value in _strings(sides.get(other)))
        yield from _compared(sides, attributes)


def _attribute(node: object) -> str:
    """Return the attribute that `node` reads, whatever it reads it from, or nothing."""
    access = node.get(".") if isinstance(node, dict) else None
    return str(access["attr"]) if isinstance(access, dict) else ""


def _strings(node: object) -> Iterator[str]:
    for name, value in _members(node):
        if name == "Value" and isinstance(value, str):
            yield value
        else:
            yield from _strings(value)


def _entities(node: object) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and isinstance(node.get("type"), str) and isinstance(node.get("id"), str):
        yield node["type"], node["id"]
        return
    for _, value in _members(node):
        yield from _entities(value)


def _members(node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        yield from (("", item) for item in node)
