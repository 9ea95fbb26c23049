"""Charts as geometry: where the marks of a small SVG stand. Templates only put them down."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

GAP: Final = 0.22


class Mark(Struct, frozen=True):
    """A rectangle of a chart; `tone` names its colour, `label` is what it shows."""

    x: float
    y: float
    width: float
    height: float
    tone: str
    label: str


class Line(Struct, frozen=True, kw_only=True):
    """A trend without axes: the points of its line, and of the area under it."""

    points: str
    area: str
    width: int
    height: int


class Columns(Struct, frozen=True, kw_only=True):
    """Stacked columns over time. Across, all is in per cent of the width; down, in pixels.

    `ticks` are (x, text) below them, `lines` (y, text) behind them, and `base` is where they stand.
    """

    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[tuple[float, str], ...]
    base: int
    height: int


def line(values: Sequence[int], *, width: int = 120, height: int = 32) -> Line:
    """Return the trend of `values`, from 0 at the bottom."""
    most = max(values, default=0) or 1
    step = width / max(1, len(values) - 1)
    inner = height - 3
    places = [
        f"{n * step:.1f},{height - 1.5 - value / most * (inner - 1):.1f}"
        for n, value in enumerate(values)
    ]
    points = " ".join(places)
    return Line(points=points, area=f"0,{height} {points} {width},{height}", width=width, height=height)


def columns(
    labels: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[int]]],
    ticks: Sequence[tuple[float, str]],
    *,
    height: int = 180,
    above: int = 18,
) -> Columns:
    """Return a column for each label; `series` are (name, tone, a value for each label)."""
    totals = [sum(values[n] for _, _, values in series) for n in range(len(labels))]
    top = nice(max(totals, default=0))
    slot = 100 / max(1, len(labels))
    base = above + height
    marks = []
    for n, label in enumerate(labels):
        at = float(base)
        for name, tone, values in series:
            if values[n]:
                tall = max(1.0, values[n] / top * height)
                at -= tall
                marks.append(
                    Mark(
                        x=round((n + GAP / 2) * slot, 3),
                        y=round(at, 2),
                        width=round(slot * (1 - GAP), 3),
                        height=round(tall, 2),
                        tone=tone,
                        label=f"{label}: {values[n]:,} {name}",
                    )
                )
    lines = tuple((round(base - height * part, 1), f"{int(top * part):,}") for part in (0.5, 1.0))
    return Columns(marks=tuple(marks), ticks=tuple(ticks), lines=lines, base=base, height=height)


def nice(value: int) -> int:
    """Return the least of 2, 4, 6, 8, 10, 20, 40, ... that is no less than `value`."""
    step = 1
    while True:
        for factor in (2, 4, 6, 8, 10):
            if factor * step >= value:
                return factor * step
        step *= 10


def share(part: int, whole: int) -> float:
    """Return how much of `whole` is `part`, in per cent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0
