"""Every request that there can be, as the values of a few variables, and what Cedar is told of one.

Roles, purposes, data classes and flags are closed sets. A model is any that a site could register
(every set of roles, every set of purposes), or one of those that it did. Jurisdictions are without
number, but a bundle names few: one that it does not name is told from another by nothing, save that
two may be the same or lie in the same country. So two stand for all of them, in each country that is
named and in two that are not.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import cedarpy
import msgspec
from msgspec import Struct

from policies.bundle import Bundle, ModelAccess
from policies.closed import named_in
from policies.engine import ApiAction, api_resource
from policies.entities import PLACE as PLACE_ACTION
from policies.entities import (
    Shape,
    World,
    caller_entity,
    context_attributes,
    model_entity,
    place_entity,
)
from policies.facts import (
    Agreement,
    Caller,
    CallerKind,
    DataClass,
    Facts,
    PlacementKind,
    Purpose,
    RiskClass,
    Role,
)
from policies.proofs.formula import (
    ACTION,
    HOME,
    KIND,
    MODEL,
    MODEL_DATA,
    MODEL_PURPOSES,
    MODEL_RISK,
    MODEL_ROLES,
    MODEL_VARIABLES,
    OPERATOR,
    ORGANISATION,
    OWN,
    PLACE,
    PLACE_HOME,
    ROLES,
    SITE,
    Atom,
    literals_of,
)
from policies.proofs.jurisdictions import all_codes, members_of_groups, named_codes

ANY_MODEL: Final = ""

# The least value first: departures from it are what makes a counterexample large.
_FLAGS: Final[Mapping[str, tuple[object, ...]]] = {
    "data_class": tuple(DataClass),
    "purpose": tuple(Purpose),
    "consent": (False, True),
    "emergency": (False, True),
    "on_device": (False, True),
    "own_device": (False, True),
    "carries_payload": (True, False),
}
# Names that no policy names; as many as there are facts that hold one, so that all can differ.
UNNAMED: Final = ("another", "yet-another", "a-third")
_CALLER: Final = (ROLES, KIND, SITE, ORGANISATION)

Values = Mapping[str, Any]


class Traits(Struct, frozen=True):
    """What policies can tell apart in a place besides its jurisdiction."""

    kind: PlacementKind
    on_premises: bool = True
    agreements: frozenset[Agreement] = frozenset()
    attested: bool = False
    adequacy: bool = False
    holds_subject: bool = False

    def at(self, jurisdiction: str, operator: str = "") -> Shape:
        """Return the place with these traits in a jurisdiction."""
        return Shape(
            self.kind,
            jurisdiction,
            self.on_premises,
            operator,
            self.agreements,
            self.attested,
            self.adequacy,
            self.holds_subject,
        )

    def has(self, trait: str) -> bool:
        """Return whether a trait is there: an attribute that is true, or an agreement by its name."""
        return trait in self.agreements or getattr(self, trait, False) is True


NODE_TRAITS: Final = ("on_premises", "adequacy", "attested", *Agreement)
DEVICE_TRAITS: Final = ("holds_subject",)


def _nodes() -> Iterator[Traits]:
    for own, adequate, attested in itertools.product((True, False), (False, True), (False, True)):
        for signed in _subsets(tuple(Agreement)).values:
            yield Traits(
                PlacementKind.NODE,
                on_premises=own,
                agreements=signed,
                attested=attested,
                adequacy=adequate,
            )


def _devices() -> Iterator[Traits]:
    for holds in (True, False):
        yield Traits(PlacementKind.DEVICE, holds_subject=holds)


def _departure(traits: Traits) -> int:
    """Return how far a place departs from a node of the site's own of which nothing else is said."""
    if traits.kind is PlacementKind.DEVICE:
        return len(NODE_TRAITS) + (not traits.holds_subject)
    told = (not traits.on_premises, traits.adequacy, traits.attested)
    return sum(told) + len(traits.agreements)


class Domain(Struct, frozen=True):
    """The values of one variable, each with how far it departs from the least."""

    values: tuple[Any, ...]
    weights: tuple[int, ...]


