"""One record: what it says, why it was decided so, and the proof that it stands in the log."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from audit import VerificationError, WitnessKey
from audit.cosignature import cosignatures_of
from audit.index import Hit
from audit.merkle import inclusion_proof, leaf_hash, verify_inclusion
from audit.minimum import MinimumIndex, read_minimum
from audit.published import FileNodes, read_bundle
from audit.records import AnyRecord, RequestRecord
from audit.reports import LogSource
from audit.tiles import WIDTH
from audit.verify import read_checkpoint, read_cosigned
from console.pages.rows import Row, path_to, row_of
from console.words import clock, replica
from coordinator.policy.recorded import NotReplayable, recorded
from policies import Bundle, PolicyError, why
from policies.proofs import explain_request

# In the order in which somebody asks: who and what, about whom, decided how, where it ran.
GROUPS: Final = (
    ("Who asked, and for what", (
        "principal", "roles", "caller_kind", "caller_site", "caller_organisation", "action", "model",
        "model_version", "model_digest", "kind", "device", "change", "account", "address",
    )),
    ("Facts it was decided on", (
        "subject", "data_class", "jurisdiction", "purpose", "consent", "emergency", "on_device",
        "carries_payload",
    )),
    ("How it was decided", ("policies", "obligations", "bundle", "problem", "verdict", "reason")),
    ("What became of it", (
        "outcome", "state", "status", "placement", "attempted", "flags", "rows", "responses",
        "duration_us", "cohort", "cohort_minimum",
    )),
)  # fmt: skip
TITLES: Final = {
    "duration_us": "Duration (\u00b5s)", "model_digest": "Model SHA-256", "bundle": "Bundle SHA-256",
    "carries_payload": "Brings its own data", "on_device": "A device holds the data",
    "rows": "Rows", "subject": "Subject (pseudonym)", "data_class": "Data class",
}  # fmt: skip
_SHOWN_APART: Final = {"time", "id", "type", "candidates", "shown", "scope", "shadow"}


class Field(Struct, frozen=True):
    """One thing that a record says; `path` leads to more of it."""

    title: str
    value: str
    code: bool
    path: str = ""


class Verdict(Struct, frozen=True):
    """What was decided of one place, and why; `where` says what policies saw in it."""

    placement: str
    where: str
    permitted: bool
    because: str


class Because(Struct, frozen=True, kw_only=True):
    """Why it was decided so; with `missing`, why that cannot be said."""

    sentence: str = ""
    verdicts: tuple[Verdict, ...] = ()
    looked_at: tuple[str, ...] = ()
    mattered: tuple[tuple[str, str], ...] = ()
    flips: tuple[str, ...] = ()
    missing: str = ""


class Proof(Struct, frozen=True, kw_only=True):
    """What was verified when the page was made; with a `problem`, what does not verify."""

    leaf: str = ""
    path: tuple[str, ...] = ()
    size: int = 0
    root: str = ""
    signed_by: str = ""
    seen: tuple[str, ...] = ()
    problem: str = ""


class RecordPage(Struct, frozen=True, kw_only=True):
    """What the page shows."""

    row: Row
    id: str
    groups: tuple[tuple[str, tuple[Field, ...]], ...]
    because: Because | None
    proof: Proof
    raw: str


def record_page(
    hit: Hit,
    leaf: bytes,
    source: LogSource | None,
    bundle_of: Callable[[str], Bundle | None],
    witnesses: tuple[WitnessKey, ...],
) -> RecordPage:
    """Return the page of a record, whose bytes the index holds as `leaf`.

    Blocking: it reads the log and decides the request again.
    """
    record = hit.record
    asked = record if isinstance(record, RequestRecord) else None
    return RecordPage(
        row=row_of(hit),
        id=str(record.id),
        groups=_groups(record),
        because=_because(hit, record, bundle_of) if asked else None,
        proof=_proof(hit, leaf, source, witnesses),
        raw=msgspec.json.format(leaf).decode(),
    )


class PrunedPage(Struct, frozen=True, kw_only=True):
    """What is left of a record that was pruned, and the decision that it should go."""

    name: str
    reference: str
    minimum: int
    newest: str
    decision: str
    decision_path: str
    proof: Proof


def pruned_page(origin: str, position: int, source: LogSource | None) -> PrunedPage | None:
    """Return the page of a record that its log let go of; None if it did not. Blocking.

    Its hash stays, so that it can still be proved where it stood.
    """
    if source is None:
        return None
    try:
        minimum = read_minimum(source.folder, source.verifier)
    except VerificationError:
        return None
    if position >= minimum.index:
        return None
    return PrunedPage(
        name=f"{replica(origin)}#{position}",
        reference=f"{origin}#{position}",
        minimum=minimum.index,
        newest=_newest(minimum),
        decision=minimum.decision,
        decision_path=path_to(minimum.decision),
        proof=_prove(position, None, source, ()),
    )


def _newest(minimum: MinimumIndex) -> str:
    return clock(minimum.newest) if minimum.newest else ""


def _groups(record: AnyRecord) -> tuple[tuple[str, tuple[Field, ...]], ...]:
    said = {
        name: value
        for name, value in msgspec.to_builtins(record).items()
        if name not in _SHOWN_APART and value not in (None, "", [], ())
    }
    groups = []
    for title, names in GROUPS:
        fields = tuple(_field(name, said.pop(name)) for name in names if name in said)
        if fields:
            groups.append((title, fields))
    if said:
        groups.append(("Besides", tuple(_field(name, value) for name, value in said.items())))
    return tuple(groups)


def _field(name: str, value: Any) -> Field:  # noqa: ANN401 whatever JSON a record has
    title = TITLES.get(name, name.replace("_", " ").capitalize())
    if isinstance(value, bool):
        return Field(title, "yes" if value else "no", code=False)
    if isinstance(value, list | tuple):
        return Field(title, ", ".join(map(str, value)), code=False)
    text = str(value)
    path = f"/subjects/{text}" if name == "subject" else ""
    return Field(title, text, code=len(text) == 64, path=path)


def _because(hit: Hit, record: AnyRecord, bundle_of: Callable[[str], Bundle | None]) -> Because | None:
    if not isinstance(record, RequestRecord):
        return None
    entry = recorded(f"{hit.origin}#{hit.position}", record)
    if entry is None:
        return Because(missing="No placement was decided for this request.")
    if isinstance(entry, NotReplayable):
        return Because(missing="Its record does not hold every fact that it was decided on.")
    bundle = bundle_of(entry.bundle)
    if bundle is None:
        return Because(
            missing="The bundle that decided it is not kept here any more; its policies are named as "
            "they were recorded."
        )
    try:
        found = explain_request(bundle, entry.facts, entry.candidates)
    except PolicyError as error:
        return Because(missing=f"It cannot be decided again: {error}")
    where = {
        place.placement: ", ".join(
            (place.jurisdiction or "?", *(trait.value for trait in place.traits))
        )
        for place in record.candidates
    }
    return Because(
        sentence=found.sentence,
        verdicts=tuple(
            Verdict(one.placement, where.get(one.placement, ""), one.permitted, why(one))
            for one in found.decision.verdicts
        ),
        looked_at=found.looked_at,
        mattered=tuple(
            (str(one.change), ", ".join(one.permitted) or "nothing") for one in found.mattered
        ),
        flips=tuple("; ".join(map(str, flip)) for flip in found.flips),
    )


def _proof(
    hit: Hit, indexed: bytes, source: LogSource | None, witnesses: tuple[WitnessKey, ...]
) -> Proof:
    if source is None:
        return Proof(problem="The log is not on this machine; it cannot be verified here.")
    return _prove(hit.position, indexed, source, witnesses)


def _prove(
    position: int, indexed: bytes | None, source: LogSource, witnesses: tuple[WitnessKey, ...]
) -> Proof:
    """Prove where a record stands; one that is gone has no `indexed` bytes, but its hash is there."""
    try:
        checkpoint = read_cosigned(source.folder, source.verifier)
        if position >= checkpoint.size:
            checkpoint = read_checkpoint(source.folder, source.verifier)
        if position >= checkpoint.size:
            return Proof(problem="The log has not published this record yet.")
        nodes = FileNodes(source.folder, checkpoint.size)
        if indexed is None:
            hash_ = nodes.node(0, position)
        else:
            bundle, offset = divmod(position, WIDTH)
            width = min(WIDTH, checkpoint.size - bundle * WIDTH)
            leaf = list(read_bundle(source.folder, bundle, width))[offset]
            if leaf != indexed:
                return Proof(problem="The search index says something else than the log.")
            hash_ = leaf_hash(leaf)
        path = inclusion_proof(position, checkpoint.size, nodes.node)
        verify_inclusion(hash_, position, checkpoint.size, path, checkpoint.root)
        cosigned = cosignatures_of(checkpoint.note, witnesses)
    except VerificationError as error:
        return Proof(problem=str(error))
    return Proof(
        leaf=hash_.hex(),
        path=tuple(one.hex() for one in path),
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        signed_by=str(source.verifier),
        seen=tuple(one.witness.name for one in cosigned),
    )
