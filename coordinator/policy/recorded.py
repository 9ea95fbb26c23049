"""What the logs say was decided, as replay and the shadow's report need it: metadata, and no more."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

from audit.minimum import read_minimum
from audit.records import AGREEMENTS, Action, Place, PlaceTrait, Problem, RequestRecord, decode
from audit.reports import LogSource
from audit.verify import read_checkpoint, read_entries, verify_tree
from policies import (
    Agreement,
    Bundle,
    CallerKind,
    Candidate,
    DataClass,
    Engine,
    Facts,
    PlacementKind,
    Purpose,
    Recorded,
    Replay,
    Role,
    replay,
)

EXAMPLES_MAX: Final = 5
# Facts take few values, yet a hundred thousand requests in no order take tens of thousands of them.
REMEMBERED: Final = 262_144

# Their records repeat a decision that another record holds.
_REPEATS: Final = {Action.RECEIPT, Action.FETCH, Action.CANCEL, Action.STREAM_END}


class NotReplayable(StrEnum):
    """Why a recorded decision cannot be repeated; it is counted, and never guessed at."""

    FACTS_MISSING = "facts-missing"
    VALUE_UNKNOWN = "value-unknown"


class Period(Struct, frozen=True, kw_only=True):
    """Which records are looked at; None means without limit."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, time: datetime) -> bool:
        """Say whether `time` lies in it."""
        return not (
            (self.since is not None and time < self.since)
            or (self.until is not None and time >= self.until)
        )


class ReplayRun(Struct, frozen=True, kw_only=True):
    """What a replay found, and how many recorded decisions it had to leave out, by why."""

    version: int
    found: Replay
    not_replayable: dict[NotReplayable, int]


class ShadowReport(Struct, frozen=True, kw_only=True):
    """How often a candidate would have decided otherwise, of the decisions in the period."""

    bundle: str
    decided: int
    differing: int
    counts: dict[str, int]
    examples: dict[str, tuple[str, ...]]


def replay_logs(sources: Sequence[LogSource], bundle: Bundle, period: Period) -> ReplayRun:
    """Decide what `sources` recorded again under `bundle`; each log is verified first. Blocking.

    Raises:
        VerificationError: if a log does not verify.
        BundleInvalid: if the bundle does not validate.
    """
    left_out: Counter[NotReplayable] = Counter()

    def replayable() -> Iterator[Recorded]:
        for where, record in _requests(sources, period):
            entry = recorded(where, record)
            if isinstance(entry, Recorded):
                yield entry
            elif entry is not None:
                left_out[entry] += 1

    found = replay(Engine(bundle, cached_decisions=REMEMBERED), replayable())
    return ReplayRun(version=bundle.version, found=found, not_replayable=dict(left_out))


def recorded(where: str, record: RequestRecord) -> Recorded | NotReplayable | None:
    """Return the decision of a placement that `record` holds; None where it holds none of its own."""
    if record.action in _REPEATS or record.bundle is None or record.data_class is None:
        return None
    if record.carries_payload is None or record.on_device is None:
        return NotReplayable.FACTS_MISSING
    try:
        facts = Facts(
            roles=frozenset(Role(role) for role in record.roles),
            model=record.model or "",
            jurisdiction=record.jurisdiction or "",
            data_class=DataClass(record.data_class),
            purpose=Purpose(record.purpose or ""),
            consent=record.consent,
            emergency=record.emergency,
            on_device=record.on_device,
            kind=CallerKind(record.caller_kind or CallerKind.USER),
            site=record.caller_site or "",
            organisation=record.caller_organisation or "",
            own_device=any(place.placement == record.principal for place in record.candidates),
            carries_payload=record.carries_payload,
        )
    except ValueError:
        return NotReplayable.VALUE_UNKNOWN
    operators = dict(record.operators)
    return Recorded(
        record=where,
        facts=facts,
        candidates=tuple(_candidate(place, operators) for place in record.candidates),
        permitted=record.problem is not Problem.POLICY_REFUSED,
        placement=record.placement,
        policies=record.policies,
        obligations=record.obligations,
        bundle=record.bundle,
    )


def report_shadow(sources: Sequence[LogSource], bundle: str, period: Period) -> ShadowReport:
    """Return what the records say of the candidate with this digest; blocking.

    Raises:
        VerificationError: if a log does not verify.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    decided = differing = 0
    for where, record in _requests(sources, period):
        decided += record.candidates != () and record.action not in _REPEATS
        if record.shadow is None or record.shadow.bundle != bundle or record.action in _REPEATS:
            continue
        differing += 1
        for change in record.shadow.changes:
            counts[change.value] += 1
            shown = examples.setdefault(change.value, [])
            if len(shown) < EXAMPLES_MAX:
                shown.append(where)
    return ShadowReport(
        bundle=bundle,
        decided=decided,
        differing=differing,
        counts=dict(counts),
        examples={change: tuple(shown) for change, shown in examples.items()},
    )


def _requests(sources: Sequence[LogSource], period: Period) -> Iterator[tuple[str, RequestRecord]]:
    for source in sources:
        checkpoint = read_checkpoint(source.folder, source.verifier)
        minimum = read_minimum(source.folder, source.verifier).index
        verify_tree(source.folder, checkpoint, minimum)
        leaves = read_entries(source.folder, checkpoint.size, minimum)
        for index, leaf in enumerate(leaves, minimum):
            record = decode(leaf)
            if isinstance(record, RequestRecord) and period.holds(record.time):
                yield f"{checkpoint.origin}#{index}", record


def _candidate(place: Place, operators: Mapping[str, str]) -> Candidate:
    return Candidate(
        placement=place.placement,
        kind=PlacementKind(place.placement.partition(":")[0]),
        jurisdiction=place.jurisdiction,
        on_premises=PlaceTrait.ON_PREMISES in place.traits,
        operator=operators.get(place.placement, ""),
        agreements=frozenset(map(_agreement, AGREEMENTS & set(place.traits))),
        attested=PlaceTrait.ATTESTED in place.traits,
        adequacy=PlaceTrait.ADEQUACY in place.traits,
        holds_subject=PlaceTrait.HOLDS_SUBJECT in place.traits,
    )


def _agreement(trait: PlaceTrait) -> Agreement:
    return Agreement.BAA if trait is PlaceTrait.AGREEMENT else Agreement(trait.value)