class Space:
    """The requests that are looked at, in the worlds of one bundle or more.

    `models` are the models of the worlds, by world, where only those that are registered count; else
    any that could be. `places` are the only places, one for each world, where some are given; `codes`
    are jurisdictions that count as named, `belongs` sites, organisations and operators.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        policies: Iterable[dict[str, Any]],
        *,
        models: Sequence[Mapping[str, ModelAccess]] | None = None,
        places: Sequence[Shape] | None = None,
        codes: Iterable[str] = (),
        belongs: Iterable[str] = (),
        api: bool = False,
    ) -> None:
        """Work out the variables; `policies`, in Cedar's JSON form, are those that will be asked."""
        policies = list(policies)
        literals = set(literals_of(policies))
        self._worlds = [
            World(bundle, cedarpy.Schema.from_str(bundle.schema_text())) for bundle in bundles
        ]
        self._models = models
        self._places = places
        self.named = named_codes(
            bundles, {*codes, *(name for kind, name in literals if kind == "Jurisdiction")}
        )
        self.codes = all_codes(self.named)
        self.api = api
        held = {*named_in(policies), *(n for n in belongs if n)}
        names = _ranked(("", *sorted(held), *UNNAMED))
        domains: dict[str, Domain] = {
            ROLES: _subsets(tuple(Role)),
            KIND: _ranked(tuple(CallerKind)),
            SITE: names,
            ORGANISATION: names,
        }
        if api:
            domains[ACTION] = _plain(tuple(ApiAction))
            domains[OWN] = _ranked((False, True))
        else:
            domains[ACTION] = _plain((PLACE_ACTION["id"],))
            domains |= self._model_domains({name for kind, name in literals if kind == "Model"})
            domains |= {name: _ranked(values) for name, values in _FLAGS.items()}
            domains[HOME] = self._jurisdictions()
            if places is None:
                traits = (*_nodes(), *_devices())
                domains |= {
                    PLACE: Domain(traits, tuple(map(_departure, traits))),
                    PLACE_HOME: self._jurisdictions(),
                    OPERATOR: names,
                }
        self.domains: Mapping[str, Domain] = domains
        homes = [world.homes(self.codes) for world in self._worlds]
        self.groups = members_of_groups(
            homes, self.codes, {name for each in bundles for name in each.groups}
        )
        self._rows = [{home["uid"]["id"]: _row(home) for home in each} for each in homes]
        self._caller = lru_cache(_caller)
        self._place = lru_cache(place_entity)
        self._stores = [
            cedarpy.Entities.from_json_str(msgspec.json.encode(each).decode()) for each in homes
        ]

    @property
    def size(self) -> int:
        """How many combinations there are."""
        product = 1
        for domain in self.domains.values():
            product *= len(domain.values)
        return product

    def reads(self, atom: Atom) -> tuple[str, ...]:
        """Return the variables of this space that an atom reads, in their order."""
        reads = set(atom.reads)
        if self._models is not None and reads & MODEL_VARIABLES:
            reads = (reads - MODEL_VARIABLES) | {MODEL}
        return tuple(name for name in self.domains if name in reads)

    def combinations(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield every combination of these variables, the last varying fastest.

        All others have their least value.
        """
        least = {name: domain.values[0] for name, domain in self.domains.items()}
        for values in itertools.product(*(self.domains[name].values for name in names)):
            yield {**least, **dict(zip(names, values, strict=True))}

    def store(self, world: int, entities: Sequence[dict[str, Any]]) -> cedarpy.Entities:
        """Return what Cedar is told of a world, with these entities added."""
        return self._stores[world].with_added_json_str(msgspec.json.encode(entities).decode())

    def request(
        self, values: Values, world: int, reads: Collection[str]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return one request as Cedar takes it, and the entities that it is about.

        Of the context it holds what `reads` names: the rest makes no difference to what reads no
        more, and costs 60 us where a condition costs 20.
        """
        caller = self._caller(*(values[name] for name in _CALLER))
        request = {"principal": caller["uid"], "action": {"type": "Action", "id": str(values[ACTION])}}
        if self.api:
            about = api_resource(ApiAction(values[ACTION]), values[OWN])
            return {**request, "resource": about["uid"], "context": "{}"}, [caller, about]
        name, access = self.model(values, world)
        place = self._place(self.shape(values, world))
        attributes = context_attributes(self.facts(values, name))
        context = {key: value for key, value in attributes.items() if _reads_attribute(key, reads)}
        return {
            **request,
            "resource": place["uid"],
            "context": msgspec.json.encode(context).decode(),
        }, [caller, model_entity(name, access), place]

    def members(
        self, path: tuple[str, ...], world: int
    ) -> tuple[str, tuple[tuple[tuple[str, str], ...] | None, ...]] | None:
        """Return what the set at `path` holds, if it is known to depend on one variable only.

        That is the variable, and for each of its values the entities, as type and id, in the set;
        None where the attribute is missing.
        """
        if path == ("context", MODEL, "roles") and not self.api:
            name = MODEL_ROLES if self._models is None else MODEL
            return name, tuple(
                tuple(("Role", role.value) for role in self._roles(value, world))
                for value in self.domains[name].values
            )
        if path == ("context", HOME, "processed_in") and not self.api:
            rows = self._rows[world]
            return HOME, tuple(rows[code] for code in self.domains[HOME].values)
        return None

    def model(self, values: Values, world: int) -> tuple[str, ModelAccess | None]:
        """Return the name of the model in a request and what a world grants it."""
        name = str(values[MODEL])
        if self._models is not None:
            return name, self._models[world].get(name)
        access = ModelAccess(
            roles=tuple(sorted(values[MODEL_ROLES])),
            purposes=tuple(sorted(values[MODEL_PURPOSES])),
            data_classes=tuple(sorted(values[MODEL_DATA])),
            risk=values[MODEL_RISK],
        )
        parts = (access.roles, access.purposes, access.data_classes, (access.risk,))
        return name or f"any {'; '.join(map(' '.join, parts))}", access

    def shape(self, values: Values, world: int = 0) -> Shape:
        """Return the place in a request."""
        if self._places is not None:
            return self._places[world]
        traits: Traits = values[PLACE]
        return traits.at(
            values[PLACE_HOME], values[OPERATOR] if traits.kind is PlacementKind.NODE else ""
        )

    def facts(self, values: Values, model: str) -> Facts:
        """Return the facts of a request about a model."""
        flags = {name: values[name] for name in _FLAGS}
        caller = {name: values[name] for name in _CALLER}
        return Facts(**caller, model=model, jurisdiction=values[HOME], **flags)

    def _roles(self, value: str | frozenset[Role], world: int) -> Iterable[Role]:
        if isinstance(value, frozenset):
            return value
        access = self._models[world].get(value) if self._models is not None else None
        return access.roles if access else ()

    def _model_domains(self, literals: set[str]) -> dict[str, Domain]:
        if self._models is not None:
            names = sorted({name for models in self._models for name in models})
            return {MODEL: _plain((*names, ANY_MODEL))}
        return {
            MODEL: _plain((ANY_MODEL, *sorted(literals))),
            MODEL_ROLES: _subsets(tuple(Role)),
            MODEL_PURPOSES: _subsets(tuple(Purpose)),
            MODEL_DATA: _subsets(tuple(DataClass)),
            MODEL_RISK: _ranked(tuple(RiskClass)),
        }

    def _jurisdictions(self) -> Domain:
        weights = tuple(0 if code in self.named else 1 for code in self.codes)
        return Domain(self.codes, weights)


def _row(home: dict[str, Any]) -> tuple[tuple[str, str], ...] | None:
    row = home["attrs"].get("processed_in")
    return None if row is None else tuple((e["__entity"]["type"], e["__entity"]["id"]) for e in row)


def _caller(roles: frozenset[Role], kind: CallerKind, site: str, organisation: str) -> dict[str, Any]:
    caller = Caller(roles=roles, kind=kind, site=site, organisation=organisation)
    return caller_entity(caller, f"{kind} of {site} in {organisation}: {' '.join(sorted(roles))}")


def _reads_attribute(name: str, reads: Collection[str]) -> bool:
    return name in reads or (name == MODEL and not MODEL_VARIABLES.isdisjoint(reads))


def _subsets(members: tuple[Any, ...]) -> Domain:
    values = tuple(
        frozenset(member for n, member in enumerate(members) if bits >> n & 1)
        for bits in range(1 << len(members))
    )
    return Domain(values, tuple(map(len, values)))


def _ranked(values: tuple[Any, ...]) -> Domain:
    return Domain(values, tuple(range(len(values))))


def _plain(values: tuple[Any, ...]) -> Domain:
    return Domain(values, (0,) * len(values))
