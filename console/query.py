"""A search as the form, its address and saved searches have it: closed values, checked once."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from audit.index import Search
from audit.records import Action, Outcome, Problem
from console.errors import FormInvalid
from console.forms import midnight, one, over
from console.period import TITLES, Period, since_of
from console.words import short
from policies import DataClass, Purpose

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
_PSEUDONYM: Final = re.compile(r"[0-9a-f]{64}")
_JURISDICTION: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")


class What(StrEnum):
    """Which records: those of requests, one of the other types, or all."""

    REQUESTS = "request"
    REFUSALS = "refusals"
    CONSOLE = "console"
    REVIEWS = "review"
    REPORTS = "report"
    POLICIES = "policy"
    JOBS = "job"
    RELEASES = "release"
    DEVICES = "device"
    ERASURES = "erasure"
    HOLDS = "hold"
    PRUNES = "prune"
    EVERYTHING = "all"


WHAT_TITLES: Final = {
    What.REQUESTS: "Requests",
    What.REFUSALS: "Refusals at a full door",
    What.CONSOLE: "Console activity",
    What.REVIEWS: "Reviews",
    What.REPORTS: "Reports made",
    What.POLICIES: "Policy steps",
    What.JOBS: "Federated jobs",
    What.RELEASES: "Releases",
    What.DEVICES: "Devices",
    What.ERASURES: "Erasures",
    What.HOLDS: "Legal holds",
    What.PRUNES: "Pruning",
    What.EVERYTHING: "All records",
}


# What a value of a field looks like, for whoever typed another; nothing typed is ever repeated.
HINTS: Final = {
    "principal": "Who asked: a name as records have it, such as dr.adams.",
    "subject": "Subject's pseudonym: 64 hexadecimal digits. A person is found by the form beside this.",
    "model": "Model: a name as records have it, such as sepsis.",
    "jurisdiction": "Data of: a country or a state, such as DE or US-CA.",
    "place": "Ran in: a country or a state, such as DE or US-CA.",
    "placement": "Ran on: a node or a device, such as node:us-1.",
    "log": "Log: its whole name, such as clinic/gateway-1.",
    "since": "From: a day, such as 2026-11-28.",
    "until": "To: a day, such as 2026-11-28.",
}
ANY_HINT: Final = "One of the filters holds none of the values that it offers."


class Query(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is looked for. A `period` ends now; `since` and `until` are days, both included."""

    what: What = What.REQUESTS
    period: Period | None = None
    since: date | None = None
    until: date | None = None
    outcome: Outcome | None = None
    action: Action | None = None
    problem: Problem | None = None
    principal: str | None = None
    subject: str | None = None
    model: str | None = None
    data_class: DataClass | None = None
    jurisdiction: str | None = None
    place: str | None = None
    placement: str | None = None
    log: str | None = None
    purpose: Purpose | None = None
    emergency: bool = False

    def search(self, now: datetime) -> Search:
        """Return the search over the index, for a period that ends `now`."""
        since = midnight(self.since) if self.since else None
        until = over(self.until) if self.until else None
        if self.period:
            since, until = since_of(self.period, now), None
        return Search(
            type=None if self.what is What.EVERYTHING else self.what.value,
            since=since,
            until=until,
            origin=self.log,
            break_glass=True if self.emergency else None,
            **{name: _text(getattr(self, name)) for name in _COPIED},
        )

    def fields(self) -> dict[str, str]:
        """Return it as the form has it: only what was chosen."""
        found = msgspec.to_builtins(self)
        if self.emergency:
            found["emergency"] = "on"
        return {name: str(value) for name, value in found.items()}

    def address(self) -> str:
        """Return where it is shown."""
        fields = self.fields()
        return f"/search?{urlencode(fields)}" if fields else "/search"

    def title(self) -> str:
        """Return it in words: a saved search has no other name, so nobody can write one into it."""
        parts = [WHAT_TITLES[self.what]]
        parts += [str(_text(value)) for name in _COPIED[:3] if (value := getattr(self, name))]
        parts += ["emergencies"] if self.emergency else []
        parts += [f"by {self.principal}"] if self.principal else []
        parts += [f"about {short(self.subject)}"] if self.subject else []
        parts += [str(_text(value)) for name in _COPIED[5:7] if (value := getattr(self, name))]
        parts += [f"of {self.jurisdiction}"] if self.jurisdiction else []
        parts += [f"run in {self.place}"] if self.place else []
        parts += [f"on {self.placement}"] if self.placement else []
        parts += [f"in the log {self.log}"] if self.log else []
        parts += [f"for {self.purpose.value}"] if self.purpose else []
        parts += [f"last {TITLES[self.period]}"] if self.period else []
        if not self.period:
            parts += [f"since {self.since}"] if self.since else []
            parts += [f"until {self.until}"] if self.until else []
        return " \u00b7 ".join(parts)


_COPIED: Final = (
    "outcome",
    "action",
    "problem",
    "principal",
    "subject",
    "model",
    "data_class",
    "jurisdiction",
    "place",
    "placement",
    "purpose",
)
_PATTERNS: Final = {
    "principal": _IDENTIFIER,
    "subject": _PSEUDONYM,
    "model": _IDENTIFIER,
    "jurisdiction": _JURISDICTION,
    "place": _JURISDICTION,
    "placement": _IDENTIFIER,
    "log": _IDENTIFIER,
}


def read_query(fields: Mapping[str, list[str]]) -> Query:
    """Return the query in a form's fields; fields of other forms are left alone.

    Raises:
        FormInvalid: if a value is none that its field may have.
    """
    given: dict[str, Any] = {}
    for name in Query.__struct_fields__:
        text = one(fields, name)
        if text is None:
            continue
        if name == "emergency":
            given[name] = text == "on"
        elif name in _PATTERNS and not _PATTERNS[name].fullmatch(text):
            raise FormInvalid(f"the field `{name}` holds no value that it may have", name)
        else:
            given[name] = text
    try:
        return msgspec.convert(given, Query)
    except msgspec.ValidationError as error:
        # msgspec's own message may quote the value; the field's name is ours.
        where = str(error).rpartition("`$.")[2].rstrip("`")
        name = where if where in Query.__struct_fields__ else "search"
        raise FormInvalid(f"the field `{name}` holds no value that it may have", name) from error


def read_filters(fields: Mapping[str, list[str]]) -> tuple[Query, tuple[str, ...]]:
    """Return the query without what does not fit, and which fields that was in.

    Raises:
        FormInvalid: if what is wrong is in no field of a search.
    """
    left = dict(fields)
    wrong: list[str] = []
    while True:
        try:
            return read_query(left), tuple(wrong)
        except FormInvalid as error:
            if error.field is None or error.field not in left:
                raise
            wrong.append(error.field)
            del left[error.field]


def _text(value: object) -> str | None:
    return None if value is None else str(getattr(value, "value", value))
