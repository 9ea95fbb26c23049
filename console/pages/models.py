"""Models: what is published, where it was loaded and unloaded, and how much it is asked."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from audit.index import Hit, RecordIndex, Search, search, tally
from audit.records import Action, RequestRecord
from console.draw import Columns, columns
from console.pages.rows import path_of
from console.period import Period, buckets, ticks
from console.words import clock, outcome_of, tone_of
from coordinator import Release

ROLLOUTS_SHOWN: Final = 30
CHART_HEIGHT: Final = 64


class Version(Struct, frozen=True, kw_only=True):
    """One published release."""

    version: str
    created: str
    digest: str
    equivalence: str
    threshold: str


class Model(Struct, frozen=True, kw_only=True):
    """A model with its releases, newest first, and its use."""

    name: str
    versions: tuple[Version, ...]
    requests: int
    chart: Columns


class Rollout(Struct, frozen=True, kw_only=True):
    """A model was loaded or unloaded on nodes."""

    path: str
    time: str
    action: str
    model: str
    nodes: str
    who: str
    outcome: str
    tone: str


class ModelsPage(Struct, frozen=True, kw_only=True):
    """What the page shows."""

    models: tuple[Model, ...]
    rollouts: tuple[Rollout, ...]


async def models_page(index: RecordIndex, releases: Sequence[Release], now: datetime) -> ModelsPage:
    """Return the models that are published or were asked for in the last thirty days."""
    own = buckets(Period.MONTH, now)
    used: dict[str, list[int]] = {}
    for one in await tally(
        index,
        "model",
        "hour",
        since_hour=own.first_hour,
        until_hour=own.end_hour,
        types=("request", "refusals"),
    ):
        name, hour = one.values
        place = own.place(hour)
        if name and place is not None:
            used.setdefault(name, [0] * len(own.labels))[place] += one.count
    names = sorted({*used, *(release.model for release in releases)})
    empty = [0] * len(own.labels)
    axis = ticks(Period.MONTH, own)
    return ModelsPage(
        models=tuple(
            Model(
                name=name,
                versions=tuple(_version(one) for one in releases[::-1] if one.model == name),
                requests=sum(used.get(name, empty)),
                chart=columns(
                    own.labels,
                    [("requests", "plain", used.get(name, empty))],
                    axis,
                    height=CHART_HEIGHT,
                ),
            )
            for name in names
        ),
        rollouts=await _rollouts(index),
    )


async def _rollouts(index: RecordIndex) -> tuple[Rollout, ...]:
    found: list[Hit] = []
    for action in (Action.LOAD, Action.UNLOAD):
        page = await search(index, Search(action=action.value), count=ROLLOUTS_SHOWN)
        found += page.hits
    found.sort(key=lambda hit: hit.record.time, reverse=True)
    return tuple(
        Rollout(
            path=path_of(hit.origin, hit.position),
            time=clock(record.time),
            action=record.action.value,
            model=record.model or "",
            nodes=", ".join(record.changed) or "none",
            who=record.principal or "",
            outcome=outcome_of(record),
            tone=tone_of(outcome_of(record)),
        )
        for hit in found[:ROLLOUTS_SHOWN]
        if isinstance(record := hit.record, RequestRecord)
    )


def _version(release: Release) -> Version:
    shown = release.equivalence
    return Version(
        version=release.version,
        created=clock(release.created),
        digest=release.digest,
        equivalence=f"{shown.max_abs_difference:.2g} over {shown.rows} rows",
        threshold=f"{release.threshold:.3g}",
    )
