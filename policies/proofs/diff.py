"""What changes between two bundles: every class of requests that they decide otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from policies.bundle import Bundle, ModelAccess, validate
from policies.facts import Purpose, Role
from policies.proofs.axes import Axes
from policies.proofs.formula import actions_of, parse_policies
from policies.proofs.judgement import Judgement, Mask
from policies.proofs.regions import Region, regions
from policies.proofs.space import Space
from policies.proofs.workbench import Field, rule_of

# Where neither bundle has a model, as when two folders of packs are compared.
OPEN_MODEL: Final[Mapping[str, ModelAccess]] = {
    "open to all": ModelAccess(roles=tuple(Role), purposes=tuple(Purpose))
}
# Bits of a signed number of 64 that hold one answer each.
PACKED: Final = 60


class Outcome(Struct, frozen=True, kw_only=True):
    """What is decided of a class of requests; `policies` only where they were asked for."""

    permitted: bool
    obligations: tuple[str, ...]
    policies: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = "permitted" if self.permitted else "refused"
        if self.obligations:
            words += f" with {', '.join(self.obligations)}"
        return f"{words} by {', '.join(self.policies)}" if self.policies else words


class Change(Struct, frozen=True, kw_only=True):
    """All requests whose decision changes in one way.

    `combinations` are how many, `classes` in how many classes, `before_policies` and
    `after_policies` what determines the decision of one of them at least.
    """

    api: bool
    before: Outcome
    after: Outcome
    combinations: int
    classes: int
    before_policies: tuple[str, ...]
    after_policies: tuple[str, ...]
    regions: tuple[Region, ...]

    @property
    def rank(self) -> tuple[int, str]:
        """Where it stands in a list: what is newly permitted first, then what is newly refused."""
        kinds = {(False, True): 0, (True, False): 1, (True, True): 2, (False, False): 3}
        return kinds[self.before.permitted, self.after.permitted], f"{self.before} {self.after}"


def differences(before: Bundle, after: Bundle, *, policies: bool = False) -> tuple[Change, ...]:
    """Return every change of a decision between two bundles, what is newly permitted first.

    A decision is whether a request is permitted and with which obligations, and, with `policies`,
    which policies determined it. Models are those that either bundle registers and one that neither
    does; where there are none, one that is open to all.

    Raises:
        BundleInvalid: if a bundle does not validate.
        Unprovable: if a policy looks at what cannot be enumerated.
    """
    models: Sequence[Mapping[str, ModelAccess]] = (before.models, after.models)
    if not before.models and not after.models:
        models = (OPEN_MODEL, OPEN_MODEL)
    bundles = (before, after)
    parsed = [parse_policies(bundle.policies) for bundle in bundles]
    asked = [policy for each in parsed for policy in each]
    changes: list[Change] = []
    for api in (False, True):
        field = Field(Space(bundles, asked, models=models, api=api))
        rules = [
            tuple(
                rule_of(text, policy, world)
                for text, policy in zip(validate(bundle), own, strict=True)
                if field.concerns(actions_of(policy))
            )
            for world, (bundle, own) in enumerate(zip(bundles, parsed, strict=True))
        ]
        axes = field.axes([*rules[0], *rules[1]])
        changes += _changes(field, Judgement(axes, rules[0]), Judgement(axes, rules[1]), policies)
    return tuple(sorted(changes, key=lambda change: change.rank))


def changed_data(before: Bundle, after: Bundle) -> tuple[str, ...]:
    """Return, a line for each, what two bundles enforce otherwise although no decision changes.

    That is which outputs of a model are necessary, which `differences` knows by the obligation's name
    only, and the numbers of federated jobs.
    """
    lines = []
    for name in sorted({*before.models, *after.models}):
        named = [
            ", ".join(bundle.models[name].necessary_outputs) if name in bundle.models else ""
            for bundle in (before, after)
        ]
        if named[0] != named[1]:
            lines.append(f"necessary outputs of {name}: {named[0] or 'none'} -> {named[1] or 'none'}")
    numbers = [bundle.numbers.lines() if bundle.numbers else {} for bundle in (before, after)]
    for name in sorted({*numbers[0], *numbers[1]}):
        old, new = (each.get(name, "none") for each in numbers)
        if old != new:
            lines.append(f"{name}: {old} -> {new}")
    return tuple(lines)


def _changes(field: Field, before: Judgement, after: Judgement, policies: bool) -> Iterator[Change]:
    axes = before.axes
    obligations = tuple(sorted({*before.obligations, *after.obligations}))
    codes = [judgement.outcome(obligations).reshape(-1) for judgement in (before, after)]
    determined = [_determined(judgement) for judgement in (before, after)]
    if policies:
        # By id: the same policy may have another number in the other bundle.
        codes = _with_policies(codes, determined, axes)
    changed = np.flatnonzero(codes[0] != codes[1])
    pairs, numbers = np.unique(np.stack([code[changed] for code in codes]), axis=1, return_inverse=True)
    for n in range(pairs.shape[1]):
        mask = np.zeros(axes.classes, dtype=np.bool_)
        mask[changed[numbers.reshape(-1) == n]] = True
        whole = mask.reshape(axes.shape)
        first = int(mask.argmax())
        outcomes = [
            Outcome(
                permitted=bool(judgement.outcome(()).reshape(-1)[first]),
                obligations=tuple(
                    name for name in obligations if _at(judgement.obliged(name), axes, first)
                ),
                policies=tuple(
                    name for name, own in masks.items() if policies and _at(own, axes, first)
                ),
            )
            for judgement, masks in zip((before, after), determined, strict=True)
        ]
        yield Change(
            api=field.space.api,
            before=outcomes[0],
            after=outcomes[1],
            combinations=axes.count(whole),
            classes=int(mask.sum()),
            before_policies=_within(determined[0], whole),
            after_policies=_within(determined[1], whole),
            regions=tuple(regions(field.space, axes, whole)),
        )


def _determined(judgement: Judgement) -> dict[str, Mask]:
    masks = {rule.text.id: judgement.determined(n) for n, rule in enumerate(judgement.rules)}
    return dict(sorted(masks.items()))


def _with_policies(
    codes: Sequence[NDArray[np.int64]], determined: Sequence[Mapping[str, Mask]], axes: Axes
) -> list[NDArray[np.int64]]:
    """Return numbers for the classes, equal where the codes and what determined them are equal."""
    numbers = np.concatenate(list(codes))
    nowhere: Mask = np.zeros(1, dtype=np.bool_).reshape([1] * len(axes.shape))
    names = sorted({*determined[0], *determined[1]})
    for begin in range(0, len(names), PACKED):
        packed = np.zeros_like(numbers)
        for name in names[begin : begin + PACKED]:
            masks = [np.broadcast_to(own.get(name, nowhere), axes.shape) for own in determined]
            packed = packed * 2 + np.concatenate([mask.reshape(-1) for mask in masks])
        _, inner = np.unique(packed, return_inverse=True)
        _, numbers = np.unique(numbers * (int(inner.max()) + 1) + inner, return_inverse=True)
    return list(np.split(numbers, 2))


def _within(determined: Mapping[str, Mask], mask: Mask) -> tuple[str, ...]:
    return tuple(name for name, own in determined.items() if bool((own & mask).any()))


def _at(mask: Mask, axes: Axes, flat: int) -> bool:
    return bool(np.broadcast_to(mask, axes.shape)[np.unravel_index(flat, axes.shape)])
