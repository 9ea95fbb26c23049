"""Policies as formulas over atoms: the smallest conditions that Cedar alone understands.

Only `&&`, `||`, `!`, `if` and truth values are taken apart here, as Cedar's JSON form of policies
spells them. Whatever else a condition holds is an atom, and Cedar says what it is worth. Of an atom
it is only asked which facts it reads; where that is not plain, it counts as reading all of them.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import cedarpy
import msgspec
from msgspec import Struct

from policies.errors import PolicyError
from policies.source import SourceFile, statements

ACTION: Final = "action"
ROLES: Final = "roles"
MODEL: Final = "model"
MODEL_ROLES: Final = "model.roles"
MODEL_PURPOSES: Final = "model.purposes"
MODEL_DATA: Final = "model.data_classes"
MODEL_RISK: Final = "model.risk"
KIND: Final = "kind"
SITE: Final = "site"
ORGANISATION: Final = "organisation"
HOME: Final = "jurisdiction"
PLACE: Final = "place"
PLACE_HOME: Final = "place.jurisdiction"
OPERATOR: Final = "place.operator"
OWN: Final = "own"

_MODEL_READS: Final = {
    "roles": {MODEL_ROLES},
    "purposes": {MODEL_PURPOSES},
    "data_classes": {MODEL_DATA},
    "risk": {MODEL_RISK},
}
MODEL_VARIABLES: Final = frozenset({MODEL, MODEL_ROLES, MODEL_PURPOSES, MODEL_DATA, MODEL_RISK})
_NAMED: Final = frozenset({SITE, ORGANISATION, OPERATOR})
_FLAGS: Final = (
    "data_class",
    "purpose",
    "consent",
    "emergency",
    "on_device",
    "own_device",
    "carries_payload",
)
_CONTEXT: Final = frozenset({*_FLAGS, HOME, *MODEL_VARIABLES})
_VARIABLES: Final = {
    "action": frozenset({ACTION}),
    "principal": frozenset({ROLES, KIND, SITE, ORGANISATION}),
    "resource": frozenset({ACTION, OWN, PLACE, PLACE_HOME, OPERATOR}),
    "context": _CONTEXT,
}
# What is compared or looked up as a whole: its roles are its place among entities, no attributes.
_ENTITIES: Final = {
    ("principal",): frozenset({ROLES}),
    ("context", MODEL): frozenset({MODEL}),
}
# Entities that stand for one caller or place, which policies know by their attributes only.
_NAMELESS: Final = frozenset({"Caller", "Node", "Device"})

# What can be asked of a name, so that those which policies name and a few more stand for all.
_OF_NAMES: Final = ("==", "!=", "contains", "in", "is", "has")

_encoder = msgspec.json.Encoder(order="deterministic")


class Unprovable(PolicyError):
    """Raised when a policy looks at what cannot be enumerated; the message says at what."""


class Const(Struct, frozen=True):
    """A truth value."""

    value: bool


class Atom(Struct, frozen=True):
    """A condition that Cedar evaluates: its JSON form, the facts that it reads, and in which world.

    The world is the number of the bundle whose groups, tables and models it looks things up in.
    """

    body: str
    reads: frozenset[str]
    world: int


class Not(Struct, frozen=True):
    """Negation."""

    inner: "Formula"


class And(Struct, frozen=True):
    """Conjunction; `right` is not evaluated where `left` is false."""

    left: "Formula"
    right: "Formula"


class Or(Struct, frozen=True):
    """Disjunction; `right` is not evaluated where `left` is true."""

    left: "Formula"
    right: "Formula"


class If(Struct, frozen=True):
    """A choice between two formulas."""

    test: "Formula"
    then: "Formula"
    other: "Formula"


Formula = Const | Atom | Not | And | Or | If


def parse_policies(files: tuple[SourceFile, ...]) -> tuple[dict[str, Any], ...]:
    """Return the policies of these files in Cedar's JSON form, in the order of the text."""
    return tuple(
        policy
        for file in files
        for statement in statements(file.text)
        for policy in json.loads(cedarpy.policies_to_json_str(statement.text))[
            "staticPolicies"
        ].values()
    )


def formula_of(policy: dict[str, Any], world: int = 0) -> Formula:
    """Return when a policy applies: its scope, and then its conditions in their order.

    Raises:
        Unprovable: if it looks at what cannot be enumerated.
    """
    parts = [*_scope(policy), *_conditions(policy)]
    formula: Formula = Const(True)
    for part in parts:
        formed = _formed(part, world)
        formula = formed if formula == Const(True) else And(formula, formed)
    return formula


def atoms_of(formula: Formula) -> Iterator[Atom]:
    """Yield the atoms of a formula, with repeats."""
    match formula:
        case Atom():
            yield formula
        case Not(inner):
            yield from atoms_of(inner)
        case And(left, right) | Or(left, right):
            yield from atoms_of(left)
            yield from atoms_of(right)
        case If(test, then, other):
            yield from atoms_of(test)
            yield from atoms_of(then)
            yield from atoms_of(other)


def actions_of(policy: dict[str, Any]) -> frozenset[str] | None:
    """Return the actions that the scope of a policy names, or None if it is about any action."""
    scope = policy["action"]
    if scope["op"] == "All":
        return None
    named = scope["entities"] if "entities" in scope else [scope["entity"]]
    return frozenset(entity["id"] for entity in named)


