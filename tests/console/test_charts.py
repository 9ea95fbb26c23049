"""Charts: that what is drawn says what is so."""

from datetime import UTC, datetime

import pytest

from audit.index import Tally
from console.draw import columns, nice
from console.pages.overview import _change, _residency
from console.period import Period, buckets, each, ticks

NOW = datetime(2026, 11, 28, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "says", "column"),
    [
        (Period.DAY, ["18:00", "28 Nov", "06:00", "12:00"], "hour"),
        (
            Period.WEEK,
            ["Sun 22", "Mon 23", "Tue 24", "Wed 25", "Thu 26", "Fri 27", "Sat 28"],
            "6 hours",
        ),
        (Period.MONTH, ["2 Nov", "9 Nov", "16 Nov", "23 Nov"], "day"),
        (Period.QUARTER, ["15 Sep", "1 Oct", "15 Oct", "1 Nov", "15 Nov"], "3 days"),
    ],
)
def test_the_axis_of_time_says_days_where_they_begin(period, says, column):
    own = buckets(period, NOW)
    shown = ticks(period, own)
    assert [text for _, text in shown] == says
    hours = own.end_hour - own.first_hour
    for at, _ in shown:
        hour = own.first_hour + at / 100 * hours
        assert abs(hour - round(hour)) < 0.2
        assert round(hour) % (6 if period is Period.DAY else 24) == 0
    assert each(own) == column


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (2, 2), (3, 4), (5, 6), (56, 60), (61, 80), (100, 100), (101, 200)]
)
def test_a_scale_ends_a_little_above_what_is_drawn(most, top):
    assert nice(most) == top
    chart = columns(("a",), [("served", "calm", [most])], [])
    assert [text for _, text in chart.lines] == [f"{top // 2:,}", f"{top:,}"]
    assert sum(mark.height for mark in chart.marks) == pytest.approx(180 * most / top)


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (5, 0, "none in the period before"),
        (600, 1, "1 in the period before"),
        (100, 100, "as in the period before"),
        (150, 100, "50 % more than in the period before"),
        (50, 100, "50 % fewer than in the period before"),
    ],
)
def test_a_number_is_compared_with_the_one_before(now, before, words):
    assert _change(now, before) == words


def test_one_run_abroad_is_never_rounded_away():
    own = buckets(Period.DAY, NOW)
    at_home = Tally((own.first_hour, "DE", "DE"), 1_000_000)
    figure = _residency([at_home], own, Period.DAY)
    assert (figure.value, figure.note) == ("100.0 %", "0 of 1,000,000 runs elsewhere")
    abroad = Tally((own.first_hour + 1, "DE", "US-CA"), 1)
    figure = _residency([at_home, abroad], own, Period.DAY)
    assert (figure.value, figure.note) == ("99.9 %", "1 of 1,000,001 runs elsewhere")
    assert _residency([], own, Period.DAY).note == "nothing ran"
