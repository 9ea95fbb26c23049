"""Runs the test cases of packs: what must be decided of made-up requests, and by which policies.

A pack's `tests.yaml` holds

    packs: [base, ...]                the packs that decide, usually all that a site uses
    residency: {...}                  the site's table, if the cases need one
    models: {<name>: {...}}           roles, purposes, data_classes, risk: models, as registered
    places: {node:<name>: {...}}      jurisdiction, on_premises, operator, agreements, attested,
                                      adequacy, holds_subject: candidates
    cases: [{...}]                    name, facts, candidates (names of places), and what is expected:
                                      permitted (places), policies, obligations, citations
    api: [{...}]                      name, roles, kind, site, organisation, own (the work is),
                                      permitted (actions); every other action is refused

What is expected must be exactly what is decided, except for citations, each of which must be among
those of the decision.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from policies.bundle import Bundle, ModelAccess, build_bundle
from policies.decision import Decision
from policies.engine import ApiAction, Engine
from policies.errors import BundleInvalid, CasesInvalid
from policies.facts import (
    Agreement,
    Caller,
    CallerKind,
    Candidate,
    DataClass,
    Facts,
    PlacementKind,
    Purpose,
    Role,
)
from policies.pack import PACKS
from policies.validation import PolicyText
from policies.yaml_text import read_yaml


class Place(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A candidate of the cases."""

    jurisdiction: str
    on_premises: bool = True
    operator: str = ""
    agreements: frozenset[Agreement] = frozenset()
    attested: bool = False
    adequacy: bool = False
    holds_subject: bool = False


class CaseFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts of a case; what it does not state takes the value that it takes in a request."""

    roles: tuple[Role, ...]
    kind: CallerKind = CallerKind.USER
    site: str = ""
    organisation: str = ""
    model: str
    jurisdiction: str
    data_class: DataClass = DataClass.PHI
    purpose: Purpose = Purpose.TREAT
    consent: bool = False
    emergency: bool = False
    on_device: bool = False
    own_device: bool = False
    carries_payload: bool = True


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One made-up request, and what must be decided."""

    name: str
    facts: CaseFacts
    candidates: tuple[str, ...]
    permitted: tuple[str, ...]
    policies: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()


class ApiCase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that callers with these roles may do."""

    name: str
    roles: tuple[Role, ...]
    kind: CallerKind = CallerKind.USER
    site: str = ""
    organisation: str = ""
    own: bool = False
    permitted: tuple[ApiAction, ...]


class Cases(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `tests.yaml` says."""

    packs: tuple[str, ...]
    models: dict[str, ModelAccess] = {}
    residency: dict[str, tuple[str, ...]] = {}
    places: dict[str, Place] = {}
    cases: tuple[Case, ...] = ()
    api: tuple[ApiCase, ...] = ()


class CaseResult(Struct, frozen=True, kw_only=True):
    """How one case came out: what was expected and did not happen, one line each."""

    pack: str
    name: str
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.problems


class PackRun(Struct, frozen=True, kw_only=True):
    """How all cases came out, and which of the packs' policies determined no decision in any."""

    results: tuple[CaseResult, ...]
    untested: tuple[PolicyText, ...]

    @property
    def passed(self) -> bool:
        """Whether every case came out as expected."""
        return all(result.passed for result in self.results)


class Suite(Struct, frozen=True, kw_only=True):
    """The cases of one pack, and the bundle that decides them."""

    pack: str
    cases: Cases
    bundle: Bundle


def load_suites(packs: Sequence[str], *, root: Path = PACKS) -> tuple[Suite, ...]:
    """Read the cases of each of the packs under `root`; a pack without `tests.yaml` has none.

    Raises:
        CasesInvalid: if a `tests.yaml` does not say what it should.
    """
    return tuple(_suite(pack, root) for pack in packs if (root / pack / "tests.yaml").is_file())