def membership_of(atom: Atom) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """Return left side and set of an atom `left in set`, if the set is an attribute."""
    inner = json.loads(atom.body).get("in")
    path = path_of(inner["right"]) if inner else None
    return None if path is None else (inner["left"], path)


def member_atom(left: dict[str, Any], entity: tuple[str, str], world: int) -> Atom:
    """Return the atom `left in entity`."""
    kind, name = entity
    body = {"in": {"left": left, "right": _reference({"type": kind, "id": name})}}
    return Atom(_encoder.encode(body).decode(), frozenset(_reads(body)), world)


def itself_atom(left: dict[str, Any], world: int) -> Atom:
    """Return the atom `left == left`, which is true but where `left` cannot be evaluated."""
    body = {"==": {"left": left, "right": left}}
    return Atom(_encoder.encode(body).decode(), frozenset(_reads(body)), world)


def literals_of(node: object) -> Iterator[tuple[str, str]]:
    """Yield type and id of each entity that a policy names."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str) and isinstance(node.get("id"), str):
            yield node["type"], node["id"]
            return
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from literals_of(value)


def _scope(policy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for variable in ("principal", "action", "resource"):
        scope = policy[variable]
        left = {"Var": variable}
        if scope["op"] == "All":
            continue
        if scope["op"] == "is":
            yield {"is": {"left": left, "entity_type": scope["entity_type"]}}
            scope = {"op": "in", **scope["in"]} if "in" in scope else {"op": "All"}
        if scope["op"] in ("==", "in"):
            if "entities" in scope:
                right: dict[str, Any] = {"Set": [_reference(each) for each in scope["entities"]]}
            else:
                right = _reference(scope["entity"])
            yield {scope["op"]: {"left": left, "right": right}}


def _reference(entity: dict[str, str]) -> dict[str, Any]:
    return {"Value": {"__entity": entity}}


def _conditions(policy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for condition in policy["conditions"]:
        body = condition["body"]
        yield body if condition["kind"] == "when" else {"!": {"arg": body}}


def _formed(node: dict[str, Any], world: int) -> Formula:
    ((operator, inner),) = node.items()
    match operator:
        case "&&":
            return And(_formed(inner["left"], world), _formed(inner["right"], world))
        case "||":
            return Or(_formed(inner["left"], world), _formed(inner["right"], world))
        case "!":
            return Not(_formed(inner["arg"], world))
        case "if-then-else":
            parts = (_formed(inner[name], world) for name in ("if", "then", "else"))
            return If(*parts)
        case "Value" if isinstance(inner, bool):
            return Const(inner)
    nameless = sorted(kind for kind, _ in literals_of(node) if kind in _NAMELESS)
    if nameless:
        raise Unprovable(f"a policy names one {nameless[0]}; it is known by its attributes only")
    reads = frozenset(_reads(node))
    if operator not in _OF_NAMES and reads & _NAMED:
        raise Unprovable(
            f"a policy reads {', '.join(sorted(reads & _NAMED))} other than by"
            f" {', '.join(_OF_NAMES)}; the names that it could hold cannot be enumerated"
        )
    return Atom(_encoder.encode(node).decode(), reads, world)


def _reads(node: object, *, attributes: bool = False) -> set[str]:
    """Return the facts that `node` reads; with `attributes`, some attribute of its value is read."""
    path = path_of(node)
    if path is not None:
        if not attributes and path in _ENTITIES:
            return set(_ENTITIES[path])
        return set(_read_of_path(path))
    found: set[str] = set()
    if isinstance(node, dict):
        if set(node) == {"is"} and path_of(node["is"]["left"]) == ("resource",):
            return {PLACE, ACTION}
        attributes = attributes or not {".", "has"}.isdisjoint(node)
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            found |= _reads(value, attributes=attributes)
    return found


def path_of(node: object) -> tuple[str, ...] | None:
    """Return the variable and the attributes that `node` reads from it, or that it asks for."""
    if not isinstance(node, dict) or len(node) != 1:
        return None
    ((operator, inner),) = node.items()
    if operator == "Var":
        return (str(inner),)
    if operator in (".", "has") and isinstance(inner, dict) and isinstance(inner.get("attr"), str):
        left = path_of(inner.get("left"))
        return None if left is None else (*left, inner["attr"])
    return None


def _read_of_path(path: tuple[str, ...]) -> frozenset[str]:
    variable, *attributes = path
    if variable not in _VARIABLES:
        raise Unprovable(f"a policy reads {variable}, which is no part of a request")
    if not attributes:
        return _VARIABLES[variable]
    first, *rest = attributes
    if variable == "context":
        if first == MODEL:
            return frozenset(_MODEL_READS.get(rest[0], MODEL_VARIABLES)) if rest else MODEL_VARIABLES
        if first not in _CONTEXT:
            raise Unprovable(f"a policy reads context.{first}, whose values cannot be enumerated")
        return frozenset({first})
    if variable == "resource":
        # Every place has a jurisdiction, whatever else it has depends on its kind.
        if first == HOME:
            return frozenset({PLACE_HOME})
        if first == OWN:
            return frozenset({ACTION, OWN, PLACE})
        return frozenset({PLACE, OPERATOR} if first == "operator" else {PLACE})
    if variable == "principal" and first in (KIND, SITE, ORGANISATION):
        return frozenset({first})
    return _VARIABLES[variable]
