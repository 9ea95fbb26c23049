"""The jurisdictions that stand for all: those that bundles name, and a few for the rest.

A code that no bundle names is told from another by nothing, save that two may be the same or lie in
the same country. So two stand for all of them, in each country that is named and in two that are not.
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from policies.bundle import Bundle
from policies.facts import JURISDICTION

# ISO 3166 leaves these to its users, so that no country and no state is called so.
UNNAMED_COUNTRIES: Final = tuple(f"X{letter}" for letter in reversed(string.ascii_uppercase))
UNNAMED_STATES: Final = tuple(f"ZZ{letter}" for letter in reversed(string.ascii_uppercase))
STAND_INS: Final = 2


def members_of_groups(
    worlds: Sequence[Sequence[dict[str, Any]]], codes: Iterable[str], groups: set[str]
) -> Mapping[str, frozenset[str]]:
    """Return the codes in each group that has the same ones in all worlds."""
    found: list[dict[str, set[str]]] = []
    for homes in worlds:
        parents = {home["uid"]["id"]: [each["id"] for each in home["parents"]] for home in homes}
        members: dict[str, set[str]] = {name: set() for name in groups}
        for code in codes:
            waiting, seen = [code], {code}
            while waiting:
                further = [name for name in parents.get(waiting.pop(), ()) if name not in seen]
                waiting += further
                seen.update(further)
            for name in seen & groups:
                members[name].add(code)
        found.append(members)
    first, *others = found
    return {
        name: frozenset(members)
        for name, members in first.items()
        if members and all(other[name] == members for other in others)
    }


def named_codes(bundles: Sequence[Bundle], others: set[str]) -> frozenset[str]:
    """Return the codes that the bundles' data names, and those among `others`."""
    names = set(others)
    for bundle in bundles:
        names |= {member for group in bundle.groups.values() for member in group.members}
        names |= {*bundle.residency, *(place for row in bundle.residency.values() for place in row)}
    return frozenset(name for name in names if JURISDICTION.fullmatch(name))


def all_codes(named: frozenset[str]) -> tuple[str, ...]:
    """Return the jurisdictions that are named, and those that stand for all others."""
    countries = {code.partition("-")[0] for code in named}
    others = [code for code in UNNAMED_COUNTRIES if code not in countries][:STAND_INS]
    invented = [
        state for country in (*sorted(countries), *others) for state in _unnamed_states(country, named)
    ]
    return (*sorted(named), *sorted(countries - named), *others, *invented)


def _unnamed_states(country: str, named: frozenset[str]) -> list[str]:
    states = (f"{country}-{state}" for state in UNNAMED_STATES)
    return [state for state in states if state not in named][:STAND_INS]