def run_cases(packs: Sequence[str], *, root: Path = PACKS) -> PackRun:
    """Run the cases of each of the packs under `root`.

    Raises:
        CasesInvalid: if a `tests.yaml` does not say what it should.
        BundleInvalid: if the packs do not validate.
    """
    results: list[CaseResult] = []
    texts = {
        text.id: text
        for text in Engine(build_bundle(packs, name="tests", version=1, models={}, root=root)).texts
    }
    tested: set[str] = set()
    for suite in load_suites(packs, root=root):
        for result, decisive in run_suite(suite, Engine(suite.bundle)):
            results.append(result)
            tested |= decisive
    untested = tuple(text for name, text in texts.items() if name not in tested)
    return PackRun(results=tuple(results), untested=untested)


def run_suite(suite: Suite, engine: Engine) -> Iterator[tuple[CaseResult, set[str]]]:
    """Yield how each case comes out by `engine`, and the ids of the policies that determined it.

    Raises:
        CasesInvalid: if a case names no place.
    """
    pack, cases = suite.pack, suite.cases
    places = {name: _candidate(pack, name, place) for name, place in cases.places.items()}
    for case in cases.cases:
        missing = [name for name in (*case.candidates, *case.permitted) if name not in places]
        if missing:
            raise CasesInvalid(
                f"{pack}/tests.yaml: the case {case.name!r} names no place {missing[0]!r}"
            )
        candidates = tuple(places[name] for name in case.candidates)
        decision = engine.decide(_facts(case.facts), candidates)
        problems = tuple(_differences(case, decision))
        yield CaseResult(pack=pack, name=case.name, problems=problems), set(decision.policies)
    for api in cases.api:
        yield _run_api(pack, api, engine)


def _suite(pack: str, root: Path) -> Suite:
    file = root / pack / "tests.yaml"
    cases = read_yaml(file.read_text(encoding="utf-8"), f"{pack}/tests.yaml", Cases)
    try:
        bundle = build_bundle(
            cases.packs,
            name="tests",
            version=1,
            models=cases.models,
            residency=cases.residency,
            root=root,
        )
    except BundleInvalid as error:
        raise CasesInvalid(f"{pack}/tests.yaml: {error}") from error
    return Suite(pack=pack, cases=cases, bundle=bundle)


def _run_api(pack: str, case: ApiCase, engine: Engine) -> tuple[CaseResult, set[str]]:
    caller = Caller(
        roles=frozenset(case.roles),
        kind=case.kind,
        site=case.site,
        organisation=case.organisation,
    )
    decisions = {action: engine.authorize(caller, action, own=case.own) for action in ApiAction}
    allowed = [action.value for action, decision in decisions.items() if decision.allowed]
    problems = tuple(_difference("permitted", case.permitted, allowed))
    decisive = {name for decision in decisions.values() for name in decision.policies}
    return CaseResult(pack=pack, name=case.name, problems=problems), decisive


def _differences(case: Case, decision: Decision) -> Iterator[str]:
    yield from _difference("permitted", case.permitted, decision.permitted)
    yield from _difference("policies", case.policies, decision.policies)
    yield from _difference("obligations", case.obligations, decision.obligations)
    cited = "; ".join(decision.citations)
    for citation in case.citations:
        if citation not in cited:
            yield f"citations: expected {citation}, found {cited or 'none'}"


def _difference(what: str, expected: Iterable[str], found: Iterable[str]) -> Iterator[str]:
    wanted, got = sorted(expected), sorted(found)
    if wanted != got:
        yield f"{what}: expected {', '.join(wanted) or 'none'}, found {', '.join(got) or 'none'}"


def _candidate(pack: str, name: str, place: Place) -> Candidate:
    kinds: Mapping[str, PlacementKind] = {kind.value: kind for kind in PlacementKind}
    kind = kinds.get(name.partition(":")[0])
    if kind is None:
        raise CasesInvalid(f"{pack}/tests.yaml: the place {name!r} is neither node:... nor device:...")
    return Candidate(
        placement=name,
        kind=kind,
        jurisdiction=place.jurisdiction,
        on_premises=place.on_premises,
        operator=place.operator,
        agreements=place.agreements,
        attested=place.attested,
        adequacy=place.adequacy,
        holds_subject=place.holds_subject,
    )


def _facts(facts: CaseFacts) -> Facts:
    fields = {name: getattr(facts, name) for name in CaseFacts.__struct_fields__}
    return Facts(**{**fields, "roles": frozenset(facts.roles)})
