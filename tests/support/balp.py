"""Holds AuditEvents against the profiles of IHE BALP, as tests/audit/profiles/balp.json has them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROFILES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "audit/profiles/balp.json").read_text()
)
PREFIX = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/"

Event = Mapping[str, Any]


def declared(event: Event) -> list[str]:
    """Return the profiles that an event declares."""
    urls = event.get("meta", {}).get("profile", [])
    assert all(url.startswith(PREFIX) for url in urls)
    return [url.removeprefix(PREFIX) for url in urls]


def faults(event: Event, name: str) -> list[str]:
    """Say where an event breaks the profile called `name`."""
    profile = PROFILES[name]
    return [
        *_whole(event, profile),
        *_slices(event, profile, "agent"),
        *_slices(event, profile, "entity"),
    ]


def _whole(event: Event, profile: Event) -> Iterator[str]:
    if _code(event["type"]) != profile["type"]:
        yield "type"
    if event.get("action") != profile["action"]:
        yield "action"
    if "outcome" not in event or profile["outcome"] not in (None, event["outcome"]):
        yield "outcome"
    if sum(_code(one) in profile["subtype"] for one in event.get("subtype", [])) != 1:
        yield "subtype"
    yield from (name for name in ("recorded", "source") if name not in event)
    yield from (name for name in profile.get("never", []) if name in event)
    for name, least in profile["least"].items():
        if len(event.get(name, [])) < least:
            yield f"{name}: fewer than {least}"


def _slices(event: Event, profile: Event, name: str) -> Iterator[str]:
    for slice_, wanted in profile[name].items():
        found = [one for one in event.get(name, []) if _code(one.get("type", {})) in wanted["type"]]
        least, most = wanted["card"]
        if not least <= len(found) <= most:
            yield f"{name}[{slice_}]: {len(found)} of them"
        for one in found:
            yield from (f"{name}[{slice_}].{fault}" for fault in _slice(one, wanted, event))


def _slice(one: Event, wanted: Event, event: Event) -> Iterator[str]:
    yield from (path for path in wanted["needs"] if not _at(one, path))
    yield from (path for path in wanted["never"] if path in one)
    if "requestor" in wanted and one.get("requestor") is not wanted["requestor"]:
        yield "requestor"
    if "role" in wanted and "role" in one and _code(one["role"]) not in wanted["role"]:
        yield "role"
    if wanted.get("is_observer") and one["who"] != event["source"]["observer"]:
        yield "val-audit-source"
    if "refers_to" in wanted and one.get("what", {}).get("type") != wanted["refers_to"]:
        yield "what"


def _at(element: Event, path: str) -> object:
    found: Any = element
    for name in path.split("."):
        found = found.get(name, {})
    return found


def _code(element: Event) -> list[str] | None:
    """Return a Coding's, or a CodeableConcept's first coding's, system and code."""
    coding = element.get("coding", [element])[0]
    return [coding["system"], coding["code"]] if "code" in coding else None
