"""The policies in force, what waits beside them, and how two bundles differ."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from audit.records import PolicyRecord
from console.words import clock, tone_of
from coordinator import PolicyDesk
from policies import Engine, PolicyError, PolicyText, read_draft
from policies.proofs import Change, describe

STEPS_SHOWN: Final = 30
CLASSES_SHOWN: Final = 12


class Choice(Struct, frozen=True):
    """A bundle that can be asked about."""

    digest: str
    title: str


class Step(Struct, frozen=True, kw_only=True):
    """One step in the life of a bundle."""

    time: str
    step: str
    version: str
    who: str
    outcome: str
    tone: str
    problem: str


class PolicyPage(Struct, frozen=True, kw_only=True):
    """What the page shows."""

    version: int
    digest: str
    packs: tuple[str, ...]
    signed_by: tuple[str, ...]
    threshold: int
    groups: tuple[tuple[str, tuple[PolicyText, ...]], ...]
    residency: tuple[tuple[str, str], ...]
    models: tuple[tuple[str, str, str], ...]
    drafts: tuple[tuple[Choice, str], ...]
    choices: tuple[Choice, ...]
    steps: tuple[Step, ...]


class Class(Struct, frozen=True, kw_only=True):
    """Requests that are decided otherwise, all in one way."""

    before: str
    after: str
    kind: str
    combinations: int
    classes: tuple[str, ...]
    left: int
    tone: str


class Comparison(Struct, frozen=True, kw_only=True):
    """How two bundles differ."""

    changes: tuple[Class, ...]
    combinations: int


def policy_page(engine: Engine, document: bytes, desk: PolicyDesk) -> PolicyPage:
    """Return the page of what is in force; blocking: it verifies the log of the site's policies."""
    bundle = engine.bundle
    drafts = tuple(
        (Choice(draft.digest(), f"version {draft.version}, a draft"), ", ".join(names) or "nobody yet")
        for draft, names in desk.drafts()
    )
    choices = (
        Choice(bundle.digest(), f"version {bundle.version}, in force"),
        *_published(desk, bundle.digest()),
        *(choice for choice, _ in drafts),
    )
    return PolicyPage(
        version=bundle.version,
        digest=bundle.digest(),
        packs=bundle.packs,
        signed_by=tuple(desk.approvers.names_on(document)),
        threshold=desk.approvers.threshold,
        groups=_groups(engine.texts),
        residency=tuple((home, ", ".join(places)) for home, places in sorted(bundle.residency.items())),
        models=tuple(
            (name, ", ".join(sorted(one.roles)), ", ".join(sorted(one.purposes)))
            for name, one in sorted(bundle.models.items())
        ),
        drafts=drafts,
        choices=choices,
        steps=tuple(map(_step, desk.ledger.read()[::-1][:STEPS_SHOWN])),
    )


def comparison(changes: Sequence[Change]) -> Comparison:
    """Return how two bundles differ, what is newly permitted first."""
    return Comparison(
        changes=tuple(
            Class(
                before=str(change.before),
                after=str(change.after),
                kind="API actions" if change.api else "placements",
                combinations=change.combinations,
                classes=tuple(describe(region) for region in change.regions[:CLASSES_SHOWN]),
                left=max(0, len(change.regions) - CLASSES_SHOWN),
                tone="alert" if change.after.permitted and not change.before.permitted else "caution",
            )
            for change in changes
        ),
        combinations=sum(change.combinations for change in changes),
    )


def _groups(texts: Sequence[PolicyText]) -> tuple[tuple[str, tuple[PolicyText, ...]], ...]:
    packs: dict[str, list[PolicyText]] = {}
    for text in texts:
        packs.setdefault(text.path.partition("/")[0], []).append(text)
    return tuple((name, tuple(own)) for name, own in packs.items())


def _published(desk: PolicyDesk, in_force: str) -> list[Choice]:
    found = []
    files = (desk.folder.root / "published").glob("*.json")
    for path in sorted(files, key=lambda file: file.stem.zfill(12), reverse=True):
        try:
            bundle = read_draft(path.read_bytes())
        except (PolicyError, FileNotFoundError):
            # A damaged file is no bundle; whoever needs it says so.
            continue
        if bundle.digest() != in_force:
            found.append(Choice(bundle.digest(), f"version {bundle.version}, published before"))
    return found


def _step(record: PolicyRecord) -> Step:
    outcome = record.outcome.value
    return Step(
        time=clock(record.time),
        step=record.step.value,
        version="" if record.version is None else str(record.version),
        who=record.principal or ", ".join(record.approvers),
        outcome=outcome,
        tone=tone_of(outcome),
        problem=record.problem.value if record.problem else "",
    )
