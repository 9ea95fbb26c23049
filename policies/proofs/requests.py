"""Single requests out of the space of all, as people read them and as the engine decides them."""

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from policies.bundle import Bundle, ModelAccess
from policies.decision import Decision
from policies.engine import ApiAction, Engine
from policies.errors import PolicyError
from policies.facts import Caller, Candidate, Facts, PlacementKind, RiskClass
from policies.proofs.axes import Axes
from policies.proofs.formula import ACTION, KIND, ORGANISATION, OWN, ROLES, SITE
from policies.proofs.space import ANY_MODEL, DEVICE_TRAITS, NODE_TRAITS, Space, Values


class ProofBroken(PolicyError):
    """Raised when the engine decides a request otherwise than a proof says: a defect of ours."""


class Request(Struct, frozen=True, kw_only=True):
    """One request: facts, a candidate and what the model is open to; or roles and an API action."""

    caller: Caller
    action: ApiAction | None = None
    own: bool = False
    facts: Facts | None = None
    candidate: Candidate | None = None
    access: ModelAccess | None = None

    def lines(self) -> tuple[str, ...]:
        """Return it as text, one thing a line."""
        who = self.caller
        roles = f"roles: {', '.join(sorted(who.roles)) or 'none'}"
        belongs = (f"of the {name} {value}" for name, value in _names(who).items() if value)
        caller = f"caller: {' '.join((who.kind.value, *belongs))}"
        if self.facts is None or self.candidate is None:
            return roles, caller, f"action: {self.action}{' about own work' if self.own else ''}"
        facts, place, access = self.facts, self.candidate, self.access
        flags = [
            name
            for name in ("consent", "emergency", "on_device", "own_device", "carries_payload")
            if getattr(facts, name)
        ]
        traits = [
            *(name for name in (*NODE_TRAITS, *DEVICE_TRAITS) if getattr(place, name, False)),
            *sorted(place.agreements),
            *([f"operated by {place.operator}"] if place.operator else []),
        ]
        open_to = ", ".join(access.roles) if access else ""
        purposes = ", ".join(access.purposes) if access else ""
        data = ", ".join(access.data_classes) if access else ""
        made_for = f"made for {data or 'no data'}; risk class {access.risk if access else RiskClass.IV}"
        return (
            roles,
            caller,
            f"data: {facts.data_class} of {facts.jurisdiction} for {facts.purpose}",
            f"true: {', '.join(flags) or 'none'}",
            f"model: open to {open_to or 'nobody'}; for {purposes or 'nothing'}; {made_for}",
            f"place: a {place.kind} in {place.jurisdiction}; {', '.join(traits) or 'nothing else'}",
        )


def _names(caller: Caller) -> dict[str, str]:
    return {"site": caller.site, "organisation": caller.organisation}


def values_at(space: Space, axes: Axes, points: Sequence[int]) -> Values:
    """Return the value of every variable at one point of each axis."""
    values = {}
    for axis, point in zip(axes.axes, points, strict=True):
        for name, place in zip(axis.variables, np.unravel_index(point, axis.shape), strict=True):
            values[name] = space.domains[name].values[int(place)]
    return values


def request_at(space: Space, axes: Axes, points: Sequence[int], world: int = 0) -> Request:
    """Return the request at one point of each axis."""
    values = values_at(space, axes, points)
    caller = Caller(
        roles=values[ROLES],
        kind=values[KIND],
        site=values[SITE],
        organisation=values[ORGANISATION],
    )
    if space.api:
        return Request(caller=caller, action=ApiAction(values[ACTION]), own=values[OWN])
    name, access = space.model(values, world)
    shape = space.shape(values)
    kind = "node" if shape.kind is PlacementKind.NODE else "device"
    candidate = Candidate(
        placement=f"{kind}:example",
        kind=shape.kind,
        jurisdiction=shape.jurisdiction,
        on_premises=shape.on_premises,
        operator=shape.operator,
        agreements=shape.agreements,
        attested=shape.attested,
        adequacy=shape.adequacy,
        holds_subject=shape.holds_subject,
    )
    return Request(
        caller=caller,
        facts=space.facts(values, name or ANY_MODEL),
        candidate=candidate,
        access=access,
    )


def decide(bundle: Bundle, request: Request) -> Decision:
    """Return what the engine decides of a request, with the model that it names as it says."""
    if request.facts is None or request.candidate is None:
        if request.action is None:
            raise ProofBroken("a request is about a place or an action")
        return Engine(bundle).authorize(request.caller, request.action, own=request.own)
    models = {} if request.access is None else {request.facts.model: request.access}
    engine = Engine(msgspec.structs.replace(bundle, models=models))
    return engine.decide(request.facts, (request.candidate,))
