"""What must hold while a permitted request is served: the obligations that its permits carry.

A permit says `@obligation("no_cache; outputs(risk); round(2)")`. The names are a closed set, since one
that nobody enforces would be a promise that nobody keeps. Those of several permits all hold: of two
lists of outputs only what stands in both may leave, of two precisions the coarser counts, of two times
of retention the longer.

A law does not know what a model's outputs are called, so its policies say `necessary_outputs`: a
decision about a model has instead `outputs(...)` with those that the site named for that.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Final

from msgspec import Struct

DECIMALS_MAX: Final = 12
RETAIN_DAYS_MAX: Final = 36525

_CALL: Final = re.compile(r"([a-z][a-z0-9_]{0,63})(?:\(([^()]*)\))?")
_OUTPUT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,63}")


class Obligation(StrEnum):
    """Every obligation that there is; the last three take an argument."""

    MAY_CACHE = "may_cache"
    NECESSARY_OUTPUTS = "necessary_outputs"
    NO_CACHE = "no_cache"
    NOTIFY = "notify"
    REVIEW = "review"
    SEAL_PAYLOAD = "seal_payload"
    TWO_PERSON_REVIEW = "two_person_review"
    OUTPUTS = "outputs"
    RETAIN = "retain"
    ROUND = "round"


_NUMBERS: Final = {Obligation.ROUND: DECIMALS_MAX, Obligation.RETAIN: RETAIN_DAYS_MAX}


class Obligations(Struct, frozen=True, kw_only=True):
    """The obligations of one decision, taken together.

    `outputs` are the only ones that may leave, None for all; `decimals` is to how many digits after
    the point numbers are rounded; `retain_days` is how long the record is kept at least.
    """

    names: frozenset[Obligation] = frozenset()
    outputs: frozenset[str] | None = None
    decimals: int | None = None
    retain_days: int | None = None

    def __contains__(self, name: Obligation) -> bool:
        return name in self.names


def canonical(text: str) -> str:
    """Return an obligation as it is recorded: no spaces, outputs sorted, numbers without leading zeros.

    Raises:
        ValueError: saying what is wrong with it.
    """
    match = _CALL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"the obligation {text.strip()!r} is not `name` or `name(argument)`")
    name, argument = match.groups()
    try:
        obligation = Obligation(name)
    except ValueError:
        known = ", ".join(Obligation)
        raise ValueError(f"the obligation {name!r} means nothing; one of {known} is meant") from None
    if obligation in _NUMBERS:
        return f"{name}({_number(obligation, argument)})"
    if obligation is Obligation.OUTPUTS:
        return f"{name}({','.join(_output_names(argument))})"
    if argument is not None:
        raise ValueError(f"the obligation {name!r} takes no argument")
    return name


def resolved(texts: Iterable[str], necessary_outputs: Iterable[str]) -> tuple[str, ...]:
    """Return canonical obligations as they hold for a model whose site named `necessary_outputs`.

    Where it named none, the obligation stays as it is, and nothing can meet it.
    """
    names = ",".join(sorted(necessary_outputs))
    unnamed = Obligation.NECESSARY_OUTPUTS.value
    held = {f"outputs({names})" if text == unnamed and names else text for text in texts}
    return tuple(sorted(held))


@lru_cache(maxsize=1024)
def combined(texts: tuple[str, ...]) -> Obligations:
    """Return what canonical obligations say together."""
    names: set[Obligation] = set()
    outputs: frozenset[str] | None = None
    numbers: dict[Obligation, list[int]] = {}
    for text in texts:
        name, _, argument = text.partition("(")
        obligation = Obligation(name)
        names.add(obligation)
        if obligation is Obligation.OUTPUTS:
            named = frozenset(argument.removesuffix(")").split(","))
            outputs = named if outputs is None else outputs & named
        elif obligation in _NUMBERS:
            numbers.setdefault(obligation, []).append(int(argument.removesuffix(")")))
    return Obligations(
        names=frozenset(names),
        outputs=outputs,
        decimals=min(numbers.get(Obligation.ROUND, ()), default=None),
        retain_days=max(numbers.get(Obligation.RETAIN, ()), default=None),
    )


def _number(obligation: Obligation, argument: str | None) -> int:
    most = _NUMBERS[obligation]
    text = (argument or "").strip()
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise ValueError(f"the obligation {obligation} takes a whole number from 0 to {most}")
    return int(text)


def is_output_name(name: str) -> bool:
    """Return whether an obligation can name this output."""
    return _OUTPUT.fullmatch(name) is not None


def _output_names(argument: str | None) -> Iterable[str]:
    names = sorted({name.strip() for name in (argument or "").split(",")})
    if not all(map(is_output_name, names)):
        raise ValueError("the obligation outputs takes names of outputs, separated by commas")
    return names
