"""The overview: how much was asked and refused, where data ran, and whether the logs are well."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from audit.index import Hit, RecordIndex, Tally, tally
from audit.reports.sent import stayed
from audit.reviews import open_reviews
from console.draw import Columns, Line, columns, line, share
from console.pages.logs import LogState
from console.period import TITLES, Buckets, Period, buckets, each, ticks
from console.words import ago, number, plural

REQUESTS: Final = ("request", "refusals")
WAITING_MOST: Final = 500
MODELS_SHOWN: Final = 6
PERCENT_MOST: Final = 500
# What is drawn, from the bottom up: its name, its colour, and the outcomes that it is of.
SERIES: Final = (
    ("served", "calm", ("served",)),
    ("refused", "caution", ("refused",)),
    ("failed or left", "alert", ("failed", "abandoned")),
)


class Figure(Struct, frozen=True, kw_only=True):
    """One number with its trend; `note` says what it is beside, `path` leads to its records."""

    title: str
    value: str
    note: str
    tone: str
    trend: Line | None
    path: str


class Flow(Struct, frozen=True, kw_only=True):
    """Data of one jurisdiction and where it ran."""

    home: str
    place: str
    count: int
    share: float
    stayed: bool


class ModelUse(Struct, frozen=True, kw_only=True):
    """How often a model was asked."""

    name: str
    count: int
    share: float
    trend: Line


class LogUse(Struct, frozen=True):
    """A log and how much was written to it."""

    state: LogState
    trend: Line


class Overview(Struct, frozen=True, kw_only=True):
    """What the page shows; each column of the chart stands for `each`."""

    period: Period
    each: str
    periods: tuple[tuple[Period, str], ...]
    figures: tuple[Figure, ...]
    chart: Columns | None
    legend: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    flows: tuple[Flow, ...]
    models: tuple[ModelUse, ...]
    logs: tuple[LogUse, ...]


async def overview(
    index: RecordIndex, period: Period, logs: Sequence[LogState], now: datetime
) -> Overview:
    """Return the overview of the period up to `now`.

    Raises:
        IndexUnavailable: if the index cannot be read.
    """
    own = buckets(period, now)
    counted = await tally(
        index, "hour", "outcome", since_hour=own.before, until_hour=own.end_hour, types=REQUESTS
    )
    flows = await tally(
        index, "hour", "jurisdiction", "place", since_hour=own.first_hour, until_hour=own.end_hour
    )
    written = await tally(index, "origin", "hour", since_hour=own.first_hour, until_hour=own.end_hour)
    models = await tally(
        index, "model", "hour", since_hour=own.first_hour, until_hour=own.end_hour, types=REQUESTS
    )
    emergencies = await tally(
        index, "hour", "break_glass", since_hour=own.first_hour, until_hour=own.end_hour
    )
    waiting = await open_reviews(index, count=WAITING_MOST)
    by_series = {name: _spread(counted, own, outcomes) for name, _, outcomes in SERIES}
    ran = _flows(flows)
    return Overview(
        period=period,
        each=each(own),
        periods=tuple(TITLES.items()),
        figures=(
            *_figures(counted, own, by_series, period),
            _residency(flows, own, period),
            _emergencies(emergencies, own, waiting, now),
        ),
        chart=_chart(own, by_series, period),
        legend=tuple((name, tone, number(sum(by_series[name]))) for name, tone, _ in SERIES),
        rows=tuple(
            (label, tuple(number(by_series[name][n]) for name, _, _ in SERIES))
            for n, label in enumerate(own.labels)
        ),
        flows=ran,
        models=_models(models, own),
        logs=tuple(LogUse(log, line(_of(log.origin, written, own))) for log in logs),
    )


def _spread(counted: Sequence[Tally], own: Buckets, outcomes: Sequence[str]) -> list[int]:
    values = [0] * len(own.labels)
    for one in counted:
        hour, outcome = one.values
        place = own.place(hour)
        if place is not None and outcome in outcomes:
            values[place] += one.count
    return values


def _of(first: str, counted: Sequence[Tally], own: Buckets) -> list[int]:
    """Return the counts of (`first`, hour) by bucket."""
    values = [0] * len(own.labels)
    for one in counted:
        place = own.place(one.values[1])
        if one.values[0] == first and place is not None:
            values[place] += one.count
    return values


def _figures(
    counted: Sequence[Tally], own: Buckets, by_series: Mapping[str, list[int]], period: Period
) -> list[Figure]:
    totals = [sum(values) for values in zip(*by_series.values(), strict=True)]
    before = sum(one.count for one in counted if one.values[0] < own.first_hour)
    asked, refused, failed = sum(totals), sum(by_series["refused"]), sum(by_series["failed or left"])
    search = f"/search?period={period.value}"
    return [
        Figure(
            title="Requests",
            value=number(asked),
            note=_change(asked, before),
            tone="plain",
            trend=line(totals),
            path=search,
        ),
        Figure(
            title="Refused",
            value=number(refused),
            note=f"{share(refused, asked):.1f} % of requests",
            tone="caution" if refused else "plain",
            trend=line(by_series["refused"]),
            path=f"{search}&outcome=refused",
        ),
        Figure(
            title="Failed or left",
            value=number(failed),
            note=f"{share(failed, asked):.1f} % of requests",
            tone="alert" if failed else "plain",
            trend=line(by_series["failed or left"]),
            path=f"{search}&outcome=failed",
        ),
    ]


def _change(now: int, before: int) -> str:
    percent = share(now - before, before)
    # Of few, or of many times as many, a percentage says nothing.
    if not before or percent > PERCENT_MOST:
        return f"{number(before) if before else 'none'} in the period before"
    if abs(percent) < 0.5:
        return "as in the period before"
    return f"{abs(percent):.0f} % {'more' if percent > 0 else 'fewer'} than in the period before"


def _residency(counted: Sequence[Tally], own: Buckets, period: Period) -> Figure:
    whole, abroad = 0, [0] * len(own.labels)
    for one in counted:
        hour, home, ran_in = one.values
        place = own.place(hour)
        if ran_in and place is not None:
            whole += one.count
            abroad[place] += 0 if stayed(home or "?", ran_in) else one.count
    away = sum(abroad)
    return Figure(
        title="Ran in its own country",
        # Rounded to all of it, a single run abroad would not be seen.
        value=f"{min(share(whole - away, whole), 99.9 if away else 100):.1f} %" if whole else "\u2013",
        note=f"{number(away)} of {plural(whole, 'run')} elsewhere" if whole else "nothing ran",
        tone="plain",
        trend=line(abroad),
        path=f"/search?period={period.value}&outcome=served",
    )


def _emergencies(
    counted: Sequence[Tally], own: Buckets, waiting: Sequence[Hit], now: datetime
) -> Figure:
    values = [0] * len(own.labels)
    for one in counted:
        place = own.place(one.values[0])
        if place is not None and one.values[1]:
            values[place] += one.count
    more = "+" if len(waiting) == WAITING_MOST else ""
    return Figure(
        title="Emergencies to review",
        value=f"{number(len(waiting))}{more}",
        note=f"oldest {ago(waiting[0].record.time, now)}" if waiting else "nothing waits",
        tone="alert" if waiting else "calm",
        trend=line(values),
        path="/emergencies",
    )


def _chart(own: Buckets, by_series: Mapping[str, list[int]], period: Period) -> Columns | None:
    if not any(map(sum, by_series.values())):
        return None
    series = [(name, tone, by_series[name]) for name, tone, _ in SERIES]
    return columns(own.labels, series, ticks(period, own))


def _flows(counted: Sequence[Tally]) -> tuple[Flow, ...]:
    ran: Counter[tuple[str, str]] = Counter()
    for one in counted:
        _, home, place = one.values
        if place:
            ran[home or "?", place] += one.count
    most = max(ran.values(), default=0)
    return tuple(
        Flow(
            home=home,
            place=place,
            count=count,
            share=share(count, most),
            stayed=stayed(home, place),
        )
        for (home, place), count in ran.most_common()
    )


def _models(counted: Sequence[Tally], own: Buckets) -> tuple[ModelUse, ...]:
    values: dict[str, list[int]] = {}
    for one in counted:
        name, hour = one.values
        place = own.place(hour)
        if name and place is not None:
            values.setdefault(name, [0] * len(own.labels))[place] += one.count
    found = sorted(values.items(), key=lambda item: (-sum(item[1]), item[0]))[:MODELS_SHOWN]
    most = max((sum(own_) for _, own_ in found), default=0)
    return tuple(
        ModelUse(name=name, count=sum(own_), share=share(sum(own_), most), trend=line(own_))
        for name, own_ in found
    )
