"""What changes between two bundles: every class of requests that they decide otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Final

from msgspec import Struct

from policies.bundle import Bundle, ModelAccess, validate
from policies.facts import Purpose, Role
from policies.proofs.formula import actions_of, parse_policies
from policies.proofs.judgement import Judgement, Mask
from policies.proofs.regions import Region, regions
from policies.proofs.space import Space
from policies.proofs.workbench import Field, rule_of

# Where neither bundle has a model, as when two folders of packs are compared.
OPEN_MODEL: Final[Mapping[str, ModelAccess]] = {
    "open to all": ModelAccess(roles=tuple(Role), purposes=tuple(Purpose))
}


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
    determined = [_determined(judgement) for judgement in (before, after)]
    answers = list(zip(before.outcome(obligations), after.outcome(obligations), strict=True))
    if policies:
        # By id: the same policy may have another number in the other bundle.
        nowhere = axes.book.nothing
        names = sorted({*determined[0], *determined[1]})
        answers += [(determined[0].get(n, nowhere), determined[1].get(n, nowhere)) for n in names]
    changed = reduce(or_, (one ^ other for one, other in answers))
    for mask in _alike([changed], [mask for pair in answers for mask in pair]):
        outcomes = [
            Outcome(
                permitted=(mask & judgement.permitted).any(),
                obligations=tuple(
                    name for name in obligations if (mask & judgement.obliged(name)).any()
                ),
                policies=_within(masks, mask) if policies else (),
            )
            for judgement, masks in zip((before, after), determined, strict=True)
        ]
        yield Change(
            api=field.space.api,
            before=outcomes[0],
            after=outcomes[1],
            combinations=axes.count(mask),
            classes=axes.count_classes(mask),
            before_policies=_within(determined[0], mask),
            after_policies=_within(determined[1], mask),
            regions=tuple(regions(field.space, axes, mask)),
        )


def _alike(cells: Sequence[Mask], masks: Sequence[Mask]) -> Sequence[Mask]:
    """Return `cells` cut up so that each part lies in each of `masks` whole, or not at all."""
    for mask in masks:
        cells = [part for cell in cells for part in (cell & mask, cell & ~mask)]
        cells = [cell for cell in cells if cell.any()]
    return [cell for cell in cells if cell.any()]


def _determined(judgement: Judgement) -> dict[str, Mask]:
    masks = {rule.text.id: judgement.determined(n) for n, rule in enumerate(judgement.rules)}
    return dict(sorted(masks.items()))


def _within(determined: Mapping[str, Mask], mask: Mask) -> tuple[str, ...]:
    return tuple(name for name, own in determined.items() if (own & mask).any())
