"""Policies with one mistake in them, made mechanically from Cedar's JSON form."""

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

import cedarpy
from msgspec import Struct

from policies.proofs.workbench import Policy

_TRUE: Final = {"Value": True}
_FALSE: Final = {"Value": False}
_CONNECTIVES: Final = ("&&", "||")


class Mutant(Struct, frozen=True, kw_only=True):
    """One policy with one mistake; `policy` is None where the mistake is to delete it."""

    id: str
    mistake: str
    policy: Policy | None


def mutants_of(policy: Policy) -> Iterator[Mutant]:
    """Yield the mutants of one policy, no two of them alike.

    It is deleted; its effect is flipped; its obligation is dropped; each part of its scope is dropped;
    each condition, conjunct and disjunct is taken for true and for false; each negation is dropped;
    and each member of each set is left out.
    """
    name = policy["annotations"]["id"]
    yield Mutant(id=name, mistake="delete the policy", policy=None)
    seen = {_spelled(policy)}
    for mistake, mutant in _mutations(policy):
        spelled = _spelled(mutant)
        if spelled not in seen:
            seen.add(spelled)
            yield Mutant(id=name, mistake=mistake, policy=mutant)


def as_text(policy: Policy) -> str:
    """Return a policy in Cedar's JSON form as Cedar text."""
    document = {"templates": {}, "staticPolicies": {"mutant": policy}, "templateLinks": []}
    return str(cedarpy.policies_from_json_str(json.dumps(document)))


def _spelled(policy: Policy) -> str:
    return json.dumps(policy, sort_keys=True)


def _mutations(policy: Policy) -> Iterator[tuple[str, Policy]]:
    other = "forbid" if policy["effect"] == "permit" else "permit"
    kept = {name: value for name, value in policy["annotations"].items() if name != "obligation"}
    # A forbid with an obligation is no policy; flipped, it loses it.
    flipped = kept if other == "forbid" else policy["annotations"]
    yield f"{other} instead", {**policy, "effect": other, "annotations": flipped}
    if "obligation" in policy["annotations"]:
        yield "drop the obligation", {**policy, "annotations": kept}
    for variable in ("principal", "action", "resource"):
        scope = policy[variable]
        if scope["op"] != "All":
            yield f"any {variable}", {**policy, variable: {"op": "All"}}
        for n, entity in enumerate(scope.get("entities", [])):
            left = scope["entities"][:n] + scope["entities"][n + 1 :]
            mistake = f"leave {entity['id']} out of the {variable}s"
            yield mistake, {**policy, variable: {**scope, "entities": left}}
    for n, condition in enumerate(policy["conditions"]):
        for mistake, body in _bodies(condition["body"]):
            mutant = copy.deepcopy(policy)
            mutant["conditions"][n]["body"] = body
            yield f"{condition['kind']}: {mistake}", mutant


def _bodies(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a condition becomes by each mistake in it."""
    said = _said(node)
    yield f"take `{said}` for true", _TRUE
    yield f"take `{said}` for false", _FALSE
    ((operator, inner),) = node.items()
    if operator in _CONNECTIVES:
        for side in ("left", "right"):
            for mistake, body in _bodies(inner[side]):
                yield mistake, {operator: {**inner, side: body}}
    elif operator == "!":
        yield f"drop the negation of `{_said(inner['arg'])}`", inner["arg"]
        for mistake, body in _bodies(inner["arg"]):
            yield mistake, {"!": {"arg": body}}
    else:
        yield from _fewer(node, said)


def _fewer(node: object, said: str) -> Iterator[tuple[str, Any]]:
    """Yield `node` with each member of each set in it left out."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "Set":
                for n, member in enumerate(value):
                    mistake = f"leave `{_said(member)}` out of `{said}`"
                    yield mistake, {name: value[:n] + value[n + 1 :]}
            else:
                for mistake, other in _fewer(value, said):
                    yield mistake, {**node, name: other}


def _said(node: dict[str, Any]) -> str:
    """Return an expression as Cedar text on one line."""
    anything = {"op": "All"}
    policy = {
        "effect": "permit",
        "principal": anything,
        "action": anything,
        "resource": anything,
        "conditions": [{"kind": "when", "body": node}],
    }
    text = as_text(policy)
    return " ".join(text.partition("when {")[2].rpartition("}")[0].split())
