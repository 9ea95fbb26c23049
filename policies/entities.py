"""Facts and candidates as Cedar's JSON: the entities that policies look at, and the context.

Neither a person nor a place is named in them: a caller is its roles and attributes, a place is its
attributes.
"""

from collections.abc import Iterable
from typing import Any, Final

import cedarpy
import msgspec
from msgspec import Struct

from policies.bundle import Bundle, ModelAccess
from policies.cache import LruCache
from policies.errors import BundleInvalid
from policies.facts import JURISDICTION, Agreement, Caller, Candidate, Facts, PlacementKind, RiskClass

CALLER: Final = {"type": "Caller", "id": "caller"}
API: Final = {"type": "Api", "id": "bedside"}
API_ENTITY: Final[dict[str, Any]] = {"uid": API, "attrs": {}, "parents": []}
PLACE: Final = {"type": "Action", "id": "place"}

REMEMBERED: Final = 128

_encoder = msgspec.json.Encoder()


class Shape(Struct, frozen=True):
    """What policies can tell apart in a candidate: everything but its name."""

    kind: PlacementKind
    jurisdiction: str
    on_premises: bool = True
    operator: str = ""
    agreements: frozenset[Agreement] = frozenset()
    attested: bool = False
    adequacy: bool = False
    holds_subject: bool = False

    @property
    def uid(self) -> dict[str, str]:
        """What Cedar calls a place of this shape."""
        flags = f"{self.on_premises:d}{self.attested:d}{self.adequacy:d}{self.holds_subject:d}"
        signed = "+".join(sorted(self.agreements))
        kind = "Node" if self.kind is PlacementKind.NODE else "Device"
        return {"type": kind, "id": f"{self.jurisdiction} {flags} {signed} {self.operator}"}


def shape_of(candidate: Candidate) -> Shape:
    """Return what policies can tell apart in `candidate`."""
    return Shape(
        candidate.kind,
        candidate.jurisdiction,
        candidate.on_premises,
        candidate.operator,
        candidate.agreements,
        candidate.attested,
        candidate.adequacy,
        candidate.holds_subject,
    )


class World:
    """What decisions of one bundle look at: its jurisdictions and models, parsed once.

    A decision adds the caller and the candidates to them. Adding costs 60 us, where parsing all that
    a decision can look at costs 120 us; and since a site's callers and nodes are few, the result is
    remembered.
    """

    def __init__(self, bundle: Bundle, schema: cedarpy.Schema) -> None:
        """Parse the data of `bundle`.

        Raises:
            BundleInvalid: if it does not fit the schema, or if what this release of Bedside says of
                callers and places does not: the schema is then another release's.
        """
        _check_release(schema)
        self._models = bundle.models
        self._residency = bundle.residency
        self._groups: dict[str, set[str]] = {name: set() for name in bundle.groups}
        for name, group in bundle.groups.items():
            for member in group.members:
                self._groups.setdefault(member, set()).add(name)
        listed = {place for row in bundle.residency.values() for place in row}
        homes = self.homes({*self._groups, *bundle.residency, *listed})
        self._known = {home["uid"]["id"] for home in homes}
        entities = _encode([*homes, *(model_entity(*item) for item in bundle.models.items())])
        try:
            self._base = cedarpy.Entities.from_json_str(entities, schema)
        except ValueError as error:
            raise BundleInvalid(f"the bundle's data does not fit its schema: {error}") from error
        self._remembered: LruCache[object, cedarpy.Entities] = LruCache(REMEMBERED)

    def entities(self, facts: Facts, shapes: tuple[Shape, ...]) -> cedarpy.Entities:
        """Return the entities that a decision on these facts and candidates can look at."""
        model = None if facts.model in self._models else facts.model
        key = (facts.caller, facts.jurisdiction, model, shapes)
        entities = self._remembered.get(key)
        if entities is None:
            entities = self._add(facts, shapes)
            self._remembered.put(key, entities)
        return entities

    def _add(self, facts: Facts, shapes: tuple[Shape, ...]) -> cedarpy.Entities:
        names = {facts.jurisdiction, *(shape.jurisdiction for shape in shapes)} - self._known
        added = [caller_entity(facts.caller), *map(place_entity, shapes)]
        added += [home for home in self.homes(names) if home["uid"]["id"] not in self._known]
        if facts.model not in self._models:
            added.append(model_entity(facts.model, None))
        return self._base.with_added_json_str(_encode(added))

    def homes(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the named jurisdictions and all that they belong to."""
        found: dict[str, dict[str, Any]] = {}
        waiting = sorted(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._home(name)
                waiting += [parent["id"] for parent in found[name]["parents"]]
        return list(found.values())

    def _home(self, name: str) -> dict[str, Any]:
        parents = set(self._groups.get(name, ()))
        country, _, state = name.partition("-")
        row = self._residency.get(name)
        if state and JURISDICTION.fullmatch(name):
            parents.add(country)
            row = self._residency.get(country) if row is None else row
        attributes = {}
        if row is not None:
            attributes["processed_in"] = [_reference("Jurisdiction", place) for place in row]
        return {
            "uid": {"type": "Jurisdiction", "id": name},
            "attrs": attributes,
            "parents": [{"type": "Jurisdiction", "id": parent} for parent in sorted(parents)],
        }


def _check_release(schema: cedarpy.Schema) -> None:
    caller = Caller(roles=frozenset())
    places = (Shape(kind, "US") for kind in PlacementKind)
    said = [
        caller_entity(caller),
        model_entity("model", None),
        *map(place_entity, places),
        work_entity(own=True),
        {"uid": {"type": "Jurisdiction", "id": "US"}, "attrs": {}, "parents": []},
    ]
    try:
        cedarpy.Entities.from_json_str(_encode(said), schema)
    except ValueError as error:
        raise BundleInvalid(
            "the bundle's schema is that of another release of Bedside; draft the bundle again and"
            f" publish it (bedside policy draft): {error}"
        ) from error


def api_entities(caller: Caller, resource: dict[str, Any]) -> cedarpy.Entities:
    """Return the entities that a decision on an action of the API can look at."""
    return cedarpy.Entities.from_json_str(_encode([caller_entity(caller), resource]))


def work_entity(own: bool) -> dict[str, Any]:
    """Return asynchronous work, of the caller's own or of somebody else's."""
    uid = {"type": "Work", "id": "own" if own else "another's"}
    return {"uid": uid, "attrs": {"own": own}, "parents": []}


def context_of(facts: Facts) -> str:
    """Return the facts as the context of `Action::"place"`."""
    return _encode(context_attributes(facts))


def context_attributes(facts: Facts) -> dict[str, Any]:
    """Return the attributes of the context, as Cedar's JSON has them."""
    return {
        "model": _reference("Model", facts.model),
        "jurisdiction": _reference("Jurisdiction", facts.jurisdiction),
        "data_class": facts.data_class,
        "purpose": facts.purpose,
        "consent": facts.consent,
        "emergency": facts.emergency,
        "on_device": facts.on_device,
        "own_device": facts.own_device,
        "carries_payload": facts.carries_payload,
    }


def _encode(value: object) -> str:
    return _encoder.encode(value).decode()


def model_entity(name: str, access: ModelAccess | None) -> dict[str, Any]:
    """Return the model; one that nobody registered is open to no role and for no purpose."""
    attributes = {
        "roles": [_reference("Role", role) for role in access.roles] if access else [],
        "purposes": list(access.purposes) if access else [],
        "data_classes": list(access.data_classes) if access else [],
        "risk": (access.risk if access else RiskClass.IV).value,
    }
    return {"uid": {"type": "Model", "id": name}, "attrs": attributes, "parents": []}


def _reference(kind: str, identifier: str) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": identifier}}


def caller_entity(caller: Caller, name: str = CALLER["id"]) -> dict[str, Any]:
    """Return a caller, who is known by its roles and attributes only."""
    parents = [{"type": "Role", "id": role.value} for role in sorted(caller.roles)]
    attributes = {
        "kind": caller.kind.value,
        "site": caller.site,
        "organisation": caller.organisation,
    }
    return {"uid": {"type": "Caller", "id": name}, "attrs": attributes, "parents": parents}


def place_entity(shape: Shape) -> dict[str, Any]:
    """Return the place of this shape."""
    attributes: dict[str, Any] = {"jurisdiction": _reference("Jurisdiction", shape.jurisdiction)}
    if shape.kind is PlacementKind.NODE:
        attributes |= {
            "on_premises": shape.on_premises,
            "operator": shape.operator,
            "agreements": sorted(shape.agreements),
            "attested": shape.attested,
            "adequacy": shape.adequacy,
        }
    else:
        attributes["holds_subject"] = shape.holds_subject
    return {"uid": shape.uid, "attrs": attributes, "parents": []}
